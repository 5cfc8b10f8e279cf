"""The run ledger: one row for each run, opened before the work and closed in all cases, and the
lock that prevents two runs of a job.

The connection that commits the rows also holds the lock: losing it loses lock and commit together.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from common.errors import (
    CheckFailed,
    DatabaseError,
    DatabaseRefused,
    RunInProgress,
    summarize_error,
)
from common.events import EVENT_OF_STATUS, RUN_STARTED, STAGE_ENDED, line_fields, log_event
from common.quantities import duration
from common.version import PRODUCT_VERSION
from database.connections.advisory_locks import (
    try_lock_in_session,
    try_lock_in_transaction,
    unlock_in_session,
)
from database.connections.engine import translate_errors
from database.connections.errors import translate_jdbc_errors
from database.ledger.check_result import Acceptance, CheckResult
from database.ledger.run_json import ROW_COUNTS
from database.schema.own_tables import GOOD, OWN_SCHEMA, run_ledger

log = logging.getLogger(__name__)


OPENED: ContextVar[Callable[[Engine, str], None] | None] = ContextVar("OPENED", default=None)
"""Receives engine and id of each run as soon as its row can be read. It must not raise an error."""

COLUMNS_AT_START = ("run_id", "job", "mode", "engine", "start", "end", "as_of", "plan")
"""Columns of the ledger that a run knows when it opens."""


@dataclass
class Run:
    """An open run. Its fields are written to the ledger when it closes."""

    run_id: str
    job: str
    connection: Connection
    mode: str | None = None
    engine: str | None = None
    start: date | None = None
    end: date | None = None
    as_of: date | None = None
    watermark: datetime | None = None
    plan: dict[str, Any] | None = None
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROW_COUNTS, 0))
    stages: dict[str, float] = field(default_factory=dict)
    checks: list[CheckResult] = field(default_factory=list)
    acceptance: Acceptance | None = None
    # 0: the rows that it replaces are not kept, and `undo` can't restore them
    undo_days: int = 0
    jvm_started: bool = False
    status: str = "running"
    error: str | None = None
    record_stages: Callable[[Run], None] | None = field(default=None, repr=False)
    # not the clock, which may be set while the run works
    _started: float = field(default_factory=time.monotonic)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage in seconds; stages of the same name are added up. The ledger shows it as
        soon as it has ended.
        """
        log.info("%s: %s ...", self.job, name)
        started = time.monotonic()
        try:
            yield
        finally:
            seconds = round(self.stages.get(name, 0.0) + time.monotonic() - started, 3)
            self.stages[name] = seconds
            values = (self.job, name, duration(seconds))
            log_event(log, STAGE_ENDED, "%s: %s %s", *values, stage=name, seconds=seconds)
        # not after an error: the run is closed at once, with its stages
        if self.record_stages:
            self.record_stages(self)

    def nothing_to_do(self) -> None:
        """Mark the run as `nothing_to_do`: the plan is empty."""
        self.status = "nothing_to_do"

    def write(self, connection: Connection, *, finished: bool) -> None:
        """Update the run's row inside the caller's transaction.

        Args:
            connection: connection of the transaction.
            finished: also set end and duration.
        """
        values: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "status",
                "mode",
                "engine",
                "start",
                "end",
                "as_of",
                "watermark",
                "plan",
                "rows",
                "stages",
                "jvm_started",
                "error",
            )
        }
        values["checks"] = [check.to_json() for check in self.checks]
        values["is_undoable"] = self.undo_days > 0 and self.status in GOOD
        if finished:
            values |= {
                # the server's clock may have gone back since the start
                "finished_at": func.greatest(func.clock_timestamp(), run_ledger.c.started_at),
                "seconds": round(time.monotonic() - self._started, 3),
            }
        connection.execute(
            update(run_ledger).where(run_ledger.c.run_id == self.run_id).values(values)
        )


@contextmanager
def open_run(
    engine: Engine,
    *,
    job: str,
    mode: str,
    engine_name: str | None = None,
    start: date | None = None,
    end: date | None = None,
    as_of: date | None = None,
    plan: dict[str, Any] | None = None,
    code_version: str = PRODUCT_VERSION,
    batch_id: str | None = None,
) -> Iterator[Run]:
    """Take the job's lock, open a ledger row, and close it as succeeded, nothing_to_do, blocked,
    cancelled or failed.

    An exception of the block is recorded and raised again. A run whose rows are committed stays
    `succeeded`.

    Args:
        engine: engine of the database.
        job: name of the job.
        mode: mode of the run, such as `incremental`.
        engine_name: forecast engine.
        start: first UTC day of the run.
        end: end of the days of the run, exclusive.
        as_of: as-of day of a forecast.
        plan: the plan as JSON.
        code_version: version of the code.
        batch_id: id of the batch that runs the job; its cost is recorded by this id.

    Raises:
        RunInProgress: another run of the job has the lock.
        DatabaseError: the ledger cannot be written.
    """
    with translate_errors(engine.url), engine.connect() as connection:
        _require_session_mode(engine, connection)
        _lock(connection, job)
        # after the lock: a running job keeps its row and its staging tables
        close_ended_runs(connection, job)
        run = Run(
            new_run_id(job),
            job,
            connection,
            mode=mode,
            engine=engine_name,
            start=start,
            end=end,
            as_of=as_of,
            plan=plan,
            record_stages=partial(_record_stages, engine),
        )
        values = {name: getattr(run, name) for name in COLUMNS_AT_START}
        insert_run(connection, **values, code_version=code_version, batch_id=batch_id)
        # the row must be visible to `status` while the run works
        connection.commit()
        with line_fields(run_id=run.run_id, job=job, batch_id=batch_id), _closing(engine, run):
            _announce(engine, run)
            yield run


def _announce(engine: Engine, run: Run) -> None:
    """Log the start of a run and call the receiver of `OPENED`."""
    fields = {"mode": run.mode, "engine": run.engine}
    log_event(log, RUN_STARTED, "%s: run %s", run.job, run.run_id, **fields)
    if on_open := OPENED.get():
        on_open(engine, run.run_id)


def _record_stages(engine: Engine, run: Run) -> None:
    """Write the stages of a running run, for `status` and the dashboard, in a short transaction."""
    # the run's own transaction may have changed the row: waiting for it would never end
    row = (
        select(run_ledger.c.run_id)
        .where(run_ledger.c.run_id == run.run_id, run_ledger.c.status == "running")
        .with_for_update(skip_locked=True)
    )
    stages = update(run_ledger).where(run_ledger.c.run_id.in_(row)).values(stages=run.stages)
    # progress is no reason to fail: a lost server ends the run at its next statement
    with suppress(DBAPIError, DatabaseError), engine.begin() as connection:
        connection.execute(stages)


@contextmanager
def _closing(engine: Engine, run: Run) -> Iterator[None]:
    """Close the run at the end of the block, with its error if it fails."""
    try:
        with translate_jdbc_errors(engine.url):
            yield
    except BaseException as error:
        run.status, run.error = _outcome(error)
        # for `failure_payload`
        error.failed_run = engine, run.run_id  # type: ignore[attr-defined]
        raise
    finally:
        _close(engine, run)
        _log_end(run)


def _log_end(run: Run) -> None:
    """Log the event of the run's status, with counts, seconds and the error."""
    seconds = round(time.monotonic() - run._started, 3)
    fields = {"counts": run.rows, "seconds": seconds} | ({"error": run.error} if run.error else {})
    values = (run.job, run.run_id, run.status, f": {run.error}" if run.error else "")
    log_event(log, EVENT_OF_STATUS[run.status], "%s: run %s %s%s", *values, **fields)


def insert_run(connection: Connection, *, run_id: str, job: str, **values: Any) -> None:
    """Insert the row of a run that starts now.

    Args:
        connection: the caller's transaction.
        run_id: id of the run.
        job: name of the job.
        **values: other columns of the run ledger.
    """
    row: dict[str, Any] = {
        "run_id": run_id,
        "job": job,
        "started_at": _after_earlier_runs(job),
        "status": "running",
        "rows": dict.fromkeys(ROW_COUNTS, 0),
        "stages": {},
        "checks": [],
    }
    connection.execute(insert(run_ledger).values(row | values))


def _after_earlier_runs(job: str) -> ColumnElement[datetime]:
    """Return SQL for the start of a run: now, or just after the job's last run if the clock went
    back.
    """
    # the last run is the one with the newest start, whatever the clock did in between
    newest = select(func.max(run_ledger.c.started_at) + timedelta(microseconds=1)).where(
        run_ledger.c.job == job
    )
    return func.greatest(func.now(), newest.scalar_subquery())


def _outcome(error: BaseException) -> tuple[str, str]:
    if isinstance(error, KeyboardInterrupt):
        return "cancelled", "interrupted"
    return "blocked" if isinstance(error, CheckFailed) else "failed", summarize_error(error)


def _close(engine: Engine, run: Run) -> None:
    if run.status == "running":
        run.status = "succeeded"
    try:
        # an error leaves the transaction aborted, and it would reject every statement
        run.connection.rollback()
        _finish(run.connection, run)
        # explicitly: the server may notice the end of the connection after the next run has started
        unlock_in_session(run.connection, run.job)
    except DBAPIError:
        # the connection is lost and its transaction rolled back; the row must still be closed
        # if this fails too, the next run of the job closes the row
        with suppress(DBAPIError, DatabaseError), engine.connect() as another:
            _finish(another, run)


def _finish(connection: Connection, run: Run) -> None:
    # FOR UPDATE waits for a commit that may still be running on a lost connection
    row = select(run_ledger.c.status).where(run_ledger.c.run_id == run.run_id).with_for_update()
    if connection.execute(row).scalar_one() == "succeeded":
        # committed together with the rows: a later failure, also of the commit's own answer,
        # does not undo it
        run.status, run.error = "succeeded", None
    # only of this run: the lock may be lost with the connection, and another run may be loading
    _drop_staging(connection, run.run_id)
    run.write(connection, finished=True)
    connection.commit()


def _require_session_mode(engine: Engine, connection: Connection) -> None:
    """Raise DatabaseRefused behind a pooler in transaction mode.

    Such a pooler gives the server process of an idle session, with its locks, to another client.
    """
    query = text("SELECT pg_backend_pid()")
    process_id = connection.execute(query).scalar_one()
    # a pooler in transaction mode changes the server process between transactions only
    connection.rollback()
    with engine.connect() as another:
        if another.execute(query).scalar_one() != process_id:
            return
    raise DatabaseRefused(
        f"two sessions at {engine.url.host}:{engine.url.port} share one server process: behind a"
        " pooler in transaction mode, a job's lock has no effect. Set DB_HOST and DB_PORT to the"
        " server itself, or to a pooler in session mode"
    )


def is_job_idle(connection: Connection, job: str) -> bool:
    """Whether no run of the job is alive, whatever its ledger rows are.

    Call it in a short transaction: no run can start until it ends.
    """
    if not try_lock_in_transaction(connection, job):
        return False
    leased = select(run_ledger.c.run_id).where(
        run_ledger.c.job == job,
        run_ledger.c.status == "running",
        run_ledger.c.lease_expires_at >= func.clock_timestamp(),
    )
    return connection.execute(leased).first() is None


def _lock(connection: Connection, job: str) -> None:
    if not try_lock_in_session(connection, job):
        raise RunInProgress(already_running_message(connection, job))


def already_running_message(connection: Connection, job: str) -> str:
    """Return the message of RunInProgress, with the run that is alive."""
    run = connection.execute(
        select(run_ledger.c.run_id, run_ledger.c.started_at)
        .where(run_ledger.c.job == job, run_ledger.c.status == "running")
        .order_by(run_ledger.c.started_at.desc())
    ).first()
    owner = (
        f"run {run.run_id} of {run.started_at:%Y-%m-%d %H:%M:%S} UTC" if run else "another session"
    )
    return (
        f"{job} is already running: {owner} is alive. Wait until it ends, then run again;"
        " `status` shows it"
    )


def close_ended_runs(connection: Connection, job: str) -> None:
    """Close rows and drop staging tables of killed drivers, in the caller's transaction, which
    has the job's lock.

    Raises:
        RunInProgress: a run of the job has a lease that has not expired.
    """
    ended = (
        update(run_ledger)
        .where(
            run_ledger.c.job == job,
            run_ledger.c.status == "running",
            # waits for a commit that renews the lease, and then leaves the run alone
            func.coalesce(run_ledger.c.lease_expires_at < func.clock_timestamp(), True),
        )
        .values(
            status="failed",
            error="the driver ended without closing the run",
            finished_at=func.greatest(func.clock_timestamp(), run_ledger.c.started_at),
            lease_expires_at=None,
        )
    )
    closed = connection.execute(ended).rowcount
    alive = select(run_ledger.c.run_id).where(
        run_ledger.c.job == job, run_ledger.c.status == "running"
    )
    if connection.execute(alive).first():
        raise RunInProgress(already_running_message(connection, job))
    if closed:
        log.warning("%s: closed %d run(s) whose driver had ended without closing them", job, closed)
    _drop_staging(connection, job + RUN_SUFFIX)


def _drop_staging(connection: Connection, run_id: str) -> None:
    """Drop the staging tables of a run, or of all runs whose id matches the pattern."""
    names = connection.execute(
        text("""
            SELECT tablename
            FROM pg_tables
            WHERE schemaname = :schema
                AND tablename ~ :pattern
        """),
        {"schema": OWN_SCHEMA, "pattern": f"^staging_{run_id}_"},
    ).scalars()
    for name in names.all():
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {OWN_SCHEMA}.{name}")


RUN_SUFFIX = r"_\d{8}t\d{6}_[0-9a-f]{6}"
"""Pattern of the suffix in `new_run_id`. It keeps apart jobs whose name begins with another's."""


def new_run_id(job: str) -> str:
    """Return an id that begins with the job and the moment, UTC."""
    # with a random part: two runs may begin in the same second
    return f"{job}_{datetime.now(UTC):%Y%m%dt%H%M%S}_{secrets.token_hex(3)}"
