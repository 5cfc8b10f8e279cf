"""The cloud on this machine, as a user starts it: released, submitted, executed and committed, with the rows that the command line gives."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.ingest.load_files import load_files
from database.db_utils_spark import execute_sql
from forecasting.forecast_pools_spark import run_forecast
from sample_data import SAMPLE_FILES
from tests.processes import PROJECT, environment_of

RESULTS = {
    "metrics": "SELECT * FROM pool_daily_metrics ORDER BY pool_id, date",
    "calendars": "SELECT * FROM yieldspark.pool_calendars ORDER BY pool_id",
    "ages": "SELECT * FROM yieldspark.observation_age ORDER BY pool_id, date",
    "forecasts": "SELECT pool_id, target_date, apy, apy_low, apy_high, tvl, tvl_low, tvl_high, rule, tvl_rule FROM yieldspark.forecasts ORDER BY 1",
    "evaluation": "SELECT pool_id, target, target_date, forecast, low, high, actual FROM yieldspark.forecast_evaluation ORDER BY 1, 2, 3",
}
FEW_POOLS = "DELETE FROM raw_defillama_pool_history WHERE pool_id NOT IN (SELECT pool_id FROM pools ORDER BY pool_id LIMIT 12)"


def _cloud(settings: Settings, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`python -m workflows ..` on this database, with a home of its own, from another folder than the checkout's."""
    variables = environment_of(settings) | {"YIELDSPARK_HOME": str(folder / "home"), "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "workflows", *arguments]
    return subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _document(process: subprocess.Popen[str], code: int = 0) -> Any:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == code, output + errors
    return json.loads(output)


@contextmanager
def _local_cloud(settings: Settings, folder: Path) -> Iterator[dict[str, str]]:
    """The variables of a local cloud that runs as a process of its own."""
    process = _cloud(settings, folder, "local", "up", "--port", "0", "--json")
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or lines[-1] != "}\n":
        lines.append(process.stdout.readline())
        assert lines[-1], process.communicate()[1]
    try:
        yield json.loads("".join(lines))["variables"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_the_rows_are_those_of_the_command_line(database: Settings, second_database: Settings, spark: SparkSession, tmp_path: Path) -> None:
    here = database.model_copy(update={"engine": "lightgbm"})
    for settings in (here, second_database):
        load_files(settings, SAMPLE_FILES)
        execute_sql(settings, FEW_POOLS)
    process = _cloud(second_database, tmp_path, "local", "run", "--engine", "lightgbm", "--json")
    run_metrics(here, session=lambda rows: spark)
    run_forecast(here, session=lambda: spark)
    document = _document(process)
    assert document["state"] == "SUCCEEDED"
    for name, query in RESULTS.items():
        assert execute_sql(second_database, query) == execute_sql(here, query), name
    assert len(execute_sql(here, RESULTS["forecasts"])) == 12
    steps = document["result"]["steps"]
    ledger = execute_sql(second_database, "SELECT job, batch, code_version, status FROM yieldspark.run_ledger WHERE batch <> '' ORDER BY started_at")
    same = {"code_version": document["release"]["version"], "status": "succeeded"}
    assert ledger == [{"job": step["job"], "batch": step["batch"], **same} for step in steps]
    assert [step["job"] for step in steps] == ["calculate_pool_metrics", "forecast_pools"]


def test_container_jobs_run_the_release_and_no_password_is_shown_or_kept(database: Settings, tmp_path: Path) -> None:
    """On an empty database, into which the sample is loaded. With --dry-run the metrics are planned, and then there is nothing to forecast from."""
    both = [word for job in ("calculate_pool_metrics", "forecast_pools") for word in ("--cloud-run", job)]
    process = _cloud(database, tmp_path, "local", "run", *both, "--dry-run", "--engine", "lightgbm", "--json")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1, output + errors
    failed = json.loads(output)
    assert (failed["state"], failed["raised"]["job"], failed["raised"]["state"]) == ("FAILED", "forecast_pools", "FAILED"), errors
    assert execute_sql(database, "SELECT count(*) AS rows FROM pools") == [{"rows": 72}]
    assert database.db_password is not None
    password = database.db_password.get_secret_value()
    kept = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    assert kept == []
    assert password not in output + errors


def test_the_commands_work_on_a_cloud_that_stays(database: Settings, tmp_path: Path) -> None:
    with _local_cloud(database, tmp_path) as variables:
        second = _document(_cloud(database, tmp_path, "local", "run", "--json"), code=2)
        assert f"another local cloud uses {tmp_path / 'home' / 'cloud'}: end it" in second["error"]
        assert database.db_password is not None
        assert database.db_password.get_secret_value() not in json.dumps(variables)
        there = tmp_path / "operator"
        there.mkdir()
        (there / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        released = _document(_cloud(database, there, "release", "--allow-dirty", "--json"))
        assert [row["version"] for row in _document(_cloud(database, there, "versions", "--json"))] == [released["version"]]
        batch = _document(_cloud(database, there, "submit", "calculate_pool_metrics", "--dry-run", "--rows", "5", "--json"))
        assert batch["batch"]["pysparkBatch"]["mainPythonFileUri"].startswith(f"gs://{variables['CODE_BUCKET']}/versions/{released['version']}/")
        assert _document(_cloud(database, there, "list", "--json"))["batches"] == []
