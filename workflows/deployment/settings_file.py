"""The step `settings`: reads settings.env of the code bucket, which Terraform writes, into the
variables of the release. Rejects a file with a secret and never prints a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from common.errors import DeploymentFailed
from workflows.deployment.context import Context, last_error_line, say

SETTINGS = "settings.env"
OUTPUT_FILE = "settings.json"
NEEDED = ("PROJECT_ID", "REGION", "CODE_BUCKET", "WORKFLOW_NAME")
"""Settings that the steps themselves need; `release` names those that the batches lack."""

NAME = re.compile(r"[A-Z][A-Z0-9_]*")
SECRET = re.compile(r"(PASSWORD|PASSWD|TOKEN|CREDENTIALS?|PRIVATE_KEY|API_KEY)$")
"""Endings of a secret's name. The name of a secret in Secret Manager ends with _SECRET."""

APPLY = "`terraform apply` writes it"


def fetch_settings(context: Context) -> None:
    """Run the step.

    Raises:
        DeploymentFailed: The file is missing or wrong.
    """
    bucket = context.required("CODE_BUCKET", "the trigger sets _CODE_BUCKET")
    uri = f"gs://{bucket}/{SETTINGS}"
    process = context.run(["gcloud", "storage", "cat", uri])
    if process.returncode:
        raise DeploymentFailed(f"{uri} can't be read: {last_error_line(process)}; {APPLY}")
    settings = parse_settings(process.stdout, uri)
    require_settings(settings, bucket, uri)
    context.save_output(OUTPUT_FILE, settings)
    say(f"{len(settings)} settings from {uri}")


def require_settings(settings: Mapping[str, str], bucket: str, uri: str) -> None:
    """Check the settings that the steps need.

    Args:
        settings: Settings by name.
        bucket: CODE_BUCKET of the trigger.
        uri: Address of the file, for errors.

    Raises:
        DeploymentFailed: A setting is missing, or the file is of another bucket.
    """
    missing = [name for name in NEEDED if not settings.get(name)]
    if missing:
        raise DeploymentFailed(f"{uri} lacks {', '.join(missing)}; {APPLY}")
    if settings["CODE_BUCKET"] != bucket:
        raise DeploymentFailed(
            f"{uri} is of another bucket, CODE_BUCKET={settings['CODE_BUCKET']}; correct"
            " _CODE_BUCKET in the trigger"
        )


def released_settings(context: Context) -> dict[str, str]:
    """Return the settings that `fetch_settings` saved.

    Raises:
        DeploymentFailed: They are missing.
    """
    settings: dict[str, str] = context.load_output(OUTPUT_FILE, "settings")
    return settings


def parse_settings(text: str, uri: str) -> dict[str, str]:
    """Parse lines NAME=VALUE. Values may be quoted; empty lines and lines that begin with # are
    skipped.

    Args:
        text: Content of the file.
        uri: Address of the file, for errors.

    Raises:
        DeploymentFailed: A line is wrong; the message has its number and never its value.
    """
    settings: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not NAME.fullmatch(name):
            raise DeploymentFailed(
                f"{uri}, line {number} is no setting: NAME=VALUE is allowed, with a name in upper"
                f" case; {APPLY}"
            )
        if SECRET.search(name):
            raise DeploymentFailed(
                f"{uri}, line {number} has {name}, and the file must not hold a secret; delete"
                " the line, replace that secret, and set DB_PASSWORD_SECRET to its name in Secret"
                " Manager"
            )
        # which of two values counts would depend on the reader
        if name in settings:
            raise DeploymentFailed(f"{uri}, line {number} has {name} a second time; {APPLY}")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        settings[name] = value[1:-1] if quoted else value
    return settings
