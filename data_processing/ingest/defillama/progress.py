"""Records which pools an ingest run has stored, so that the next run resumes an interrupted one.

Reads the run ledger and `yieldspark.ingest_progress`, which gets a row for each pool and run in the
transaction that stores the pool. The owner's tables can't tell: other jobs write
`pools.last_updated` as well.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, delete, exists, func, insert, or_, select

from database.connections.engine import checked_connection
from database.ledger.runs import Run
from database.schema.own_tables import ingest_progress, run_ledger
from database.schema.owner_tables import raw_pool_history

RESUME_WITHIN = timedelta(hours=12)
"""An older run is not resumed: its first pools would lack the newest day."""


def record_stored(connection: Connection, run: Run, pool_id: str, snapshots: int) -> None:
    """Record a stored pool.

    Args:
        connection: the transaction that stores the pool.
        run: the open run.
        pool_id: the pool.
        snapshots: number of snapshots of its chart.
    """
    row = {"run_id": run.run_id, "pool_id": pool_id, "snapshots": snapshots}
    connection.execute(insert(ingest_progress).values(row))


def pools_already_stored(engine: Engine, run: Run) -> set[str]:
    """Return the pools that the interrupted run has stored which this run resumes.

    Deletes records that no later run can resume.

    Args:
        engine: the database.
        run: the open run.

    Returns:
        Pool ids; empty if the run starts from the beginning.
    """
    with checked_connection(engine) as connection:
        oldest = connection.execute(select(func.now())).scalar_one() - RESUME_WITHIN
        connection.execute(delete(ingest_progress).where(ingest_progress.c.stored_at < oldest))
        # the owner's fetcher may have rewritten the table since then
        is_there = exists().where(raw_pool_history.c.pool_id == ingest_progress.c.pool_id)
        stored = select(ingest_progress.c.pool_id).where(
            ingest_progress.c.run_id.in_(_interrupted_runs(connection, run, oldest)),
            # a pool with an empty chart has no raw row to look for
            or_(ingest_progress.c.snapshots == 0, is_there),
        )
        return set(connection.execute(stored).scalars())


def _interrupted_runs(connection: Connection, run: Run, oldest: datetime) -> list[str]:
    """Return the unbroken chain of cancelled and failed runs before this one with its first day."""
    before = (
        select(run_ledger.c.run_id, run_ledger.c.status, run_ledger.c.started_at)
        .where(
            run_ledger.c.job == run.job,
            run_ledger.c.run_id != run.run_id,
            run_ledger.c.start.is_not_distinct_from(run.start),
        )
        .order_by(run_ledger.c.started_at.desc())
    )
    chain = []
    for row in connection.execute(before):
        if row.status not in {"cancelled", "failed"} or row.started_at < oldest:
            break
        chain.append(row.run_id)
    return chain
