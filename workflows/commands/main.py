"""Entry point of `python -m workflows`. Importing the command modules registers their commands."""

from __future__ import annotations

from typing import NoReturn

from cli.run_application import run_application
from workflows.commands import (
    batch_commands,  # noqa: F401
    check_commands,  # noqa: F401
    cost_commands,  # noqa: F401
    local_commands,  # noqa: F401
    operator_commands,  # noqa: F401
    release_commands,  # noqa: F401
    run_commands,  # noqa: F401
)
from workflows.commands.app import app, failed_command


def main() -> NoReturn:
    """Run the command of `sys.argv` and exit with its code."""
    # no time limit after Ctrl-C: cancelling in the cloud takes longer than ending a local process
    run_application(app, failed_command, prog_name="python -m workflows", end_seconds=None)
