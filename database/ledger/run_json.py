"""The `--json` document of a run: its keys, and what it is for an error that no run was open for.

It knows no SQL at import: a command that was typed wrong has its document without the database's
libraries.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from common.errors import DatabaseError, Interrupted, summarize_error

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
"""Keys of a job's `--json`, in this order: scripts rely on them."""


def failure_payload(error: BaseException, job: str | None) -> dict[str, Any]:
    """The `--json` document of a command that this error ended: the ledger row of its run, or the
    same keys where no run was open.
    """
    failed = getattr(error, "failed_run", None) or getattr(error.__cause__, "failed_run", None)
    if failed:
        from database.ledger.runs import ledger_row

        with suppress(DatabaseError):
            return ledger_row(*failed)
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
