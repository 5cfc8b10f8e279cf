"""The ledger records the outcome of every run, and a job never runs twice at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, text

from common.errors import CheckFailed, DatabaseUnreachable, RunInProgress
from config_spark import Settings
from database.connections.parameters import connection_parameters
from database.ledger.run_json import LEDGER_KEYS
from database.ledger.run_records import last_runs, read_run
from database.ledger.runs import is_job_idle, open_run

PROJECT = Path(__file__).resolve().parents[2]

HOLDS_A_RUN = """
import sys, time
from sqlalchemy import create_engine
from database.ledger.runs import open_run
url = sys.stdin.readline().strip()
with open_run(create_engine(url), job="calculate_metrics", mode="incremental") as run:
    run.connection.exec_driver_sql(f"CREATE TABLE yieldspark.staging_{run.run_id}_0 (n int)")
    run.connection.commit()
    print(run.run_id, flush=True)
    time.sleep(120)
"""


@pytest.fixture
def other_run(database: Settings) -> Iterator[subprocess.Popen[str]]:
    """A second process with an open run of calculate_metrics; it reads the password from stdin."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS_A_RUN],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    url = connection_parameters(database).sqlalchemy_url()
    process.stdin.write(url.render_as_string(hide_password=False) + "\n")
    process.stdin.flush()
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def test_successful_run_has_the_documented_keys(engine: Engine) -> None:
    with open_run(engine, job="calculate_metrics", mode="incremental") as run, run.stage("read"):
        run.rows["read"] = 3
    record = read_run(engine, run.run_id)
    assert tuple(record.to_json()) == LEDGER_KEYS
    assert (record.status, record.error, record.rows["read"], list(record.stages)) == (
        "succeeded",
        None,
        3,
        ["read"],
    )
    assert last_runs(engine)["calculate_metrics"] == record


def test_stages_of_a_running_run_are_in_the_ledger(engine: Engine) -> None:
    with open_run(engine, job="calculate_metrics", mode="incremental") as run:
        with run.stage("plan"):
            assert read_run(engine, run.run_id).stages == {}
        running = read_run(engine, run.run_id)
        assert (running.status, list(running.stages)) == ("running", ["plan"])
        with run.stage("load"):
            pass
        assert list(read_run(engine, run.run_id).stages) == ["plan", "load"]


def test_a_stage_does_not_wait_for_the_transaction_of_its_own_run(engine: Engine) -> None:
    with open_run(engine, job="calculate_metrics", mode="incremental") as run:
        with run.connection.begin():
            run.write(run.connection, finished=False)
            with run.stage("merge"):
                pass
        with run.stage("after"):
            pass
        assert list(read_run(engine, run.run_id).stages) == ["merge", "after"]


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (RuntimeError("the cause\nmore"), "failed"),
        (CheckFailed("too few rows"), "blocked"),
        (KeyboardInterrupt(), "cancelled"),
    ],
)
def test_records_and_reraises_errors(engine: Engine, raised: BaseException, status: str) -> None:
    with pytest.raises(type(raised)), open_run(engine, job="forecast_pools", mode="daily") as run:
        raise raised
    record = read_run(engine, run.run_id)
    assert record.status == status
    assert "more" not in str(record.error)


def test_empty_plan_is_nothing_to_do(engine: Engine) -> None:
    with open_run(engine, job="calculate_metrics", mode="incremental") as run:
        run.nothing_to_do()
    assert read_run(engine, run.run_id).status == "nothing_to_do"


def test_rejects_second_run_of_the_same_job_only(
    engine: Engine, other_run: subprocess.Popen[str]
) -> None:
    with (
        pytest.raises(
            RunInProgress, match="calculate_metrics is already running: run calculate_metrics_"
        ),
        open_run(engine, job="calculate_metrics", mode="m"),
    ):
        pass
    with open_run(engine, job="forecast_pools", mode="daily"):
        pass


def test_lock_is_released_before_the_connection_ends(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may notice the end of a connection after the next run has asked for the lock."""
    still_open: list[Connection] = []
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "close", lambda connection: still_open.append(connection))
        with open_run(engine, job="a_job", mode="test"):
            pass
    try:
        with engine.connect() as connection:
            assert is_job_idle(connection, "a_job")
    finally:
        for connection in still_open:
            connection.close()


def test_next_run_cleans_up_after_a_killed_driver(
    engine: Engine, other_run: subprocess.Popen[str]
) -> None:
    other_run.send_signal(signal.SIGKILL)
    other_run.wait()
    with open_run(engine, job="calculate_metrics", mode="incremental"):
        pass
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT status, error FROM yieldspark.run_ledger ORDER BY started_at")
        ).all()
        assert [tuple(row) for row in rows] == [
            ("failed", "the driver ended without closing the run"),
            ("succeeded", None),
        ]
        assert (
            connection.execute(
                text("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'staging%'")
            ).scalar_one()
            == 0
        )


def test_lost_connection_still_closes_the_ledger_row(engine: Engine) -> None:
    runs = []

    def loses_its_connection() -> None:
        with open_run(engine, job="calculate_metrics", mode="incremental") as run:
            runs.append(run.run_id)
            pid = run.connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with engine.begin() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            run.connection.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnreachable, match="connection"):
        loses_its_connection()
    assert read_run(engine, runs[0]).status == "failed"


def test_job_with_a_shorter_name_does_not_drop_staging(engine: Engine) -> None:
    with open_run(engine, job="upsert_prices", mode="upsert") as longer:
        longer.connection.execute(
            text(f"CREATE TABLE yieldspark.staging_{longer.run_id}_0 (n int)")
        )
        longer.connection.commit()
        with open_run(engine, job="upsert", mode="upsert"):
            pass
        assert (
            longer.connection.execute(
                text(f"SELECT count(*) FROM yieldspark.staging_{longer.run_id}_0")
            ).scalar_one()
            == 0
        )


@pytest.mark.parametrize(
    ("committed", "status", "error"),
    [(True, "succeeded", None), (False, "failed", "RuntimeError: the session is gone")],
)
def test_run_stays_succeeded_after_its_commit(
    engine: Engine, committed: bool, status: str, error: str | None
) -> None:
    """A status that is written but not committed is rolled back."""
    runs = []

    def fails_at_the_end() -> None:
        with open_run(engine, job="calculate_metrics", mode="incremental") as run:
            runs.append(run.run_id)
            run.status = "succeeded"
            run.write(run.connection, finished=True)
            if committed:
                run.connection.commit()
            raise RuntimeError("the session is gone")

    with pytest.raises(RuntimeError):
        fails_at_the_end()
    record = read_run(engine, runs[0])
    assert (record.status, record.error) == (status, error)
