"""Forecast runs without work: what ends as `nothing_to_do`, and each change that makes a run."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine, insert, update

from config_spark import Settings
from database.db_utils_spark import execute_sql
from database.schema.own_tables import forecast_evaluation, model_outbox, run_ledger
from database.schema.owner_tables import pools
from forecasting.forecast_pools_spark import run_forecast
from forecasting.registry.mlflow_registry import Registry
from forecasting.run import run_inputs
from forecasting.run.health_checks import forecast_explanations
from forecasting.run.run_inputs import BUCKETS, RunInputs, read_inputs
from tests.forecasting.test_forecast_history import row as evaluation_row
from tests.support.forecast_panels import END, SHORT, panel_rows, pool_rows, store
from tests.support.processes import PROJECT, CommandLine, CommandLineHere

NEXT = END + dt.timedelta(days=1)
LAST_RUN = "forecast_pools_20240701t000000_abcdef"


class SessionStarted(Exception):
    """The run has work."""


def session_of_a_run_with_work(_: int) -> SparkSession:
    raise SessionStarted


@pytest.fixture
def settings(database: Settings, engine: Engine) -> Settings:
    """Returns settings of a database with metrics and published forecasts, without a model."""
    store(engine, panel_rows(4, 130))
    statement = """
        INSERT INTO yieldspark.forecasts (pool_id, target_date, horizon_days, as_of, apy,
            interval_level, engine, model_version, run_id)
        SELECT DISTINCT pool_id, DATE '2024-07-01', 1, DATE '2024-06-30', 5.0, 0.8, 'lightgbm',
            'v1', 'run'
        FROM pool_daily_metrics
        RETURNING pool_id
    """
    execute_sql(database, statement)
    with engine.begin() as connection:
        connection.execute(insert(forecast_evaluation).values(evaluation_row(target_date=END)))
    return database.model_copy(update=SHORT)


def inputs_of(settings: Settings, engine: Engine) -> RunInputs:
    inputs = read_inputs(settings, engine, as_of=END, engine="lightgbm")
    assert inputs is not None
    return inputs


def record_run(engine: Engine, plan: dict[str, Any], status: str = "succeeded") -> None:
    values = {
        "run_id": LAST_RUN,
        "job": "forecast_pools",
        "status": status,
        "code_version": "any",
        "plan": plan,
        "rows": {},
        "stages": {},
        "checks": [],
    }
    with engine.begin() as connection:
        connection.execute(insert(run_ledger).values(values))


@pytest.fixture
def unchanged(settings: Settings, engine: Engine) -> Settings:
    """Returns settings of a database whose last run had the current inputs."""
    record_run(engine, {"inputs": inputs_of(settings, engine).to_json()})
    return settings


def newest_plan(settings: Settings) -> dict[str, Any]:
    newest = "SELECT plan FROM yieldspark.run_ledger ORDER BY started_at DESC LIMIT 1"
    plan: dict[str, Any] = execute_sql(settings, newest)[0]["plan"]
    return plan


def reasons_of_run(settings: Settings, **options: Any) -> list[str]:
    """Starts a run that has work, up to its session, and returns the reasons of its plan."""
    with pytest.raises(SessionStarted):
        run_forecast(
            settings,
            session=session_of_a_run_with_work,
            **({"engine": "lightgbm"} | options),
        )
    plan = newest_plan(settings)
    assert plan["nothing_to_do"] is False
    # there is no model: a run with work fits one for each horizon
    refits = [reason for reason in plan["reasons"] if reason.endswith(": no model version")]
    assert refits[0] == "a refit is due: no model version"
    return [reason for reason in plan["reasons"] if reason not in refits]


def test_unchanged_inputs_are_nothing_to_do_again_and_again(unchanged: Settings) -> None:
    for last_run in (LAST_RUN, None):
        row = run_forecast(unchanged, engine="lightgbm", session=session_of_a_run_with_work)
        assert (row["status"], row["as_of"], row["engine"], row["jvm_started"]) == (
            "nothing_to_do",
            END.isoformat(),
            "lightgbm",
            False,
        )
        assert sum(row["rows"].values()) == 0
        plan = newest_plan(unchanged)
        assert (plan["nothing_to_do"], plan["target_date"]) == (True, NEXT.isoformat())
        if last_run:
            assert plan["reasons"] == [f"nothing has changed since run {last_run}"]


def test_a_requested_as_of_day_that_is_unchanged_is_nothing_to_do(unchanged: Settings) -> None:
    row = run_forecast(unchanged, as_of=END, engine="lightgbm", session=session_of_a_run_with_work)
    assert row["status"] == "nothing_to_do"


SQL_CHANGES: dict[str, tuple[str, str]] = {
    "a value of the first day that is read": (
        """
        UPDATE pool_daily_metrics AS m
        SET actual_apy = m.actual_apy + 0.0001
        FROM (
            SELECT pool_id, min(date) AS date
            FROM pool_daily_metrics
            GROUP BY pool_id
            ORDER BY pool_id
            LIMIT 1
        ) AS first
        WHERE m.pool_id = first.pool_id
            AND m.date = first.date
        RETURNING m.pool_id
        """,
        "the metrics of 1 or more pools changed",
    ),
    "a TVL": (
        "UPDATE pool_daily_metrics SET actual_tvl = actual_tvl + 0.01 WHERE date = '2024-06-01'"
        " AND pool_id = (SELECT min(pool_id) FROM pool_daily_metrics) RETURNING pool_id",
        "the metrics of 1 or more pools changed",
    ),
    "a row less": (
        "DELETE FROM pool_daily_metrics WHERE date = '2024-06-01'"
        " AND pool_id = (SELECT min(pool_id) FROM pool_daily_metrics) RETURNING pool_id",
        "the metrics of 1 or more pools changed",
    ),
    "two values swapped": (
        """
        UPDATE pool_daily_metrics AS m
        SET actual_apy = o.actual_apy
        FROM pool_daily_metrics AS o
        WHERE o.pool_id = m.pool_id
            AND m.pool_id = (SELECT min(pool_id) FROM pool_daily_metrics)
            AND (m.date, o.date) IN (('2024-06-03', '2024-06-04'), ('2024-06-04', '2024-06-03'))
            AND m.actual_apy <> o.actual_apy
        RETURNING m.pool_id
        """,
        "the metrics of 1 or more pools changed",
    ),
    "a group": (
        "UPDATE pool_daily_metrics SET pool_group = 'other' WHERE date = '2024-06-01'"
        " AND pool_id = (SELECT min(pool_id) FROM pool_daily_metrics) RETURNING pool_id",
        "the metrics of 1 or more pools changed",
    ),
    "the staleness of a value": (
        """
        INSERT INTO yieldspark.value_staleness (pool_id, date, apy_staleness_days)
        SELECT min(pool_id), '2024-06-01', 3
        FROM pool_daily_metrics
        ON CONFLICT (pool_id, date) DO UPDATE SET apy_staleness_days = 3
        RETURNING pool_id
        """,
        "the metrics of 1 or more pools changed",
    ),
    "an inactive pool": (
        """
        INSERT INTO pools (pool_id, is_active)
        SELECT min(pool_id), false
        FROM pool_daily_metrics
        RETURNING pool_id
        """,
        "the active pools or their last values changed",
    ),
    "a published forecast": (
        "UPDATE yieldspark.forecasts SET apy = 6.0"
        " WHERE pool_id = (SELECT min(pool_id) FROM yieldspark.forecasts) RETURNING pool_id",
        "the published forecasts changed after the last run",
    ),
    "a deleted forecast": (
        "DELETE FROM yieldspark.forecasts"
        " WHERE pool_id = (SELECT min(pool_id) FROM yieldspark.forecasts) RETURNING pool_id",
        "the published forecasts changed after the last run",
    ),
    "a forecast of another system in the metrics table": (
        """
        INSERT INTO pool_daily_metrics (pool_id, date, forecasted_apy)
        SELECT min(pool_id), '2024-07-01', 9.0
        FROM pool_daily_metrics
        RETURNING pool_id
        """,
        "the published forecasts changed after the last run",
    ),
    "a corrected row of the forecast history": (
        "UPDATE yieldspark.forecast_evaluation SET model_change = 0.5 RETURNING pool_id",
        "the forecast history changed",
    ),
}


@pytest.mark.parametrize("change", SQL_CHANGES)
def test_a_changed_row_makes_a_run(change: str, unchanged: Settings) -> None:
    statement, reason = SQL_CHANGES[change]
    assert execute_sql(unchanged, statement), "the statement changes a row"
    assert reason in reasons_of_run(unchanged)


def test_the_changed_pools_are_counted(unchanged: Settings) -> None:
    statement = """
        UPDATE pool_daily_metrics
        SET actual_apy = actual_apy + 1
        WHERE date = '2024-06-01'
            AND pool_id IN (SELECT DISTINCT pool_id FROM pool_daily_metrics ORDER BY 1 LIMIT 3)
        RETURNING (hashtextextended(pool_id, 0) & :mask) AS bucket
    """
    changed = execute_sql(unchanged, statement.replace(":mask", str(BUCKETS - 1)))
    buckets = {row["bucket"] for row in changed}
    assert len(changed) == 3
    assert f"the metrics of {len(buckets)} or more pools changed" in reasons_of_run(unchanged)


def test_a_pool_with_metrics_of_another_writer_makes_a_run(
    unchanged: Settings, engine: Engine
) -> None:
    store(engine, pool_rows("new", [3.0] * 60, [1e6] * 60))
    reasons = reasons_of_run(unchanged)
    assert "the metrics of 1 or more pools changed" in reasons
    assert "the active pools or their last values changed" in reasons


def test_a_row_before_the_days_that_are_read_counts_only_for_the_pools_last_values(
    unchanged: Settings, engine: Engine
) -> None:
    # neither a feature nor a last value: the first day of a pool is an input, its value is none
    old = "SELECT min(date) AS day FROM pool_daily_metrics"
    day = execute_sql(unchanged, old)[0]["day"]
    store(engine, pool_rows("old", [3.0] * 5, [1e6] * 5, end=day - dt.timedelta(days=400)))
    assert "the active pools or their last values changed" in reasons_of_run(unchanged)


def test_new_actual_values_make_a_run(unchanged: Settings, engine: Engine) -> None:
    pool = execute_sql(unchanged, "SELECT min(pool_id) AS id FROM pool_daily_metrics")[0]["id"]
    with engine.begin() as connection:
        connection.execute(
            insert(forecast_evaluation).values(evaluation_row(pool, target_date=END, actual=None))
        )
    assert "1 actual values of past forecasts are new" in reasons_of_run(unchanged)


def test_a_new_as_of_day_makes_a_run(unchanged: Settings, engine: Engine) -> None:
    store(engine, pool_rows("new", [3.0] * 60, [1e6] * 60, end=NEXT))
    assert reasons_of_run(unchanged) == [f"new as-of day {NEXT}, after {END}"]


def test_an_earlier_as_of_day_makes_a_run(unchanged: Settings) -> None:
    earlier = END - dt.timedelta(days=1)
    reasons = reasons_of_run(unchanged, as_of=earlier)
    assert reasons == [f"new as-of day {earlier}, after {END}"]


def test_another_engine_makes_a_run(unchanged: Settings) -> None:
    reasons = reasons_of_run(unchanged, engine="synapseml")
    assert reasons == ["engine changed from lightgbm to synapseml"]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("train_days", 61, "train_days 60 -> 61"),
        ("interval_level", 0.9, "interval_level 0.8 -> 0.9"),
        ("market_features", True, "market_features False -> True"),
        ("horizons", (1, 7), "horizons 1 -> 1,7"),
        ("refit_days", 3, "refit_days 7 -> 3"),
        ("max_apy_percent", 5.0, "max_apy_percent 1000000.0 -> 5.0"),
        ("max_tvl_usd", 5.0, "max_tvl_usd 1000000000000.0 -> 5.0"),
        ("max_segment_regression", 0.1, "max_segment_regression 0.05 -> 0.1"),
        ("mlflow_artifacts_uri", "gs://models", "mlflow_artifacts_uri None -> gs://models"),
    ],
)
def test_a_changed_setting_makes_a_run(
    unchanged: Settings, name: str, value: object, reason: str
) -> None:
    changed = unchanged.model_copy(update={name: value})
    assert reasons_of_run(changed) == [f"settings changed: {reason}"]


def test_a_changed_parameter_file_makes_a_run(
    settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "parameters.json"
    file.write_text(json.dumps({"parameters": {"rounds": 20}}), encoding="utf-8")
    settings = settings.model_copy(update={"model_parameters_file": file})
    record_run(engine, {"inputs": inputs_of(settings, engine).to_json()})
    file.write_text(json.dumps({"parameters": {"rounds": 21}}), encoding="utf-8")
    (reason,) = reasons_of_run(settings)
    assert reason.startswith("settings changed: model_parameters ")


def test_a_setting_that_no_forecast_depends_on_makes_none(unchanged: Settings) -> None:
    changed = unchanged.model_copy(update={"backtest_days": 20, "report_dir": Path("elsewhere")})
    row = run_forecast(changed, engine="lightgbm", session=session_of_a_run_with_work)
    assert row["status"] == "nothing_to_do"


def test_another_code_version_makes_a_run(unchanged: Settings) -> None:
    changed = unchanged.model_copy(update={"code_version": "abc"})
    assert reasons_of_run(changed) == [f"code changed: code {unchanged.code_version} -> abc"]


def test_an_edited_source_file_makes_a_run(
    unchanged: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "forecasting").mkdir()
    (tmp_path / "forecasting" / "edited.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(run_inputs, "CODE", tmp_path)
    run_inputs.sources_digest.cache_clear()
    (reason,) = reasons_of_run(unchanged)
    run_inputs.sources_digest.cache_clear()
    assert reason.startswith("code changed: sources ")


@pytest.mark.parametrize("status", ["failed", "blocked", "cancelled", "running"])
def test_a_last_run_that_did_not_succeed_is_no_evidence(
    status: str, settings: Settings, engine: Engine
) -> None:
    record_run(engine, {"inputs": inputs_of(settings, engine).to_json()}, status)
    # the next run closes the row of a driver that has ended
    recorded = "failed" if status == "running" else status
    assert reasons_of_run(settings) == [f"the last run {LAST_RUN} is {recorded}"]


def test_a_run_without_recorded_inputs_is_no_evidence(settings: Settings, engine: Engine) -> None:
    record_run(engine, {"as_of": END.isoformat()})
    assert reasons_of_run(settings) == [f"the last run {LAST_RUN} did not record its inputs"]


def test_a_first_run_has_work(settings: Settings) -> None:
    assert reasons_of_run(settings) == ["no forecast run is recorded yet"]


def test_a_run_that_fitted_no_version_is_followed_by_a_run(
    settings: Settings, engine: Engine
) -> None:
    inputs = replace(inputs_of(settings, engine), refit_is_due=True)
    record_run(engine, {"inputs": inputs.to_json()})
    assert reasons_of_run(settings) == ["a refit is due: the last run fitted no version"]


def test_a_version_that_waits_for_the_registry_makes_a_run(
    unchanged: Settings, engine: Engine
) -> None:
    pending = {"version": "w", "engine": "lightgbm", "horizon_days": 1, "alias": "withdrawn"}
    with engine.begin() as connection:
        connection.execute(insert(model_outbox).values(pending | {"run_id": "r", "model": b""}))
    assert reasons_of_run(unchanged) == ["model versions or decisions wait for the registry"]


def test_a_registry_that_does_not_answer_makes_a_run(unchanged: Settings, engine: Engine) -> None:
    folder = unchanged.yieldspark_home / "damaged"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mlflow.db").write_bytes(b"no database" * 100)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    settings = unchanged.model_copy(update={"mlflow_tracking_uri": uri})
    with engine.begin() as connection:
        plan = {"inputs": inputs_of(unchanged, engine).to_json()}
        plan["inputs"]["settings"]["mlflow_tracking_uri"] = uri
        connection.execute(update(run_ledger).values(plan=plan))
    assert reasons_of_run(settings) == ["the model registry does not answer"]


def test_a_full_refresh_runs_without_a_change(unchanged: Settings) -> None:
    assert reasons_of_run(unchanged, full_refresh=True) == ["--full-refresh"]


def test_a_dry_run_says_why_and_writes_nothing(unchanged: Settings, engine: Engine) -> None:
    def plan() -> dict[str, Any]:
        document = run_forecast(
            unchanged, engine="lightgbm", dry_run=True, session=session_of_a_run_with_work
        )
        assert document["status"] == "planned"
        planned: dict[str, Any] = document["plan"]
        return planned

    with engine.begin() as connection:
        connection.execute(insert(pools).values(pool_id="unknown"))
    # there is no model, which a recorded run would have fitted
    assert plan()["reasons"] == ["a refit is due: no model version"]
    pool = execute_sql(unchanged, "SELECT min(pool_id) AS id FROM pool_daily_metrics")[0]["id"]
    with engine.begin() as connection:
        connection.execute(
            insert(forecast_evaluation).values(evaluation_row(pool, target_date=END, actual=None))
        )
    assert plan()["reasons"][0] == "1 actual values of past forecasts are new"
    actual = "SELECT count(actual) AS n FROM yieldspark.forecast_evaluation WHERE pool_id = :pool"
    assert execute_sql(unchanged, actual, {"pool": pool}) == [{"n": 0}]
    runs = execute_sql(unchanged, "SELECT run_id FROM yieldspark.run_ledger")
    assert runs == [{"run_id": LAST_RUN}]


def test_the_command_prints_nothing_to_do(
    unchanged: Settings, engine: Engine, run_here: CommandLineHere
) -> None:
    variables = {
        "TRAIN_DAYS": "60",
        "MODEL_THREADS": "2",
        "MODEL_PARAMETERS_FILE": str(SHORT["model_parameters_file"]),
        "YIELDSPARK_HOME": str(unchanged.yieldspark_home),
    }
    row = run_here.json("forecast_pools", "--engine", "lightgbm", code=0, **variables)
    assert (row["status"], row["jvm_started"]) == ("nothing_to_do", False)


def test_a_run_without_work_loads_no_pandas_no_mlflow_and_no_spark(
    unchanged: Settings, run: CommandLine
) -> None:
    loaded = "print({'pandas', 'numpy', 'mlflow', 'pyspark', 'alembic'} & set(sys.modules))"
    ask = (
        f"import sys, atexit; from cli.main import main; atexit.register(lambda: {loaded}); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask, "forecast_pools", "--engine", "lightgbm", "--json"],
        cwd=PROJECT,
        env=run.environment
        | {
            "TRAIN_DAYS": "60",
            "MODEL_THREADS": "2",
            "MODEL_PARAMETERS_FILE": str(SHORT["model_parameters_file"]),
            "YIELDSPARK_HOME": str(unchanged.yieldspark_home),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert '"status": "nothing_to_do"' in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"


def test_a_whole_run_is_followed_by_nothing_to_do_until_the_registry_changes(
    database: Settings, engine: Engine, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inputs that a real run records are those that the next one reads."""
    store(engine, panel_rows(12, 130))
    settings = database.model_copy(update=SHORT | {"refit_days": 30})

    def run(session: Callable[[int], SparkSession] = session_of_a_run_with_work) -> dict[str, Any]:
        return run_forecast(settings, engine="lightgbm", session=session)

    def score(*arguments: Any, **options: Any) -> Any:
        # as `evaluate` does, after the run has read the history
        with engine.begin() as connection:
            connection.execute(insert(forecast_evaluation).values(evaluation_row(target_date=END)))
        return forecast_explanations(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr("forecasting.run.execution.forecast_explanations", score)
        last_run = run(lambda _: spark)["run_id"]
    with pytest.raises(SessionStarted):
        run()
    reasons = newest_plan(settings)["reasons"]
    assert reasons == [f"the last run {last_run} did not record its inputs"]

    assert run(lambda _: spark)["status"] == "succeeded"
    assert run()["status"] == "nothing_to_do"
    plan = run_forecast(
        settings, engine="lightgbm", dry_run=True, session=session_of_a_run_with_work
    )["plan"]
    assert plan["nothing_to_do"] is True

    registry = Registry(settings, engine="lightgbm", horizon=1)
    (version,) = registry.versions()
    registry.set_champion(None)
    with pytest.raises(SessionStarted):
        run()
    registry.set_champion(version.version)
    # the failed run is no evidence; a whole run is, with the model that it loads
    assert run(lambda _: spark)["rows"]["unchanged"] == 12
    assert run()["status"] == "nothing_to_do"
    cards = (settings.yieldspark_home / "mlflow").glob("artifacts/*/artifacts/model/card.json")
    # the home has the models of other tests too
    card = max(cards, key=lambda path: path.stat().st_mtime)
    card.write_bytes(card.read_bytes())
    with pytest.raises(SessionStarted):
        run()
