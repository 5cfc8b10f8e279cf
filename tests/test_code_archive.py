"""The jobs run from the built zip alone, and on a cluster of processes: with the rows that the checkout gives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from config_spark import Settings
from data_processing.ingest.load_files import load_files
from database.db_utils_spark import execute_sql
from sample_data import SAMPLE_FILES
from workflows.code_archive import build_archive

PROJECT = Path(__file__).resolve().parents[1]
METRICS_JOB = "data_processing/calculate_pool_metrics_spark.py"
FORECAST_JOB = "forecasting/forecast_pools_spark.py"

RESULTS = {
    "metrics": "SELECT * FROM pool_daily_metrics ORDER BY pool_id, date",
    "forecasts": "SELECT pool_id, target_date, apy, apy_low, apy_high, tvl, tvl_low, tvl_high, rule FROM yieldspark.forecasts ORDER BY pool_id",
}


def _run_job(entry: Path, arguments: list[str], settings: Settings, folder: Path, python_path: str | None, **environment: str) -> None:
    """Run a job's entry file as a process that finds code on `python_path` alone. Raises: AssertionError with what it said."""
    assert settings.db_password is not None
    variables = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        **({"PYTHONPATH": python_path} if python_path else {}),
        "DB_HOST": str(settings.db_host),
        "DB_PORT": str(settings.db_port),
        "DB_NAME": settings.db_name,
        "DB_USER": settings.db_user,
        "DB_PASSWORD": settings.db_password.get_secret_value(),
        "YIELDSPARK_HOME": str(folder / "home"),
        "JARS_DIR": str(settings.jars_dir),
        "SPARK_MASTER": "local[2]",
        "SHUFFLE_PARTITIONS": "2",
        "BACKTEST_DAYS": "5",
        **environment,
    }
    done = subprocess.run([sys.executable, str(entry), *arguments], cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _results(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    return {name: execute_sql(settings, query) for name, query in RESULTS.items()}


def _few_pools(settings: Settings) -> None:
    """The sample cut to a dozen pools: enough for a model, quick on a cluster of processes."""
    load_files(settings, SAMPLE_FILES)
    execute_sql(settings, "DELETE FROM raw_defillama_pool_history WHERE pool_id NOT IN (SELECT pool_id FROM pools ORDER BY pool_id LIMIT 12)")


def test_jobs_from_the_zip_alone_give_the_checkouts_rows(database: Settings, second_database: Settings, tmp_path: Path) -> None:
    """The checkout in one process beside the zip on a cluster of two executors, then the zip in one process, which has nothing left to change."""
    archive = build_archive(tmp_path / "yieldspark.zip")
    for settings in (database, second_database):
        _few_pools(settings)
    for entry, arguments in ((METRICS_JOB, []), (FORECAST_JOB, ["--engine", "synapseml"])):
        _run_job(PROJECT / entry, arguments, database, tmp_path, None)
        copied = Path(shutil.copy(PROJECT / entry, tmp_path))
        _run_job(copied, arguments, second_database, tmp_path, str(archive), SPARK_MASTER="local-cluster[2,1,2048]")
    assert _results(second_database) == _results(database)
    assert _results(database)["forecasts"]
    _run_job(tmp_path / Path(METRICS_JOB).name, ["--full-refresh"], second_database, tmp_path, str(archive))
    changes = "SELECT rows ->> 'inserted' AS inserted, rows ->> 'updated' AS updated FROM yieldspark.run_ledger ORDER BY started_at DESC LIMIT 1"
    assert execute_sql(second_database, changes) == [{"inserted": "0", "updated": "0"}]


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = build_archive(tmp_path / "1.zip"), build_archive(tmp_path / "2.zip")
    assert first.read_bytes() == second.read_bytes()
