"""Runs that work for days, such as a stream: a lease in the run ledger takes the place of the lock
and of its connection.

A run renews its lease inside each of its commits and needs no connection in between. When the lease
has expired, the next run of the job closes the run's row as failed, and from then on the run cannot
commit. Times are those of the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, extract, func, update

from common.errors import RunInProgress, RunLost
from common.version import PRODUCT_VERSION
from database.connections.advisory_locks import try_lock_in_transaction
from database.connections.engine import checked_connection
from database.ledger.runs import already_running_message, close_ended_runs, insert_run, new_run_id
from database.schema.own_tables import run_ledger


@dataclass(frozen=True)
class LeasedRun:
    """A run that is alive while its lease lasts.

    Attributes:
        run_id: id of its row in the run ledger.
        job: name of the job; only one run of a job is alive.
        lease: time from a renewal to the end of the lease. Choose a multiple of the longest time
            between two commits.
    """

    run_id: str
    job: str
    lease: timedelta

    def renew(self, connection: Connection, rows: Mapping[str, int] | None = None) -> None:
        """Renew the lease inside the transaction that commits rows.

        Args:
            connection: the caller's transaction. The row of the ledger stays locked until it ends,
                so that no other run can take over in between.
            rows: counts of the run so far, by outcome; None keeps the recorded ones.

        Raises:
            RunLost: another run has taken over; roll the transaction back.
        """
        values: dict[str, Any] = {"lease_expires_at": _expiry(self.lease)}
        self._update(connection, values if rows is None else values | {"rows": dict(rows)})

    def close(self, engine: Engine, status: str = "succeeded", *, error: str | None = None) -> None:
        """End the run.

        Args:
            engine: engine of the database.
            status: succeeded, cancelled or failed.
            error: message of the error that ended the run.

        Raises:
            RunLost: another run has taken over and closed this one.
            DatabaseError: the ledger cannot be written.
        """
        seconds = extract("epoch", func.clock_timestamp() - run_ledger.c.started_at)
        values = {
            "status": status,
            "error": error,
            # the server's clock may have gone back since the start
            "finished_at": func.greatest(func.clock_timestamp(), run_ledger.c.started_at),
            "seconds": func.greatest(0, seconds),
            "lease_expires_at": None,
        }
        with checked_connection(engine) as connection:
            self._update(connection, values)

    def _update(self, connection: Connection, values: Mapping[str, Any]) -> None:
        own_row = update(run_ledger).where(
            run_ledger.c.run_id == self.run_id, run_ledger.c.status == "running"
        )
        # a run that takes over closes this row in the same way: PostgreSQL lets one of both updates
        # match
        if not connection.execute(own_row.values(values)).rowcount:
            raise RunLost(
                f"run {self.run_id} is not alive any more: its lease of {self.lease} expired and"
                f" another run of {self.job} closed it. Nothing was written; start the job again"
            )


def start_leased_run(
    engine: Engine,
    *,
    job: str,
    mode: str,
    lease: timedelta,
    plan: Mapping[str, Any] | None = None,
    code_version: str = PRODUCT_VERSION,
) -> LeasedRun:
    """Record the start of a run, in one transaction.

    Args:
        engine: engine of the database.
        job: name of the job.
        mode: mode of the run.
        lease: as in `LeasedRun`.
        plan: the plan as JSON.
        code_version: version of the code.

    Raises:
        RunInProgress: another run of the job is alive.
        DatabaseError: the ledger cannot be written.
    """
    run = LeasedRun(new_run_id(job), job, lease)
    with checked_connection(engine) as connection:
        # until the commit: from then on the lease in the row keeps other runs away
        if not try_lock_in_transaction(connection, job):
            raise RunInProgress(already_running_message(connection, job))
        close_ended_runs(connection, job)
        insert_run(
            connection,
            run_id=run.run_id,
            job=job,
            mode=mode,
            plan=plan,
            code_version=code_version,
            lease_expires_at=_expiry(lease),
        )
    return run


def _expiry(lease: timedelta) -> ColumnElement[Any]:
    # not now(), which is the start of a transaction that may have waited
    return func.clock_timestamp() + lease
