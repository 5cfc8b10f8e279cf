"""Costs and durations in the ledger: what a batch cost goes into the rows of the runs it made, and
past durations come out for an estimate.

In: settings whose database has this version's tables. The database is reached through
`database.connection`; its errors are the product's.
"""

from __future__ import annotations

from sqlalchemy import select, update

from config_spark import Settings
from database.connection import checked_connection, make_engine
from database.tables import run_ledger

PAST_RUNS = 30
"""A month of nights."""

NIGHTLY_MODES = ("incremental", "daily")
"""Not a backfill and not a past day: their durations say nothing of a night's."""


def record_cost(settings: Settings, batch_id: str, usd: float) -> int:
    """Write what a batch cost into the ledger. Returns: rows updated; 0 where the batch ended
    before it opened a run, or made none.

    Raises: DatabaseError.
    """
    statement = update(run_ledger).where(run_ledger.c.batch == batch_id).values(cost_usd=usd)
    with checked_connection(make_engine(settings)) as connection:
        return connection.execute(statement).rowcount


def past_seconds(settings: Settings, job: str) -> list[float]:
    """Seconds of the job's last good nights on batches, newest first, PAST_RUNS at most; a laptop's
    runs are another machine's.

    Raises: DatabaseError.
    """
    ledger = run_ledger.c
    nightly = ledger.mode.in_(NIGHTLY_MODES)
    statement = (
        select(ledger.seconds)
        .where(
            ledger.job == job,
            ledger.status == "succeeded",
            nightly,
            ledger.batch.is_not(None),
            ledger.seconds.is_not(None),
        )
        .order_by(ledger.started_at.desc())
        .limit(PAST_RUNS)
    )
    with checked_connection(make_engine(settings)) as connection:
        return list(connection.execute(statement).scalars())
