"""Checks of severity `warn` have a time limit; a check that exceeds it neither fails nor delays a
run.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import Engine, text

from cli.doctor import checks as doctor_checks
from cli.doctor import database as database_checks
from config_spark import Settings
from data_processing.planning import plan as metrics_plan
from data_processing.planning.plan import plan_metrics
from data_processing.planning.run_request import Request
from data_processing.planning.unread_rows import store_day_counts
from database import commit_checks as batch_checks
from database.commit_checks import BatchCheck, CommitChecks, run_checks
from database.ledger.runs import open_run
from tests.support.metrics_histories import world
from tests.support.metrics_plans import add_run
from tests.support.metrics_store import execute, put, rows_of

SHORT = 0.3
SLOW_AND_GOOD = f"SELECT 1 FROM pg_sleep({2 * SHORT}) LIMIT 0"
COUNTS = "yieldspark.raw_day_counts"
UNFINISHED = "not finished after 0.3 s"


@pytest.fixture
def locked_counts(engine: Engine) -> Iterator[None]:
    """Lock the table of raw row counts in another session."""
    with engine.begin() as connection:
        connection.execute(text(f"LOCK TABLE {COUNTS} IN ACCESS EXCLUSIVE MODE"))
        yield


def test_slow_warning_check_does_not_delay_the_commit(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The changes of its preparation are rolled back, and the limit is reset."""
    monkeypatch.setattr(batch_checks, "WARN_SECONDS", SHORT)
    statement = "CREATE TEMPORARY TABLE prepared ON COMMIT DROP AS SELECT 1 AS row"
    checks = CommitChecks(
        [
            BatchCheck(
                "slow", "batch", "warn", "x", "SELECT pg_sleep(600)", preparation=[statement]
            ),
            BatchCheck("quick", "batch", "warn", "x", "SELECT row FROM prepared", {}, [statement]),
            BatchCheck("stops", "batch", "fail", "x", SLOW_AND_GOOD),
        ]
    )
    with open_run(engine, job="checks", mode="incremental") as run:
        with run.connection.begin():
            run_checks(run, checks)
            limit = run.connection.exec_driver_sql("SHOW statement_timeout").scalar_one()
    slow, quick, stops = run.checks
    assert (slow.passed, slow.failing) == (False, 0)
    assert slow.message.startswith(UNFINISHED)
    assert (quick.failing, stops.passed, limit) == (1, True, "0")


@pytest.mark.usefixtures("locked_counts")
def test_plan_continues_without_a_count_of_unread_rows(
    database: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_plan, "WARN_SECONDS", SHORT)
    history = world(33, pools=2, days=10)
    put(engine, history)
    plan = plan_metrics(
        database, engine, Request(), table="yieldspark.a_plan", now=history.now, dry_run=True
    )
    assert (plan.statistics.rows_unread, plan.day_counts) == (None, None)
    assert UNFINISHED in plan.warnings[-1]
    assert plan.statistics.days > 0


def test_counts_restart_after_a_run_that_could_not_count(engine: Engine) -> None:
    execute(engine, f"INSERT INTO {COUNTS} (date, snapshots) VALUES ('2024-01-01', 5)")
    with engine.begin() as connection:
        store_day_counts(connection, None, is_partial=True)
    assert rows_of(engine, f"SELECT * FROM {COUNTS}") == []


@pytest.mark.usefixtures("locked_counts")
def test_doctor_reports_an_unfinished_check(
    database: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_checks, "DATABASE_SECONDS", SHORT)
    add_run(engine, database, datetime.now(UTC), date(2024, 1, 2))
    findings = doctor_checks.run_checks(database)
    unread = findings[-1]
    assert (unread.result, unread.found[: len(UNFINISHED)]) == ("warn", UNFINISHED)
    assert "fail" not in {finding.result for finding in findings if finding.name == "database"}
