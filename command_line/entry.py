"""Entry of `run_spark_local.py`: the application with all of its commands, and the document of a
job that failed.
"""

from __future__ import annotations

from typing import Any, NoReturn

from command_line import (  # noqa: F401 - importing puts the commands on the application
    commands,
    compare_commands,
    database_commands,
    forecast_commands,
    model_commands,
    quarantine_commands,
    suite_commands,
)
from command_line.app import app
from command_line.run_application import run_application
from database.run_document import failure_document

JOBS = {
    "calculate_metrics": "calculate_metrics",
    "forecast_pools": "forecast_pools",
    "ingest": "ingest",
    "quarantine drop": "drop_quarantine",
    "quarantine replay": "replay_quarantine",
}
"""The ledger's job of each command that has one."""


def main() -> NoReturn:
    """Run the command of `sys.argv` and exit with its code."""
    run_application(app, _failure)


def _failure(error: BaseException, words: list[str]) -> dict[str, Any]:
    return failure_document(
        error, JOBS.get(words[0] if words else "") or JOBS.get(" ".join(words[:2]))
    )
