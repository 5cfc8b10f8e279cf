"""Entry of `run_spark_local.py`: the application with all of its commands."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from cli import (
    commands,  # noqa: F401
    compare_commands,  # noqa: F401
    dashboard_command,  # noqa: F401
    database_commands,  # noqa: F401
    forecast_commands,  # noqa: F401
    history_command,  # noqa: F401
    model_commands,  # noqa: F401
    quarantine_commands,  # noqa: F401
    run_commands,  # noqa: F401
    suite_commands,  # noqa: F401
)
from cli.app import app
from cli.run_application import run_application
from common.interrupts import END_SECONDS
from common.jobs import job_names
from database.ledger.run_json import failure_payload

# The `job` in the run ledger of the commands that are no batch jobs; those have their own name
JOB_OF_COMMAND = {
    "ingest": "ingest",
    "quarantine drop": "drop_quarantine",
    "quarantine replay": "replay_quarantine",
    "validate": "validate",
}


def main() -> NoReturn:
    """Run the command of `sys.argv` and exit with its code."""
    # `test` limits itself the time until pytest has printed its summary
    end_seconds = None if sys.argv[1:2] == ["test"] else END_SECONDS
    run_application(app, _failure, end_seconds=end_seconds)


def _failure(error: BaseException, arguments: list[str]) -> dict[str, Any]:
    jobs = {name: name for name in job_names()} | JOB_OF_COMMAND
    names = (" ".join(arguments[:length]) for length in (1, 2))
    return failure_payload(error, next((jobs[name] for name in names if name in jobs), None))
