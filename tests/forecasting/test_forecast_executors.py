"""Tests that Spark and a run without a JVM give the same forecasts, counts and checks, and that a
run without a JVM ends cleanly when it is disturbed.
"""

from __future__ import annotations

import datetime as dt
import json
import signal
import subprocess
import sys
from collections.abc import Container, Mapping
from contextlib import suppress
from random import Random
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine, text

from common.errors import DatabaseError, RunInProgress
from config_spark import Settings
from database.connections.engine import make_engine
from forecasting.forecast_pools_spark import run_forecast
from spark.executor_choice import IN_PROCESS_POOL_DAYS
from tests.forecasting.test_forecast_job import no_session
from tests.support.fault_database import (
    DISK_IS_FULL,
    WAIT_AT_GATE,
    closed_gate,
    exact_contents,
    fault_every_loader,
    fault_first_loader,
    ledger,
    remove_faults,
    staging_tables,
    wait_for_backend_at_gate,
)
from tests.support.fault_runs import FORECAST, until
from tests.support.feature_pools import DIRT, irregular
from tests.support.forecast_panels import END, SHORT, panel_rows, pool_rows, store
from tests.support.killed_process import killed
from tests.support.metrics_store import rows_of
from tests.support.processes import PROJECT, environment_of

COMMIT_STATEMENTS = (
    r"LOCK TABLE yieldspark\.staging",
    r"INSERT INTO .*forecast_evaluation",
    r"INSERT INTO yieldspark\.promotion",
    r"SELECT .*FROM yieldspark\.forecasts",
)


def forecast_without_jvm(settings: Settings, **options: Any) -> dict[str, Any]:
    return run_forecast(settings, engine="lightgbm", session=no_session, **options)


@pytest.fixture
def short(database: Settings) -> Settings:
    return database.model_copy(update=SHORT | {"executor": "inprocess", "refit_days": 7})


def history(seed: int) -> pd.DataFrame:
    """Returns regular pools, and pools of every kind, with the last days of some missing."""
    random = Random(seed)
    pools = [panel_rows(10, 125, seed=seed)]
    for number, (apy, tvl) in enumerate(random.sample(list(DIRT.values()), 5)):
        group = random.choice([None, "stable", "Größe"])
        # ids whose order depends on the collation
        pools.append(pool_rows(f"{random.choice('aBé_-')}{number}", apy, tvl, group=group))
    late = irregular(110, seed=seed)
    pools.append(late[late["date"] <= END - dt.timedelta(days=random.randrange(4))])
    return pd.concat(pools, ignore_index=True)


def correct(engines: list[Engine], random: Random) -> None:
    """Changes values of past days, and closes a pool."""
    corrected = """
UPDATE pool_daily_metrics
SET actual_apy = actual_apy * 1.5, actual_tvl = NULL
WHERE pool_id = :pool AND date = :day
"""
    pool = f"p{random.randrange(10):02d}"
    day = END - dt.timedelta(days=random.randrange(1, 20))
    closed = "INSERT INTO pools (pool_id, is_active) VALUES (:closed, FALSE)"
    for engine in engines:
        with engine.begin() as connection:
            connection.execute(text(corrected), {"pool": pool, "day": day})
            connection.execute(text(closed), {"closed": f"p{(int(pool[1:]) + 1) % 10:02d}"})


VOLATILE_IN_PLAN = {"executor", "executor_reason", "inputs", "reasons"}
"""Entries of a plan that name the executor, or the database and its runs."""


def comparable(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("status", "mode", "as_of", "rows", "checks")
    plan = {f"plan {k}": v for k, v in row["plan"].items() if k not in VOLATILE_IN_PLAN}
    return {name: row[name] for name in names} | plan


TABLES = {
    "forecasts": "SELECT * FROM yieldspark.forecasts",
    "metrics": "SELECT * FROM pool_daily_metrics",
    "history": "SELECT * FROM yieldspark.forecast_evaluation",
    "decisions": "SELECT engine, horizon_days, as_of, decision, challenger, champion,"
    " serving_version, reason, numbers FROM yieldspark.promotion",
}


def contents(engine: Engine) -> dict[str, list[str]]:
    """Returns the rows of all tables as sorted text, without run ids and moments."""
    volatile = {"run_id", "updated_at", "created_at", "id"}
    tables = {}
    for name, query in TABLES.items():
        rows = rows_of(engine, query)
        tables[name] = sorted(text_without(row, volatile) for row in rows)
    return tables


def text_without(row: Mapping[str, Any], columns: Container[str]) -> str:
    return repr({name: value for name, value in row.items() if name not in columns})


def newest_plan(engine: Engine) -> dict[str, Any]:
    newest = "SELECT plan FROM yieldspark.run_ledger ORDER BY started_at DESC LIMIT 1"
    plan: dict[str, Any] = rows_of(engine, newest)[0]["plan"]
    return plan


def assert_equal_runs(spark: SparkSession, first: Settings, second: Settings, seed: int) -> None:
    """Runs each executor over the same days and corrections, and compares after every run."""
    random, rows = Random(seed), history(seed)
    common = SHORT | {"refit_days": 7, "market_features": bool(seed % 2)}
    databases = [
        database.model_copy(update=common | {"executor": executor})
        for database, executor in ((first, "spark"), (second, "inprocess"))
    ]
    engines = [make_engine(settings) for settings in databases]
    cut = END - dt.timedelta(days=2)
    for engine in engines:
        store(engine, rows[rows["date"] <= cut])
    for step in ("refit", "champion", "corrections"):
        if step == "champion":
            for engine in engines:
                # the metrics job updates the row with the forecast
                rows_of_forecasts = f"DELETE FROM pool_daily_metrics WHERE date > '{cut}'"
                with engine.begin() as connection:
                    connection.execute(text(rows_of_forecasts))
                store(engine, rows[rows["date"] > cut])
        if step == "corrections":
            correct(engines, random)
        on_spark, without = (
            run_forecast(settings, engine="lightgbm", session=session)
            for settings, session in zip(databases, (lambda _: spark, no_session), strict=True)
        )
        assert (on_spark["jvm_started"], without["jvm_started"]) == (True, False)
        assert ("fit_apy" in without["stages"]) == (step == "refit")
        expected = comparable(on_spark | {"plan": newest_plan(engines[0])})
        actual = comparable(without | {"plan": newest_plan(engines[1])})
        assert {k: v for k, v in actual.items() if expected[k] != v} == {}
        assert contents(engines[1]) == contents(engines[0])


def test_executors_give_equal_forecasts(
    spark: SparkSession, database: Settings, second_database: Settings
) -> None:
    assert_equal_runs(spark, database, second_database, 31)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(40, 52))
def test_executors_give_equal_forecasts_for_many_histories(
    spark: SparkSession, database: Settings, second_database: Settings, seed: int
) -> None:
    assert_equal_runs(spark, database, second_database, seed)


def test_plan_names_the_executor(short: Settings, engine: Engine) -> None:
    store(engine, panel_rows(3, 60))
    auto = short.model_copy(update={"executor": "auto"})

    def planned(settings: Settings, name: str, **options: Any) -> tuple[str, str]:
        plan = run_forecast(settings, engine=name, dry_run=True, session=no_session, **options)
        return plan["plan"]["executor"], plan["plan"]["executor_reason"]

    few = f"at most {IN_PROCESS_POOL_DAYS:,} rows to read"
    assert planned(auto, "lightgbm") == ("inprocess", few)
    assert planned(auto, "lightgbm", prefers_spark=True)[0] == "spark"
    assert planned(short, "lightgbm") == ("inprocess", "EXECUTOR=inprocess")
    assert planned(short, "synapseml") == ("spark", "the engine synapseml is LightGBM on Spark")


MODULES = """
import json, sys
from cli.main import main
try:
    main()
except SystemExit as end:
    packages = {name.partition(".")[0] for name in sys.modules}
    print(json.dumps([end.code, sorted(packages & {"mlflow", "pandas", "py4j", "pyspark"})]))
"""


@pytest.mark.usefixtures("processes")
def test_a_run_with_a_champion_imports_neither_spark_nor_mlflow(
    short: Settings, engine: Engine
) -> None:
    """MLflow takes three seconds to import; a run that fits a version needs it to register it."""
    store(engine, panel_rows(10, 130))
    forecast_without_jvm(short, as_of=END - dt.timedelta(days=1))
    for options, loaded in ((["--dry-run"], []), ([], ["pandas"])):
        done = subprocess.run(
            [sys.executable, "-c", MODULES, "forecast_pools", "--engine", "lightgbm", *options],
            cwd=PROJECT,
            env=environment_of(short, "train_days", "refit_days", "executor"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert json.loads(done.stdout.splitlines()[-1]) == [0, loaded], done.stderr
    (fit, champion) = rows_of(
        engine, "SELECT stages FROM yieldspark.run_ledger ORDER BY started_at"
    )
    assert ("fit_apy" in fit["stages"], "fit_apy" in champion["stages"]) == (True, False)


@pytest.mark.usefixtures("processes")
def test_a_killed_run_writes_nothing_and_the_next_one_completes_it(
    short: Settings, engine: Engine
) -> None:
    """The processes are killed before statements of the commit: the first one, merges, the last."""
    store(engine, panel_rows(10, 130))
    before = exact_contents(engine)
    for statement in COMMIT_STATEMENTS:
        assert killed(forecast_without_jvm, short, statements=statement, nth=1), statement
        # the staging tables of killed runs are left to the next one
        assert exact_contents(engine).items() >= before.items(), statement
    row = until(lambda: run_if_free(short), "the lock is free")
    assert (row["status"], row["rows"]["inserted"], row["jvm_started"]) == ("succeeded", 10, False)
    statuses = [status for status, _ in ledger(engine)]
    assert statuses == [*["failed"] * len(COMMIT_STATEMENTS), "succeeded"]
    assert staging_tables(engine) == []


def run_if_free(settings: Settings) -> dict[str, Any] | None:
    with suppress(RunInProgress):
        return forecast_without_jvm(settings)
    return None


def test_an_error_of_the_server_fails_the_run(short: Settings, engine: Engine) -> None:
    store(engine, panel_rows(3, 60))
    before = exact_contents(engine)
    fault_first_loader(engine, DISK_IS_FULL)
    with pytest.raises(DatabaseError, match="No space left on device") as failed:
        forecast_without_jvm(short)
    assert failed.value.sqlstate == "53100"
    remove_faults(engine)
    assert exact_contents(engine) == before
    assert [status for status, _ in ledger(engine)] == ["failed"]
    assert staging_tables(engine) == []


@pytest.mark.usefixtures("processes")
def test_ctrl_c_cancels_a_load(short: Settings, engine: Engine) -> None:
    """The main thread waits inside the driver, where no signal handler of Python runs."""
    store(engine, panel_rows(3, 60))
    before = exact_contents(engine)
    fault_every_loader(engine, WAIT_AT_GATE)
    with closed_gate(engine):
        job = subprocess.Popen(
            [sys.executable, "-m", FORECAST, "--engine", "lightgbm", "--json"],
            cwd=PROJECT,
            env=environment_of(short, "train_days", "executor"),
            stdout=subprocess.PIPE,
            text=True,
            # a shell that starts the tests in the background makes them ignore Ctrl-C
            preexec_fn=handle_interrupt,
        )
        wait_for_backend_at_gate(engine)
        job.send_signal(signal.SIGINT)
        out, _ = job.communicate(timeout=120)
    assert (job.returncode, json.loads(out)["status"]) == (130, "cancelled")
    remove_faults(engine)
    assert exact_contents(engine) == before
    assert [status for status, _ in ledger(engine)] == ["cancelled"]
    assert staging_tables(engine) == []


def handle_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
