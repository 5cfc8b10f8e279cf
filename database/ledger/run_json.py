"""JSON output of a run (`--json`): its keys, and the output for an error outside of a run.

Imports no SQL library, so that a mistyped command has its output without loading one.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from common.errors import DatabaseError, Interrupted, summarize_error

if TYPE_CHECKING:
    from sqlalchemy import Engine

ROW_COUNTS = ("read", "quarantined", "inserted", "updated", "unchanged", "removed")
LEDGER_KEYS = (
    "run_id",
    "job",
    "status",
    "mode",
    "start",
    "end",
    "as_of",
    "engine",
    "rows",
    "stages",
    "seconds",
    "jvm_started",
    "checks",
    "error",
)
"""Keys of a job's `--json` output, in this order. Scripts rely on them."""


def failed_run(error: BaseException) -> tuple[Engine, str] | None:
    """Return the engine and the id of the run that ended with an error; None if none was open."""
    # on the cause if the error was translated after the run had been closed
    failed: tuple[Engine, str] | None
    failed = getattr(error, "failed_run", None) or getattr(error.__cause__, "failed_run", None)
    return failed


def failure_payload(error: BaseException, job: str | None) -> dict[str, Any]:
    """Return the `--json` output of a command that failed.

    Args:
        error: the error that ended the command.
        job: name of the job, None for other commands.

    Returns:
        The ledger row of the failed run, or the same keys if no run was open.
    """
    if failed := failed_run(error):
        # imported here: only a failed run needs a database
        from database.ledger.run_records import read_run

        # the database that failed the run may not answer now either
        with suppress(DatabaseError):
            return read_run(*failed).to_json()
    status = "cancelled" if isinstance(error, KeyboardInterrupt | Interrupted) else "failed"
    empty: dict[str, Any] = {
        "rows": dict.fromkeys(ROW_COUNTS, 0),
        "stages": {},
        "checks": [],
        "jvm_started": False,
    }
    return (
        dict.fromkeys(LEDGER_KEYS)
        | empty
        | {
            "job": job,
            "status": status,
            "error": summarize_error(error),
        }
    )
