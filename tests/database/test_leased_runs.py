"""Runs without a connection: one run of a job at a time, and no commit of a run that another has
replaced.
"""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from common.errors import RunInProgress, RunLost
from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from database.ledger.leased_runs import LeasedRun, start_leased_run
from database.ledger.runs import is_job_idle, open_run
from tests.support.fault_runs import until
from tests.support.killed_process import forks
from tests.support.metrics_store import rows_of

JOB = "stream_signals"
LEASE = timedelta(minutes=10)

OTHER_SESSIONS = """
    SELECT FROM pg_stat_activity
    WHERE datname = current_database()
        AND pid <> pg_backend_pid()
        AND backend_type = 'client backend'"""

EXPIRE = """
    UPDATE yieldspark.run_ledger
    SET lease_expires_at = clock_timestamp() - interval '1 millisecond'
    WHERE run_id = :id"""


def start(engine: Engine, lease: timedelta = LEASE) -> LeasedRun:
    return start_leased_run(engine, job=JOB, mode="stream", lease=lease, plan={"source": "pools"})


def ledger_row(engine: Engine, run: LeasedRun) -> dict[str, Any]:
    (found,) = rows_of(
        engine, "SELECT * FROM yieldspark.run_ledger WHERE run_id = :id", id=run.run_id
    )
    return found


def expire(engine: Engine, run: LeasedRun) -> None:
    """Set the end of the lease to a moment ago."""
    with engine.begin() as connection:
        connection.execute(text(EXPIRE), {"id": run.run_id})


def is_idle(engine: Engine) -> bool:
    with checked_connection(engine) as connection:
        return is_job_idle(connection, JOB)


def test_run_holds_no_connection_and_is_recorded(engine: Engine, database: Settings) -> None:
    run = start(engine)
    assert rows_of(engine, OTHER_SESSIONS) == []
    assert not is_idle(engine)
    with engine.begin() as connection:
        run.renew(connection, {"read": 7, "inserted": 5})
    run.close(engine)
    ended = ledger_row(engine, run)
    assert (ended["job"], ended["mode"], ended["status"]) == (JOB, "stream", "succeeded")
    assert (ended["plan"], ended["rows"]) == ({"source": "pools"}, {"read": 7, "inserted": 5})
    assert ended["seconds"] >= 0
    assert ended["finished_at"] >= ended["started_at"]
    assert ended["lease_expires_at"] is None
    assert is_idle(engine)


def test_one_run_of_a_job_is_alive(engine: Engine) -> None:
    run = start(engine)
    with pytest.raises(RunInProgress, match=run.run_id):
        start(engine)
    with pytest.raises(RunInProgress, match=run.run_id), open_run(engine, job=JOB, mode="repair"):
        pass
    with open_run(engine, job="another_job", mode="daily"):
        pass
    run.close(engine, "failed", error="no source")
    with open_run(engine, job=JOB, mode="repair"), pytest.raises(RunInProgress):
        start(engine)


def test_live_run_keeps_its_staging_tables(engine: Engine) -> None:
    run = start(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE yieldspark.staging_{run.run_id}_0 (n integer)")
    with pytest.raises(RunInProgress):
        start(engine)
    tables = "SELECT FROM pg_tables WHERE tablename LIKE 'staging_stream%'"
    assert len(rows_of(engine, tables)) == 1
    expire(engine, run)
    start(engine)
    assert rows_of(engine, tables) == []


def test_run_with_an_expired_lease_is_replaced_and_commits_nothing(engine: Engine) -> None:
    run = start(engine)
    expire(engine, run)
    assert is_idle(engine)
    successor = start(engine)
    replaced = ledger_row(engine, run)
    assert (replaced["status"], replaced["lease_expires_at"]) == ("failed", None)
    assert replaced["error"] == "the driver ended without closing the run"

    def commit_rows() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO pools (pool_id) VALUES ('late')")
            run.renew(connection)

    with pytest.raises(RunLost, match=run.run_id):
        commit_rows()
    with pytest.raises(RunLost):
        run.close(engine)
    assert rows_of(engine, "SELECT FROM pools") == []
    assert ledger_row(engine, successor)["status"] == "running"


def test_late_run_that_nobody_replaced_goes_on(engine: Engine) -> None:
    run = start(engine)
    expire(engine, run)
    with engine.begin() as connection:
        run.renew(connection)
    assert not is_idle(engine)


def test_successor_waits_for_a_renewal_that_is_not_committed(engine: Engine) -> None:
    run = start(engine)
    expire(engine, run)
    outcome: list[BaseException] = []

    def take_over() -> None:
        try:
            start(engine)
        except RunInProgress as error:
            outcome.append(error)

    successor = threading.Thread(target=take_over)
    with engine.begin() as connection:
        run.renew(connection)
        successor.start()
        until(
            lambda: rows_of(engine, "SELECT FROM pg_locks WHERE NOT granted"), "the successor waits"
        )
    successor.join()
    assert len(outcome) == 1
    assert ledger_row(engine, run)["status"] == "running"


def _work_until_killed(settings: Settings) -> None:
    start(make_engine(settings), timedelta(seconds=1))
    signal.pause()


def test_killed_run_is_replaced_when_its_lease_has_expired(
    database: Settings, engine: Engine
) -> None:
    process = forks().Process(target=_work_until_killed, args=(database,))
    process.start()
    running = "SELECT run_id FROM yieldspark.run_ledger WHERE status = 'running'"
    until(lambda: rows_of(engine, running), "the run has started")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    until(lambda: is_idle(engine), "the lease has expired")
    start(engine)
    statuses = rows_of(engine, "SELECT status FROM yieldspark.run_ledger ORDER BY started_at")
    assert [status["status"] for status in statuses] == ["failed", "running"]
