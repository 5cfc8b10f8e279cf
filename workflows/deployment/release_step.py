"""The step `release`: `python -m workflows release` of the commit, with the settings of the project
and the image by its digest.
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
    """Raises: DeploymentFailed; latest.json names then what it named before."""
    commit = required_commit(context)
    # the suite ran in this checkout since `check`
    require_commit_in_checkout(context, commit)
    image = provided_image(context, BATCH)
    given = released_settings(context) | {"CONTAINER_IMAGE": image}
    done = subprocess.run(
        [sys.executable, "-m", "workflows", "release", "--json"],
        cwd=context.root,
        env={**context.variables, **given},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DeploymentFailed(
            f"`python -m workflows release` ended with exit code {done.returncode}; its own words"
            " are above, and latest.json is as it was"
        )
    document = json.loads(done.stdout)
    context.save_output(OUTPUT_FILE, document)
    uploaded = len(document["uploaded"])
    say(f"{document['version']} is the latest release; {uploaded} files were new")
