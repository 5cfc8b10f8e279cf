"""The step `release`: runs `python -m workflows release` with the project's settings and the
image's digest.
"""

from __future__ import annotations

import json
import subprocess
import sys

from common.errors import DeploymentFailed
from workflows.deployment.checkout import require_commit_in_checkout, required_commit
from workflows.deployment.context import Context, say
from workflows.deployment.images import BATCH, provided_image
from workflows.deployment.settings_file import released_settings

OUTPUT_FILE = "release.json"


def release(context: Context) -> None:
    """Run the step. A failure leaves latest.json unchanged.

    Raises:
        DeploymentFailed: The release fails.
    """
    commit = required_commit(context)
    # again, because the suite has run in this checkout since `check`
    require_commit_in_checkout(context, commit)
    image = provided_image(context, BATCH)
    variables = released_settings(context) | {"CONTAINER_IMAGE": image}
    process = subprocess.run(
        [sys.executable, "-m", "workflows", "release", "--json"],
        cwd=context.root,
        env={**context.variables, **variables},
        stdin=subprocess.DEVNULL,
        # only its result: progress and errors go to the build's log
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if process.returncode:
        raise DeploymentFailed(
            f"`python -m workflows release` ended with exit code {process.returncode}; its error"
            " is above, and latest.json is unchanged"
        )
    summary = json.loads(process.stdout)
    context.save_output(OUTPUT_FILE, summary)
    uploaded = len(summary["uploaded"])
    say(f"{summary['version']} is the latest release; {uploaded} files were new")
