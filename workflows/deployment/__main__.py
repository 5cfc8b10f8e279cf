"""Runs one step of cloudbuild.yaml: `python3 -m workflows.deployment STEP`. Exit codes: 0 success,
1 the step failed, 2 wrong use or an unreadable checkout.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from common.errors import YieldSparkError
from workflows.deployment.checkout import check
from workflows.deployment.context import Context, say
from workflows.deployment.deploy_step import deploy
from workflows.deployment.images import provide_images
from workflows.deployment.release_step import release
from workflows.deployment.settings_file import fetch_settings
from workflows.deployment.verify_step import verify

STEPS: dict[str, Callable[[Context], None]] = {
    "check": check,
    "settings": fetch_settings,
    "images": provide_images,
    "release": release,
    "deploy": deploy,
    "verify": verify,
}
"""In the order of cloudbuild.yaml, which runs the suite before `images`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a step.

    Args:
        arguments: Command line; default: `sys.argv`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python3 -m workflows.deployment", allow_abbrev=False)
    parser.add_argument("step", choices=STEPS)
    step = parser.parse_args(arguments).step
    try:
        STEPS[step](Context(Path.cwd(), dict(os.environ)))
    except YieldSparkError as error:
        say(f"{step}: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
