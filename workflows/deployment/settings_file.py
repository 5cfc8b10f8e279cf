"""The step `settings`: settings.env of the code bucket, which Terraform writes, becomes the
variables of the release.

In: lines NAME=VALUE. Out: settings.json in DEPLOYMENT_FOLDER. The file holds no secret, and one
that does is refused without a word of its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from common.errors import DeploymentFailed
from workflows.deployment.context import Context, last_error_line, say

SETTINGS = "settings.env"
OUTPUT_FILE = "settings.json"
NEEDED = ("PROJECT_ID", "REGION", "CODE_BUCKET", "WORKFLOW_NAME")
"""What the steps themselves need. `release` names what the batches lack."""

NAME = re.compile(r"[A-Z][A-Z0-9_]*")
SECRET = re.compile(r"(PASSWORD|PASSWD|TOKEN|CREDENTIALS?|PRIVATE_KEY|API_KEY)$")
"""Endings of a secret's name; that of its place in Secret Manager ends with _SECRET."""

APPLY = "`terraform apply` writes it"


def fetch_settings(context: Context) -> None:
    """Raises: DeploymentFailed."""
    bucket = context.required("CODE_BUCKET", "the trigger sets _CODE_BUCKET")
    where = f"gs://{bucket}/{SETTINGS}"
    done = context.run(["gcloud", "storage", "cat", where])
    if done.returncode:
        raise DeploymentFailed(f"{where} can't be read: {last_error_line(done)}; {APPLY}")
    settings = parse_settings(done.stdout, where)
    require_settings(settings, bucket, where)
    context.save_output(OUTPUT_FILE, settings)
    say(f"{len(settings)} settings from {where}")


def require_settings(settings: Mapping[str, str], bucket: str, where: str) -> None:
    """Raises: DeploymentFailed where one of `NEEDED` is missing, or the bucket is another one."""
    missing = [name for name in NEEDED if not settings.get(name)]
    if missing:
        raise DeploymentFailed(f"{where} lacks {', '.join(missing)}; {APPLY}")
    if settings["CODE_BUCKET"] != bucket:
        raise DeploymentFailed(
            f"{where} is of another bucket, CODE_BUCKET={settings['CODE_BUCKET']}; correct"
            " _CODE_BUCKET in the trigger"
        )


def released_settings(context: Context) -> dict[str, str]:
    """What `fetch_settings` load_output on. Raises: DeploymentFailed."""
    settings: dict[str, str] = context.load_output(OUTPUT_FILE, "settings")
    return settings


def parse_settings(text: str, where: str) -> dict[str, str]:
    """Names and values. A value may stand in quotes; empty lines and those that begin with # are
    left out.

    Raises: DeploymentFailed naming the line, and never a value.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not NAME.fullmatch(name):
            raise DeploymentFailed(
                f"{where}, line {number} is no setting: NAME=VALUE is allowed, with a name in upper"
                f" case; {APPLY}"
            )
        if SECRET.search(name):
            raise DeploymentFailed(
                f"{where}, line {number} has {name}, and no secret may stand there; delete the"
                " line, change that secret, and name its place in Secret Manager by"
                " DB_PASSWORD_SECRET"
            )
        if name in found:
            raise DeploymentFailed(f"{where}, line {number} has {name} a second time; {APPLY}")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        found[name] = value[1:-1] if quoted else value
    return found
