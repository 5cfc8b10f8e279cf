"""Tests every alert of terraform/: it fires for a fault that is really made, and it does not fire
in thirty good days. The conditions are those of the plan (tests/support/terraform_inventory.json).
"""

from __future__ import annotations

import datetime as dt
import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from config_spark import Settings, load_settings
from emulator.services.alert_conditions import counted_entries
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.fake_monitoring import FakeMonitoring, Key, StoredPoint
from monitoring.run_points import SCORE_CHECK
from monitoring.series import (
    COST,
    DATA_AGE,
    INTERVAL_COVERAGE,
    MODEL_AGE,
    MONTH_COST,
    PERSISTENCE_SHARE,
    QUARANTINE_SHARE,
    Point,
)
from tests.support import dataproc_cases, good_days
from tests.support.alert_conditions import ALERTS, LOG_METRICS, firing
from tests.support.current_day import today
from tests.support.forecast_panels import SHORT, panel_rows, store
from tests.support.good_days import DAYS, ENGINE, FIRST, FORECAST, LAST, METRICS, served_days
from tests.support.metrics_store import execute, rows_of
from tests.support.monitoring_series import cloud_monitoring, value
from tests.support.processes import PROJECT, CommandLineHere
from tests.support.workflow_services import Outcome, by_interpreter, world

RUNBOOKS = PROJECT / "docs" / "runbooks"


def yesterday() -> dt.date:
    return today() - timedelta(days=1)


def now() -> datetime:
    return datetime.now(UTC)


def fires(fake: FakeMonitoring, hours: float = 1.0) -> set[str]:
    """Return what fires from an hour ago until some hours from now."""
    return firing(fake.points, now() - timedelta(hours=1), now() + timedelta(hours=hours))


@pytest.fixture
def settings() -> Settings:
    return load_settings(_env_file=None)


def first_step(run: CommandLineHere, alert: str, engine: Engine) -> str:
    """Do the first step of a runbook, which looks at the fault; returns what it shows.

    Commands inside the network run in this process, a query in the database.
    """
    text = (RUNBOOKS / f"{alert}.md").read_text(encoding="utf-8")
    language, block = re.findall(r"```(bash|sql)\n(.*?)```", text, re.DOTALL)[0]
    if language == "sql":
        return str(rows_of(engine, block.strip().removesuffix(";")))
    shown = ""
    for command in re.findall(r"operator -- (.+)", block):
        if "ID" not in command:
            finished = run(*shlex.split(command))
            assert finished.returncode == 0, finished.stderr
            shown += finished.stdout
    return shown


def test_every_alert_has_a_runbook_and_a_test() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == ALERTS.keys()


def test_nothing_rings_in_thirty_good_days(settings: Settings) -> None:
    with served_days(settings) as days:
        for day in range(DAYS):
            days.good_day(day)
    assert len(days.fake.points) > 20
    # the first run after the last day would come at 02:20
    assert firing(days.fake.points, FIRST, LAST + timedelta(hours=2)) == set()


BAD_POINTS = {
    "data-age": Point(DATA_AGE, (METRICS,), 26.2 * good_days.HOUR),
    "quarantine-share": Point(QUARANTINE_SHARE, (METRICS,), 0.06),
    "persistence-share": Point(PERSISTENCE_SHARE, (ENGINE, "apy", "1"), 0.95),
    "model-age": Point(MODEL_AGE, (ENGINE, "1"), 22),
}
"""A bad point of each alert that has one condition."""


@pytest.mark.parametrize(
    ("alert", "point"),
    [
        *BAD_POINTS.items(),
        ("cost", Point(COST, (METRICS,), 1.5)),
        ("cost", Point(MONTH_COST, (), 21.0)),
        ("interval-coverage", Point(INTERVAL_COVERAGE, (ENGINE, "apy", "1"), 0.65)),
        ("interval-coverage", Point(INTERVAL_COVERAGE, (ENGINE, "tvl", "1"), 0.95)),
    ],
)
def test_one_bad_point_among_good_days_rings_its_alert_alone(
    alert: str, point: Point, settings: Settings
) -> None:
    with served_days(settings) as days:
        for day in range(3):
            days.good_day(day)
        at = FIRST + timedelta(days=2, hours=12)
        days.emit([point], at)
        points = days.fake.points
        assert firing(points, FIRST, at + timedelta(hours=1)) == {alert}
        assert firing(points, FIRST, at - timedelta(minutes=1)) == set()


@pytest.mark.parametrize("job", [METRICS, FORECAST])
def test_a_day_without_one_job_fires(job: str, settings: Settings) -> None:
    """After 26 hours and not before; the other job's success does not help."""
    with served_days(settings) as days:
        for day in range(4):
            days.good_day(day, without=[job] if day == 2 else [])
    third_day = FIRST + timedelta(days=2)
    assert firing(days.fake.points, FIRST, third_day + timedelta(hours=4)) == set()
    assert firing(days.fake.points, FIRST, third_day + timedelta(hours=6)) == {"no-success"}


PLAIN_ROWS = """
    INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)
    SELECT
        'pool-' || pool,
        CAST(:last_day AS timestamptz) - make_interval(days => day),
        jsonb_build_object('apy', 4 + pool + 0.1 * (day % 3), 'tvlUsd', 1000000 + 1000 * day)
    FROM generate_series(1, 4) AS pool, generate_series(0, 19) AS day
"""


ONE_MORE_ROW = """
    INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)
    SELECT
        'pool-1',
        CAST(:last_day AS timestamptz) + interval '1 hour',
        '{"apy": 4, "tvlUsd": 1000000}'
"""


def put_plain_rows(engine: Engine, last_day: dt.date) -> None:
    """Insert 20 days of 4 pools, without a broken row."""
    execute(engine, PLAIN_ROWS, last_day=last_day)


def log_points(*outcomes: Outcome) -> dict[Key, list[StoredPoint]]:
    """Return the log-based metrics of executions of the workflow."""
    points: dict[Key, list[StoredPoint]] = {}
    for metric, text in LOG_METRICS.items():
        counts = [float(counted_entries(text, outcome.log)) for outcome in outcomes]
        times = [FIRST + timedelta(minutes=number) for number in range(len(counts))]
        points[f"logging.googleapis.com/user/{metric}", ()] = list(zip(times, counts, strict=True))
    return points


def test_a_failed_batch_rings_and_a_skipped_delivery_does_not(tmp_path: Path) -> None:
    until = FIRST + timedelta(hours=1)
    with world(tmp_path / "failed", by_interpreter, dataproc=BatchScript(end="FAILED")) as cloud:
        failed = cloud.run()
    assert failed.state == "FAILED"
    assert firing(log_points(failed), FIRST, until) == {"workflow-failed"}
    with world(tmp_path / "good", by_interpreter) as cloud:
        cloud.start("hold")
        cloud.clock.sleep(5)
        skipped = cloud.run()
        cloud.hold.set()
    assert (skipped.state, skipped.events) == ("FAILED", ["run_skipped"])
    assert firing(log_points(skipped), FIRST, until) == set()


@pytest.mark.usefixtures("processes")
def test_old_data_and_a_job_that_stays_broken_fire(
    run_here: CommandLineHere, engine: Engine
) -> None:
    """The history ends years ago; then a column is gone, and the job fails every day."""
    put_plain_rows(engine, last_day=dt.date(2024, 6, 30))
    with cloud_monitoring(run_here) as fake:
        run_here.json(METRICS)
        assert fires(fake) == {"data-age"}
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "ALTER TABLE raw_defillama_pool_history RENAME COLUMN raw_json_data TO payload"
            )
        run_here.json(METRICS, code=1)
        shown = json.loads(first_step(run_here, "data-age", engine))
    assert shown["data"]["last_day"] == "2024-06-30"
    assert "failed" in first_step(run_here, "no-success", engine)
    assert fires(fake, hours=25.0) == {"data-age"}
    assert fires(fake, hours=27.0) == {"data-age", "no-success"}


@pytest.mark.usefixtures("processes")
def test_a_source_of_broken_rows_fires(run_here: CommandLineHere, engine: Engine) -> None:
    put_plain_rows(engine, last_day=yesterday())
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE raw_defillama_pool_history SET raw_json_data ="
            " jsonb_set(raw_json_data, '{tvlUsd}', '-1') WHERE mod(id, 4) = 0"
        )
    # two runs without a JVM end within five seconds
    with cloud_monitoring(run_here, seconds_between_points=0.0) as fake:
        run_here(METRICS)
        assert value(fake, "quarantine_share", METRICS) > 0.05
        assert "negative" in first_step(run_here, "quarantine-share", engine)
        assert "quarantine-share" in fires(fake)
        # the next run reads the same rows as its look-back
        execute(engine, ONE_MORE_ROW, last_day=yesterday())
        assert run_here.json(METRICS)["rows"]["quarantined"] > 0
    assert value(fake, "quarantine_share", METRICS) == 0


def test_an_expensive_batch_and_month_fire(tmp_path: Path, run_here: CommandLineHere) -> None:
    long_batch = BatchScript(pending_seconds=0, running_seconds=23 * 3600, usage_delay_seconds=0)
    with (
        dataproc_cases.served(long_batch) as cloud,
        cloud_monitoring(run_here) as fake,
    ):
        cloud.create(body=dataproc_cases.batch_request(ttl="90000s"))
        cloud.clock.sleep(24 * 3600)
        variables = dataproc_cases.cloud_variables(cloud.url) | {"DB_HOST": ""}
        names = ("MONITORING_EMITTER", "MONITORING_ENDPOINT")
        emitting = {name: run_here.environment[name] for name in names}
        run = dataproc_cases.WorkflowsHere(tmp_path, variables | emitting)
        assert run("cost", "--day", "2025-10-09").returncode == 0
    month = value(fake, "month_cost_usd")
    assert value(fake, "cost_usd", METRICS) == pytest.approx(month, abs=1e-4)
    assert month > 20.0
    assert fires(fake) == {"cost"}


@pytest.fixture
def forecaster(run_on_spark: CommandLineHere, database: Settings) -> CommandLineHere:
    run_on_spark.environment |= {
        # the model registry of the test server: a new one takes seconds
        "YIELDSPARK_HOME": str(database.yieldspark_home),
        **{name.upper(): str(setting) for name, setting in SHORT.items()},
    }
    return run_on_spark


LATE = 25
"""Days that a model is not fitted again."""

NARROW_PRODUCTION = f"""
    UPDATE yieldspark.forecast_evaluation
    SET
        target_date = target_date + {LATE},
        as_of = as_of + {LATE},
        source = 'production',
        low = forecast - 1e-9,
        high = forecast + 1e-9
    WHERE source = 'backtest'
        AND target_date > (
            SELECT max(target_date) - 14
            FROM yieldspark.forecast_evaluation
            WHERE source = 'backtest'
        )
"""
"""Past forecasts with intervals that hold nothing, on the last days before the second run."""


def test_an_old_model_and_narrow_intervals_fire(
    forecaster: CommandLineHere, engine: Engine
) -> None:
    """A model is fitted, and then not for 25 days."""
    rows = panel_rows(12, 130 + LATE, end=yesterday())
    is_late = rows["date"] > yesterday() - dt.timedelta(days=LATE)
    store(engine, rows[~is_late])
    # two runs without a JVM end within five seconds
    with cloud_monitoring(forecaster, seconds_between_points=0.0) as fake:
        row = forecaster.json(FORECAST, "--engine", ENGINE)
        assert value(fake, "forecasts_written", ENGINE, "1") == 12
        score = next(check for check in row["checks"] if check["name"] == SCORE_CHECK)
        ratio = score["scores"]["apy"]["restricted"]["ratio"]["mae"]
        assert value(fake, "mae_ratio", ENGINE, "1", "apy") == ratio
        # no published forecast has its actual value yet
        assert fake.series(INTERVAL_COVERAGE.type) == {}
        first = fires(fake)
        assert "data-age" in first
        assert not first & {"model-age", "interval-coverage"}
        with engine.begin() as connection:
            connection.exec_driver_sql(NARROW_PRODUCTION)
            # the day of the forecasts, which has its metrics below
            connection.exec_driver_sql("DELETE FROM pool_daily_metrics WHERE actual_apy IS NULL")
        store(engine, rows[is_late])
        forecaster.json(FORECAST, "--engine", ENGINE, "--full-refresh", REFIT_DAYS="90")
    assert value(fake, "model_age_days", ENGINE, "1") == LATE
    assert value(fake, "interval_coverage", ENGINE, "1", "apy") < 0.1
    assert "coverage" in first_step(forecaster, "interval-coverage", engine)
    assert "lightgbm" in first_step(forecaster, "model-age", engine)
    assert {"model-age", "interval-coverage"} <= fires(fake)


def test_too_few_pools_for_a_model_fire(forecaster: CommandLineHere, engine: Engine) -> None:
    store(engine, panel_rows(3, 20, end=yesterday()))
    with cloud_monitoring(forecaster) as fake:
        forecaster.json(FORECAST, "--engine", ENGINE)
        reasons = first_step(forecaster, "persistence-share", engine)
    assert "no_model" in reasons or "cold_start" in reasons
    assert value(fake, "persistence_share", ENGINE, "1", "apy") == 1.0
    assert fires(fake) == {"persistence-share"}
