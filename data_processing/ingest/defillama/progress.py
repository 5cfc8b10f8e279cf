"""Which pools a pull has stored: the next `ingest` goes on by it where an interrupted one stopped.

In: the ledger's runs and `yieldspark.ingest_progress`, a row for each pool and run, written in the
transaction that stores the pool. Out: pool ids. The owner's tables say nothing of it: other jobs
write `pools.last_updated` too.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, delete, exists, func, insert, or_, select

from database.connections.engine import checked_connection
from database.ledger.runs import Run
from database.schema.tables import ingest_progress, raw_pool_history, run_ledger

RESUME_WITHIN = timedelta(hours=12)
"""An older pull is not gone on with: its first pools would lack the newest day."""


def record_stored(connection: Connection, run: Run, pool_id: str, snapshots: int) -> None:
    """Inside the transaction that stores the pool. `snapshots` is how many its chart had."""
    row = {"run_id": run.run_id, "pool_id": pool_id, "snapshots": snapshots}
    connection.execute(insert(ingest_progress).values(row))


def stored_before(engine: Engine, run: Run) -> set[str]:
    """Pools that the interrupted pull which `run` goes on with has stored; empty where `run` begins
    a new one. Forgets what no later run can go on with.

    A pool whose raw rows are gone since then (the owner's fetcher may rewrite the table) is not
    among them.
    """
    with checked_connection(engine) as connection:
        oldest = connection.execute(select(func.now())).scalar_one() - RESUME_WITHIN
        connection.execute(delete(ingest_progress).where(ingest_progress.c.stored_at < oldest))
        is_there = exists().where(raw_pool_history.c.pool_id == ingest_progress.c.pool_id)
        stored = select(ingest_progress.c.pool_id).where(
            ingest_progress.c.run_id.in_(_interrupted_runs(connection, run, oldest)),
            or_(ingest_progress.c.snapshots == 0, is_there),
        )
        return set(connection.execute(stored).scalars())


def _interrupted_runs(connection: Connection, run: Run, oldest: datetime) -> list[str]:
    """The unbroken chain of cancelled and failed runs before this one, with the same first day."""
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
