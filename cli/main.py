"""Entry of `run_spark_local.py`: the application with all of its commands, and the document of a
job that failed.
"""

from __future__ import annotations

from typing import Any, NoReturn

from cli import (
    commands,  # noqa: F401
    compare_commands,  # noqa: F401
    database_commands,  # noqa: F401
    forecast_commands,  # noqa: F401
    model_commands,  # noqa: F401
    quarantine_commands,  # noqa: F401
    suite_commands,  # noqa: F401
)
from cli.app import app
from cli.run_application import run_application
from database.ledger.run_json import failure_document

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
