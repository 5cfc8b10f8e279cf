"""Entry of `python -m workflows`: the application with all of its commands."""

from __future__ import annotations

from typing import NoReturn

from cli.run_application import run_application
from emulator import local_commands  # noqa: F401
from workflows import (  # noqa: F401 - importing puts the commands on the application
    check_commands,
    run_commands,
)
from workflows.app import app, failed_command
from workflows.batches import batch_commands  # noqa: F401
from workflows.costs import cost_commands  # noqa: F401
from workflows.inside_network import operator_commands  # noqa: F401
from workflows.releases import release_commands  # noqa: F401


def main() -> NoReturn:
    """Run the command of `sys.argv` and exit with its code."""
    # what Ctrl-C has to cancel in the cloud may take longer than what runs here
    run_application(app, failed_command, prog_name="python -m workflows", end_seconds=None)
