"""A forecast run that is killed before its commit writes nothing; after it, the next run completes
it.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from config_spark import Settings
from tests.forecasting.test_forecast_job import forecast
from tests.forecasting.test_model_runs import versions_of
from tests.support.fault_cases import at
from tests.support.fault_database import ledger, staging_tables
from tests.support.fault_runs import FORECAST, JobProcess
from tests.support.forecast_panels import SHORT, panel_rows, store
from tests.support.metrics_store import rows_of

POINTS = {
    "commit begins": at("merge", "before"),
    "forecasts merged": at("merge", "after", "INSERT INTO .*forecasts"),
    "metrics merged": at("merge", "after", "INSERT INTO .*pool_daily_metrics"),
    "evaluation merged": at("merge", "after", "INSERT INTO .*forecast_evaluation"),
    "version written": at("merge", "after", r"INSERT INTO yieldspark\.model_outbox"),
    "decision written": at("merge", "after", r"INSERT INTO yieldspark\.promotion"),
    "ledger written": at("merge", "after", r"UPDATE yieldspark\.run_ledger"),
    "commit": at("merge", "before", "^COMMIT$"),
}

MORE = ("engine", "train_days", "model_threads", "model_parameters_file", "refit_days")

PUBLISHED_COLUMNS = """
SELECT
    (SELECT count(*) FROM yieldspark.forecasts) AS forecasts,
    (SELECT count(*) FROM pool_daily_metrics WHERE forecasted_apy IS NOT NULL) AS days,
    (SELECT count(*) FROM yieldspark.promotion) AS decisions,
    (SELECT count(*) FROM yieldspark.model_outbox) AS waiting
"""


@pytest.mark.long
def test_a_forecast_killed_in_its_commit_is_repeated_and_one_killed_after_it_is_finished(
    database: Settings, engine: Engine, spark: SparkSession, jvm: Path, tmp_path: Path
) -> None:
    """Starts nine processes with a JVM each: two minutes."""
    store(engine, panel_rows(12, 130))
    settings = database.model_copy(
        update=SHORT
        | {"refit_days": 30, "engine": "lightgbm", "yieldspark_home": tmp_path / "home"}
    )

    def killed(point: dict[str, object]) -> None:
        run = JobProcess(settings, tmp_path, fault=point, job=FORECAST, more=MORE)
        try:
            assert run.wait() == -signal.SIGKILL, run.errors
            run.assert_all_ended()
        finally:
            run.end()

    for name, point in POINTS.items():
        killed(point)
        nothing = {"forecasts": 0, "days": 0, "decisions": 0, "waiting": 0}
        assert rows_of(engine, PUBLISHED_COLUMNS) == [nothing], name
    killed(at("merge", "after"))
    published = {"forecasts": 12, "days": 12, "decisions": 1, "waiting": 1}
    assert rows_of(engine, PUBLISHED_COLUMNS) == [published]
    assert versions_of(settings) == {}

    row = forecast(settings, session=lambda _: spark)
    assert (row["status"], row["rows"]["inserted"], row["rows"]["updated"]) == ("succeeded", 0, 0)
    assert rows_of(engine, PUBLISHED_COLUMNS) == [published | {"waiting": 0}]
    ((_, aliases),) = versions_of(settings).items()
    assert aliases == ("champion",)
    assert [status for status, _ in ledger(engine)] == [
        *["failed"] * len(POINTS),
        "succeeded",
        "succeeded",
    ]
    assert staging_tables(engine) == []
