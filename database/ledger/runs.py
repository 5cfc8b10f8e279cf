"""The ledger: one row for each run, opened before work and closed whatever happens; the advisory
lock that keeps two runs of a job apart.

The lock is held by the same connection that later commits the run's rows: who loses the connection
loses lock and commit together.
"""

from __future__ import annotations

import getpass
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import DBAPIError

from common.errors import CheckFailed, DatabaseError, DatabaseRefused, RunInProgress, one_sentence
from common.settings.cloud import PRODUCT_VERSION
from database.connections.engine import translated_errors
from database.connections.errors import translated_jdbc
from database.ledger.run_json import LEDGER_KEYS, ROW_COUNTS
from database.schema.tables import OWN_SCHEMA, run_ledger

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Acceptance:
    """Checks that one run may fail, who said so, and why."""

    names: tuple[str, ...]
    by: str
    reason: str


def who_is_asking() -> str:
    """user@host, for what the ledger says of a person's decision."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


@dataclass
class Run:
    """One open run: what it learns on the way is written to the ledger when it closes."""

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
    checks: list[dict[str, Any]] = field(default_factory=list)
    acceptance: Acceptance | None = None
    jvm_started: bool = False
    status: str = "running"
    error: str | None = None
    _began: float = field(default_factory=time.monotonic)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage in seconds; a stage entered twice adds up."""
        log.info("%s: %s ...", self.job, name)
        began = time.monotonic()
        try:
            yield
        finally:
            self.stages[name] = round(self.stages.get(name, 0.0) + time.monotonic() - began, 3)
            log.info("%s: %s %.1f s", self.job, name, self.stages[name])

    def nothing_to_do(self) -> None:
        """Close the run as `nothing_to_do`: the plan was empty."""
        self.status = "nothing_to_do"

    def write(self, connection: Connection, *, finished: bool) -> None:
        """Write what is known now into the run's row, inside the caller's transaction."""
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
                "checks",
                "jvm_started",
                "error",
            )
        }
        if finished:
            values |= {
                "finished_at": func.greatest(func.clock_timestamp(), run_ledger.c.started_at),
                "seconds": round(time.monotonic() - self._began, 3),
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
    """Hold the job's lock, open its ledger row, and close it: succeeded, nothing_to_do, blocked,
    cancelled or failed.

    Args: batch_id is the id of the cloud's batch that this run is, by which its cost finds the row.
    Raises: RunInProgress where another run of the job holds the lock; DatabaseError. What the body
    raises passes on, after it is in the ledger; a run whose rows were committed by then stays
    `succeeded`.
    """
    with translated_errors(engine.url), engine.connect() as connection:
        _require_session_mode(engine, connection)
        _lock(connection, job)
        _repair(connection, job)
        run = Run(
            _new_run_id(job),
            job,
            connection,
            mode=mode,
            engine=engine_name,
            start=start,
            end=end,
            as_of=as_of,
            plan=plan,
        )
        row = {
            "run_id": run.run_id,
            "job": job,
            "started_at": _after_earlier_runs(job),
            "status": "running",
            "mode": mode,
            "start": start,
            "end": end,
            "as_of": as_of,
            "plan": plan,
        }
        of_code = {"engine": engine_name, "code_version": code_version, "batch_id": batch_id}
        values = row | of_code | {"rows": run.rows, "stages": {}, "checks": []}
        connection.execute(insert(run_ledger).values(values))
        connection.commit()
        try:
            with translated_jdbc(engine.url):
                yield run
        except BaseException as error:
            run.status, run.error = _outcome(error)
            error.failed_run = engine, run.run_id  # type: ignore[attr-defined]  # for `failure_document`
            raise
        finally:
            _close(engine, run)


def _after_earlier_runs(job: str) -> ColumnElement[datetime]:
    """SQL: the server's clock, or just after the job's newest run: the order of runs stays right
    where the clock goes back.
    """
    newest = select(func.max(run_ledger.c.started_at) + timedelta(microseconds=1)).where(
        run_ledger.c.job == job
    )
    return func.greatest(func.now(), newest.scalar_subquery())


def _outcome(error: BaseException) -> tuple[str, str]:
    if isinstance(error, KeyboardInterrupt):
        return "cancelled", "interrupted"
    return "blocked" if isinstance(error, CheckFailed) else "failed", one_sentence(error)


def _close(engine: Engine, run: Run) -> None:
    if run.status == "running":
        run.status = "succeeded"
    try:
        run.connection.rollback()
        _finish(run.connection, run)
        # not left to the end of the connection: the server may notice that a moment after the next
        # run has asked
        run.connection.execute(text(f"SELECT pg_advisory_unlock{LOCK}"), {"job": run.job})
    except DBAPIError:
        # the run's connection is gone: what it did is rolled back, and its row still has to say so
        with suppress(DBAPIError, DatabaseError), engine.connect() as another:
            _finish(another, run)


def _finish(connection: Connection, run: Run) -> None:
    # the lock waits for a commit that is still under way on a lost connection
    row = select(run_ledger.c.status).where(run_ledger.c.run_id == run.run_id).with_for_update()
    if connection.execute(row).scalar_one() == "succeeded":
        # the word was committed together with the rows: what failed after that, were it the
        # commit's own answer, takes neither back
        run.status, run.error = "succeeded", None
    # its own only: where the lock was lost with the connection, another run of the job may have
    # rows in staging by now
    _drop_staging(connection, run.run_id)
    run.write(connection, finished=True)
    connection.commit()


def _require_session_mode(engine: Engine, connection: Connection) -> None:
    """A pooler in transaction mode gives an idle session's server process to the next one, with the
    lock that the session holds.

    Raises: DatabaseRefused behind such a pooler.
    """
    process = text("SELECT pg_backend_pid()")
    own = connection.execute(process).scalar_one()
    connection.rollback()
    with engine.connect() as another:
        if another.execute(process).scalar_one() != own:
            return
    raise DatabaseRefused(
        f"two sessions at {engine.url.host}:{engine.url.port} share one process of the server: a"
        " pooler in transaction mode, where a job's lock keeps nobody out. Set DB_HOST and DB_PORT"
        " to the server itself, or to a pooler in session mode"
    )


LOCK = "(hashtext('yieldspark'), hashtext(:job))"


def is_free(connection: Connection, job: str) -> bool:
    """Whether no run of the job is alive, whatever its ledger rows say; asked in a transaction that
    ends soon, for until then none can begin.
    """
    return bool(
        connection.execute(
            text(f"SELECT pg_try_advisory_xact_lock{LOCK}"), {"job": job}
        ).scalar_one()
    )


def _lock(connection: Connection, job: str) -> None:
    got = connection.execute(text(f"SELECT pg_try_advisory_lock{LOCK}"), {"job": job}).scalar_one()
    if got:
        return
    last = connection.execute(
        select(run_ledger.c.run_id, run_ledger.c.started_at)
        .where(run_ledger.c.job == job, run_ledger.c.status == "running")
        .order_by(run_ledger.c.started_at.desc())
    ).first()
    who = (
        f"run {last.run_id} of {last.started_at:%Y-%m-%d %H:%M:%S} UTC"
        if last
        else "another session"
    )
    raise RunInProgress(
        f"{job} is already running: {who} holds its lock. Wait until it ends, then run again;"
        " `status` shows it"
    )


def _repair(connection: Connection, job: str) -> None:
    """With the lock held, an open row or a staging table of this job belongs to a driver that was
    killed.
    """
    orphans = connection.execute(
        update(run_ledger)
        .where(run_ledger.c.job == job, run_ledger.c.status == "running")
        .values(
            status="failed",
            error="the driver ended without closing the run",
            finished_at=func.greatest(func.clock_timestamp(), run_ledger.c.started_at),
        )
    )
    if orphans.rowcount:
        log.warning(
            "%s: closed %d run(s) whose driver had ended without closing them",
            job,
            orphans.rowcount,
        )
    _drop_staging(connection, job + RUN_SUFFIX)
    connection.commit()


def _drop_staging(connection: Connection, run_id: str) -> None:
    """Drop the staging of a run, or of every run whose id the pattern fits."""
    names = connection.execute(
        text("SELECT tablename FROM pg_tables WHERE schemaname = :schema AND tablename ~ :pattern"),
        {"schema": OWN_SCHEMA, "pattern": f"^staging_{run_id}_"},
    ).scalars()
    for name in names.all():
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {OWN_SCHEMA}.{name}")


RUN_SUFFIX = r"_\d{8}t\d{6}_[0-9a-f]{6}"
"""What `_new_run_id` puts behind the job, as a pattern: a job whose name begins with another's must
not lose its staging to it.
"""


def _new_run_id(job: str) -> str:
    return f"{job}_{datetime.now(UTC):%Y%m%dt%H%M%S}_{secrets.token_hex(3)}"


def ledger_row(engine: Engine, run_id: str) -> dict[str, Any]:
    """A run as scripts read it: LEDGER_KEYS with dates as ISO text."""
    with translated_errors(engine.url), engine.connect() as connection:
        row = (
            connection.execute(select(run_ledger).where(run_ledger.c.run_id == run_id))
            .mappings()
            .one()
        )
    return public_row(dict(row))


def public_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: row[key].isoformat() if isinstance(row[key], date) else row[key] for key in LEDGER_KEYS
    }


def last_runs(engine: Engine) -> dict[str, dict[str, Any]]:
    """The newest ledger row of each job, by job."""
    newest = (
        select(run_ledger)
        .ext(distinct_on(run_ledger.c.job))
        .order_by(run_ledger.c.job, run_ledger.c.started_at.desc())
    )
    with translated_errors(engine.url), engine.connect() as connection:
        return {row["job"]: public_row(dict(row)) for row in connection.execute(newest).mappings()}
