"""Tests that the jobs run from the built zip alone, also on a cluster of processes, with the same
rows as from the checkout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.ingest.loading.load_files import load_files
from database.db_utils_spark import execute_sql
from forecasting.forecast_pools_spark import run_forecast
from sample_data import SAMPLE_FILES
from tests.support.forecast_panels import SHORT
from tests.support.mapped_classes import QUICK_COMPILER
from tests.support.metrics_store import without_jvm
from tests.support.processes import PROJECT, environment_of
from workflows.releases.code_archive import build_archive

METRICS_JOB = "data_processing/calculate_pool_metrics_spark.py"
FORECAST_JOB = "forecasting/forecast_pools_spark.py"

RESULTS = {
    "metrics": "SELECT * FROM pool_daily_metrics ORDER BY pool_id, date",
    "forecasts": (
        "SELECT pool_id, target_date, apy, apy_low, apy_high, tvl, tvl_low, tvl_high,"
        " apy_fallback_reason FROM yieldspark.forecasts ORDER BY pool_id"
    ),
}


def _run_from_zip(
    archive: Path, entry: str, arguments: list[str], settings: Settings, **environment: str
) -> None:
    """Run a copy of a job's entry file in a process that finds code in the zip alone.

    Raises: AssertionError with its output.
    """
    folder = archive.parent
    copied = shutil.copy(PROJECT / entry, folder)
    variables = environment_of(settings, "spark_master", "shuffle_partitions", *SHORT)
    variables |= {
        # read by executors too, which take no SPARK_SUBMIT_OPTS
        "JAVA_TOOL_OPTIONS": f"{os.environ['SPARK_SUBMIT_OPTS']} {QUICK_COMPILER}",
        "PYTHONPATH": str(archive),
        "YIELDSPARK_HOME": str(folder / "home"),
    }
    variables |= environment
    result = subprocess.run(
        [sys.executable, copied, *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def _results(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    return {name: execute_sql(settings, query) for name, query in RESULTS.items()}


def _few_pools(settings: Settings) -> None:
    """The sample reduced to a dozen pools: enough for a model, and quick on a cluster of
    processes.
    """
    load_files(settings, SAMPLE_FILES)
    execute_sql(
        settings,
        "DELETE FROM raw_defillama_pool_history WHERE pool_id NOT IN (SELECT pool_id FROM pools"
        " ORDER BY pool_id LIMIT 12)",
    )


ONE_EXECUTOR = {"SPARK_MASTER": "local-cluster[1,1,2048]"}
CLUSTER = {"SPARK_MASTER": "local-cluster[2,1,2048]"}


@pytest.mark.usefixtures("jvm")
def test_the_metrics_job_on_executors_has_its_code_from_the_zip_alone(
    database: Settings, second_database: Settings, tmp_path: Path
) -> None:
    """Compares the checkout in this process, without a JVM, with the zip on an executor; `local
    run` in test_readme.py runs the zip in one process. Takes over 20 s on two busy cores: the JVMs
    of a driver and an executor start cold.
    """
    archive = tmp_path / "yieldspark.zip"
    archive.write_bytes(build_archive())
    for settings in (database, second_database):
        _few_pools(settings)
    run_metrics(without_jvm(database))
    _run_from_zip(archive, METRICS_JOB, [], second_database, **ONE_EXECUTOR)
    assert _results(second_database) == _results(database)
    assert _results(database)["metrics"]


@pytest.mark.long
def test_synapseml_on_executors_forecasts_from_the_zip_what_the_checkout_does(
    database: Settings, second_database: Settings, spark: SparkSession, tmp_path: Path
) -> None:
    archive = tmp_path / "yieldspark.zip"
    archive.write_bytes(build_archive())
    checkout, zipped = (
        settings.model_copy(update=SHORT) for settings in (database, second_database)
    )
    for settings in (checkout, zipped):
        _few_pools(settings)
        run_metrics(settings, session=lambda rows: spark)
    run_forecast(checkout, engine="synapseml", session=lambda _: spark)
    _run_from_zip(archive, FORECAST_JOB, ["--engine", "synapseml"], zipped, **CLUSTER)
    assert _results(zipped) == _results(checkout)
    assert _results(checkout)["forecasts"]
