"""The forecast job on a real database: its rows, the rows it keeps, and its messages."""

from __future__ import annotations

import datetime as dt
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine, insert, update

from cli.output import plain_lines
from common.errors import ConfigurationError, EnvironmentNotReady, NotEnoughHistory, SchemaMismatch
from config_spark import Settings
from database.connections.engine import make_engine
from database.db_utils_spark import execute_sql
from database.schema.owner_tables import FORECAST_COLUMNS, pool_daily_metrics, pools
from forecasting.backtest_spark import run_backtest
from forecasting.engines.synapseml_engine import check_runtime
from forecasting.evaluation.evaluate import evaluate
from forecasting.evaluation.scores import score_table, table_json
from forecasting.forecast_pools_spark import main, run_forecast
from forecasting.run.as_of_day import forecast_as_of_day
from forecasting.run.dataset import cached_dataset
from forecasting.run.plan import plan_forecast
from tests.conftest import skip_where_synapseml_cannot_run
from tests.support.forecast_panels import END, SHORT, panel_rows, pool_rows, store
from tests.support.processes import PROJECT, CommandLineHere, environment_of

NEXT = END + dt.timedelta(days=1)


@pytest.fixture
def short(database: Settings) -> Settings:
    return database.model_copy(update=SHORT | {"refit_days": 30, "executor": "inprocess"})


def no_session(_: int) -> SparkSession:
    raise AssertionError("a session was started without need")


def forecast(settings: Settings, **options: Any) -> dict[str, Any]:
    """Runs the whole job, also if nothing has changed since the last run."""
    defaults: dict[str, Any] = {
        "engine": "lightgbm",
        "full_refresh": True,
        "session": no_session,
    }
    return run_forecast(settings, **(defaults | options))


def table(settings: Settings, name: str) -> Any:
    return pd.DataFrame(execute_sql(settings, f"SELECT * FROM {name}"))


def score_of(row: dict[str, Any]) -> dict[str, Any]:
    return next(check for check in row["checks"] if check["name"] == "rolling_origin_score")


@pytest.fixture
def panel(engine: Engine) -> pd.DataFrame:
    rows = panel_rows(12, 130)
    store(engine, rows)
    return rows


@pytest.mark.parametrize("name", ["lightgbm", "synapseml"])
def test_every_pool_gets_a_forecast_with_an_interval_and_a_second_run_changes_nothing(
    name: str, short: Settings, spark: SparkSession, panel: pd.DataFrame
) -> None:
    """Takes half a minute with SynapseML: every fit and forecast is a Spark job."""
    if name == "synapseml":
        try:
            check_runtime(spark)
        except EnvironmentNotReady as error:
            skip_where_synapseml_cannot_run(error)
    row = forecast(short, engine=name, session=lambda _: spark)
    assert (row["status"], row["as_of"], row["engine"]) == ("succeeded", END.isoformat(), name)
    assert row["rows"]["inserted"] == 12
    forecasts = table(short, "yieldspark.forecasts")
    assert_has_intervals_and_is_published(short, forecasts, panel)
    scored = table(short, "yieldspark.forecast_evaluation")
    assert scored.groupby(["target", "source"])["pool_id"].nunique().to_dict() == dict.fromkeys(
        [("apy", "backtest"), ("apy", "production"), ("tvl", "backtest"), ("tvl", "production")], 12
    )
    assert scored["actual"].isna().tolist() == (scored["source"] == "production").tolist()
    assert scored.loc[scored["source"] == "backtest", "target_date"].agg(
        ["min", "max"]
    ).tolist() == [END - dt.timedelta(days=44), END]
    # APY returns to each pool's mean here, which persistence can't know; the gate opens after 40 of
    # the 45 days
    assert score_of(row)["scores"]["apy"]["all"]["ratio"]["mae"] < 0.97
    assert set(row["stages"]) >= {
        "evaluate",
        "plan",
        "features",
        "fit_tvl",
        "fit_apy",
        "predict",
        "publish",
        "load",
        "merge",
    }

    again = forecast(short, engine=name, session=lambda _: spark)
    assert (again["rows"]["inserted"], again["rows"]["updated"], again["rows"]["unchanged"]) == (
        0,
        0,
        12,
    )
    assert not {"fit_tvl", "fit_apy", "validate"} & set(again["stages"])
    assert again["rows"]["read"] == row["rows"]["read"], (
        "features look back as far as in a run that fits"
    )
    key = ["target", "target_date", "pool_id"]
    evaluated = table(short, "yieldspark.forecast_evaluation")
    pd.testing.assert_frame_equal(
        evaluated.sort_values(key, ignore_index=True), scored.sort_values(key, ignore_index=True)
    )
    pd.testing.assert_frame_equal(table(short, "yieldspark.forecasts"), forecasts)


def assert_has_intervals_and_is_published(
    short: Settings, forecasts: pd.DataFrame, panel: pd.DataFrame
) -> None:
    assert set(forecasts["pool_id"]) == set(panel["pool_id"])
    assert set(forecasts["target_date"]) == {NEXT}
    assert set(forecasts["apy_fallback_reason"].dropna()) <= {"gate"}
    assert forecasts["apy_fallback_reason"].isna().sum() > 6
    numbers = forecasts[["apy_low", "apy", "apy_high", "tvl_low", "tvl", "tvl_high"]].astype(float)
    assert np.isfinite(numbers.to_numpy()).all()
    assert (numbers["apy_low"] <= numbers["apy"]).all()
    assert (numbers["apy"] <= numbers["apy_high"]).all()
    assert (numbers["tvl_low"] <= numbers["tvl"]).all()
    assert (numbers["tvl"] <= numbers["tvl_high"]).all()
    metrics = table(short, "pool_daily_metrics")
    published = metrics[metrics["date"] == NEXT].set_index("pool_id")
    assert published["forecasted_apy"].to_dict() == forecasts.set_index("pool_id")["apy"].to_dict()
    assert published["forecasted_tvl"].to_dict() == forecasts.set_index("pool_id")["tvl"].to_dict()


def test_an_as_of_day_in_the_past_gives_what_it_gave_when_it_was_the_newest(
    short: Settings,
    second_database: Settings,
    engine: Engine,
    panel: pd.DataFrame,
) -> None:
    """The other database has no later day, and a registry of its own. Of the metrics table only
    the forecast columns are touched.
    """
    with engine.begin() as connection:
        connection.execute(
            update(pool_daily_metrics).values(is_filtered_out=True, filter_reason="by another job")
        )
    past = END - dt.timedelta(days=5)
    before = table(short, "pool_daily_metrics").drop(columns=list(FORECAST_COLUMNS))
    assert forecast(short, as_of=past)["as_of"] == past.isoformat()
    after = table(short, "pool_daily_metrics")
    key = ["pool_id", "date"]
    pd.testing.assert_frame_equal(
        after.drop(columns=list(FORECAST_COLUMNS)).sort_values(key, ignore_index=True),
        before.sort_values(key, ignore_index=True),
    )
    assert set(after.loc[after["forecasted_apy"].notna(), "date"]) == {past + dt.timedelta(days=1)}

    store(make_engine(second_database), panel[panel["date"] <= past])
    options = SHORT | {"refit_days": 30, "executor": "inprocess"}
    row = forecast(second_database.model_copy(update=options))
    assert (row["as_of"], row["rows"]["inserted"]) == (past.isoformat(), 12)
    columns = [
        "pool_id",
        "target_date",
        "apy",
        "apy_low",
        "apy_high",
        "tvl",
        "tvl_low",
        "tvl_high",
        "model_version",
    ]
    forecasts, expected = (
        table(settings, "yieldspark.forecasts")[columns] for settings in (short, second_database)
    )
    pd.testing.assert_frame_equal(
        forecasts.sort_values("pool_id", ignore_index=True),
        expected.sort_values("pool_id", ignore_index=True),
    )


def _irregular_pools() -> list[pd.DataFrame]:
    return [
        pool_rows("stale", [3.0] * 40, [1e6] * 40, end=END - dt.timedelta(days=9)),
        pool_rows("ancient", [3.0] * 40, [1e6] * 40, end=END - dt.timedelta(days=400)),
        pool_rows("new", [4.0, 5.0], [1e6, 2e6]),
        pool_rows("tvl_only", [None] * 60, [1e6] * 60),
        pool_rows("zero", [0.0] * 60, [0.0] * 60),
        pool_rows("wild", [5.0] * 58 + [355_083.0, 355_083.0], [1e6] * 60),
        pool_rows("every_second_day", [None, 5.0, None, 6.0] * 15, [None, 1e6, None, 2e6] * 15),
        pool_rows("closed", [5.0] * 60, [1e6] * 60),
        pool_rows("apy_only", [5.0, 6.0] * 30, [None] * 60),
        pool_rows("emptied", [5.0, 6.0] * 30, [1e6] * 59 + [0.0]),
        pool_rows("back", [5.0, 6.0] * 27 + [None] * 5 + [7.0], [1e6] * 54 + [None] * 5 + [2e6]),
        pool_rows(
            "back_after_weeks", [5.0] * 20 + [None] * 39 + [7.0], [1e6] * 20 + [None] * 39 + [2e6]
        ),
    ]


def test_pools_without_a_models_forecast_get_a_fallback(
    short: Settings, engine: Engine, panel: pd.DataFrame
) -> None:
    store(engine, pd.concat(_irregular_pools(), ignore_index=True))
    with engine.begin() as connection:
        connection.execute(
            insert(pools),
            [{"pool_id": "closed", "is_active": False}, {"pool_id": "new", "is_active": True}],
        )
    forecast(short)
    forecasts = table(short, "yieldspark.forecasts").set_index("pool_id")
    assert "closed" not in forecasts.index
    assert len(forecasts) == 12 + 11
    assert forecasts.loc[["stale", "ancient", "new"], "apy_fallback_reason"].tolist() == [
        "stale",
        "stale",
        "cold_start",
    ]
    assert forecasts.loc[["stale", "ancient", "new"], "apy"].astype(float).tolist() == [
        3.0,
        3.0,
        5.0,
    ]
    assert forecasts.loc["new", "apy_high"] > forecasts.loc["new", "apy"]
    assert forecasts.loc["tvl_only", ["apy", "apy_low", "apy_high"]].isna().all()
    assert float(forecasts.loc["tvl_only", "tvl"]) == pytest.approx(1e6, rel=0.05)
    assert abs(float(forecasts.loc["zero", "apy"])) < 0.01
    assert float(forecasts.loc["zero", "tvl_low"]) >= 0.0
    assert 0.0 <= float(forecasts.loc["wild", "apy"]) <= short.max_apy_percent
    assert forecasts.loc["apy_only", ["tvl", "tvl_low", "tvl_high"]].isna().all()
    assert (
        forecasts.loc["apy_only", "tvl_fallback_reason"]
        == forecasts.loc["tvl_only", "apy_fallback_reason"]
        == "no_value"
    )
    assert forecasts.loc["apy_only", "apy_fallback_reason"] != "no_value"
    assert (
        float(forecasts.loc["emptied", "tvl_low"])
        == 0.0
        <= float(forecasts.loc["emptied", "tvl"])
        < 100.0
    )
    assert (
        forecasts.loc[["apy_only", "emptied", "back", "back_after_weeks"], "apy"]
        .astype(float)
        .between(4.0, 8.0)
        .all()
    )
    modelled = ["apy_only", "emptied", "back", "back_after_weeks", "every_second_day"]
    assert not {"stale", "cold_start", "no_model"} & set(
        forecasts.loc[modelled, "apy_fallback_reason"]
    )
    spread = forecasts.loc[forecasts["apy"].notna(), ["apy_low", "apy", "apy_high"]].astype(float)
    assert (spread["apy_low"] <= spread["apy"]).all()
    assert (spread["apy"] <= spread["apy_high"]).all()


def test_a_panel_without_tvl_that_jumps_after_a_gap_is_forecast(
    short: Settings, engine: Engine
) -> None:
    """No pool has a TVL, none was observed for four days, and all APYs rise a hundredfold."""
    pools = []
    for name, rows in panel_rows(12, 130).groupby("pool_id"):
        apy = [float(value) for value in rows["actual_apy"]]
        pools.append(pool_rows(str(name), [*apy[:-5], *[None] * 4, 100.0 * apy[-1]], [None] * 130))
    store(engine, pd.concat(pools, ignore_index=True))
    row = forecast(short)
    forecasts = table(short, "yieldspark.forecasts")
    assert (row["status"], len(forecasts), set(forecasts["model_version"]) & {"none"}) == (
        "succeeded",
        12,
        set(),
    )
    assert forecasts[["tvl", "tvl_low", "tvl_high"]].isna().all(axis=None)
    assert set(forecasts["tvl_fallback_reason"]) == {"no_value"}
    apy = forecasts[["apy_low", "apy", "apy_high"]].astype(float)
    assert np.isfinite(apy.to_numpy()).all()
    assert (apy["apy_low"] <= apy["apy"]).all()
    assert (apy["apy"] <= apy["apy_high"]).all()
    again = forecast(short)
    assert (again["rows"]["updated"], again["rows"]["unchanged"], "fit_apy" in again["stages"]) == (
        0,
        12,
        False,
    )


def test_the_previous_runs_forecast_is_scored_and_a_backtest_leaves_it(
    short: Settings, engine: Engine, panel: pd.DataFrame
) -> None:
    """The backtest comes after two daily runs, of which the second scores the first."""
    forecast(short, as_of=END - dt.timedelta(days=1))
    published_query = (
        "SELECT * FROM yieldspark.forecast_evaluation WHERE source = 'production' AND target ="
        " 'apy' ORDER BY pool_id, target_date"
    )
    published = pd.DataFrame(execute_sql(short, published_query))
    row = forecast(short)
    assert row["rows"]["inserted"] == 12
    scored = pd.DataFrame(execute_sql(short, published_query))
    first = scored[scored["target_date"] == END].reset_index(drop=True)
    true = (
        panel[(panel["date"] == END) & (panel["apy_staleness_days"] == 0)]
        .set_index("pool_id")["actual_apy"]
        .astype(float)
    )
    assert first.set_index("pool_id")["actual"].to_dict() == pytest.approx(true.round(4).to_dict())
    pd.testing.assert_frame_equal(first.drop(columns="actual"), published.drop(columns="actual"))

    scores = evaluate(short, days=2, engine="lightgbm")
    assert scores["targets"]["apy"]["all"]["days"] == 2
    assert (scores["job"], scores["status"], scores["as_of"], scores["rows"]["updated"]) == (
        "evaluate",
        "succeeded",
        END.isoformat(),
        0,
    )
    is_left_by_a_backtest(short)


def is_left_by_a_backtest(short: Settings) -> None:
    """A backtest scores its days, and changes neither what was published nor its history."""
    published_query = (
        "SELECT * FROM yieldspark.forecast_evaluation WHERE source = 'production' ORDER BY target,"
        " pool_id, target_date"
    )
    before = execute_sql(short, published_query)
    forecasts = table(short, "yieldspark.forecasts")
    # the first run has scored these days too
    execute_sql(short, "DELETE FROM yieldspark.forecast_evaluation WHERE source = 'backtest'")
    rows_of_backtest: list[pd.DataFrame] = []
    result = run_backtest(
        short,
        days=10,
        end=END,
        engine="lightgbm",
        session=no_session,
        keep=rows_of_backtest.append,
    )
    scored = result["targets"]["apy"]["all"]
    assert (scored["rows"], scored["pools"], scored["days"]) == (120, 12, 10)
    assert scored["ratio"]["mae"] < 0.9
    assert {"mae", "median_ae", "mae_low", "mae_high"} <= set(scored["ratio"])
    assert {"level", "coverage", "mean_width", "pinball", "pinball_ratio"} <= set(
        scored["interval"]
    )
    assert table_json(score_table(rows_of_backtest[0], short.interval_level)) == result["targets"]
    assert result["seconds"] > 0
    assert "fit_apy" in result["stages"]
    assert execute_sql(short, published_query) == before
    pd.testing.assert_frame_equal(table(short, "yieldspark.forecasts"), forecasts)
    days = """
        SELECT count(*) AS rows, count(DISTINCT target_date) AS days, max(target_date) AS newest
        FROM yieldspark.forecast_evaluation
        WHERE source = 'backtest' AND target = 'apy'
    """
    yesterday = END - dt.timedelta(days=1)
    assert execute_sql(short, days) == [{"rows": 9 * 12, "days": 9, "newest": yesterday}]


def test_a_dry_backtest_prints_its_plan(short: Settings, panel: pd.DataFrame) -> None:
    plan = run_backtest(short, days=10, engine="lightgbm", dry_run=True, session=no_session)["plan"]
    assert (plan["as_of"], plan["forecast_days"], plan["refits"]) == (END.isoformat(), 100, 4)
    with pytest.raises(NotEnoughHistory, match=f"the newest day before it that has one is {END}"):
        run_backtest(short, days=10, end=NEXT, session=no_session)


@pytest.mark.parametrize(
    ("rows", "rule"),
    [
        pytest.param(
            pool_rows("only", [1.0, 2.0, 3.0] * 10, [1e6] * 30), "no_model", marks=pytest.mark.long
        ),
        pytest.param(
            pool_rows("only", [1.0, 2.0, 3.0], [1e6] * 3), "cold_start", marks=pytest.mark.long
        ),
        (pool_rows("only", [0.0] * 30, [0.0] * 30), "no_model"),
        (pool_rows("only", [5.0], [1e6]), "cold_start"),
    ],
    ids=["one pool", "three days", "constant zero", "one day"],
)
def test_a_single_pool_with_too_few_rows_gets_a_fallback(
    rows: pd.DataFrame, rule: str, short: Settings, engine: Engine
) -> None:
    store(engine, rows)
    row = forecast(short)
    forecasts = table(short, "yieldspark.forecasts")
    assert row["status"] == "succeeded"
    assert forecasts[["pool_id", "apy_fallback_reason", "model_version"]].to_numpy().tolist() == [
        ["only", rule, "none"]
    ]
    assert float(forecasts["apy"].iloc[0]) == float(rows["actual_apy"].iloc[-1])
    scores = score_of(row)["scores"]
    assert not scores or scores["apy"]["all"]["ratio"]["mae"] in (1.0, None)


def test_all_reads_see_one_snapshot(
    short: Settings,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two pools of 20 days, which are too few for a model."""
    panel = panel_rows(2, 20)
    store(engine, panel)

    def hold_after_another_job_commits(*arguments: Any, **options: Any) -> Any:
        store(engine, pool_rows("late", [3.0] * 60, [1e6] * 60))
        return cached_dataset(*arguments, **options)

    today = dt.datetime.now(dt.UTC).date()
    as_of = forecast_as_of_day(short, as_of=None, today=today)
    plan = plan_forecast(short, as_of=as_of, engine="lightgbm", today=today, prefers_spark=False)
    monkeypatch.setattr("forecasting.run.execution.cached_dataset", hold_after_another_job_commits)
    row = forecast(short)
    assert "late" in set(table(short, "pool_daily_metrics")["pool_id"])
    assert "late" not in set(table(short, "yieldspark.forecasts")["pool_id"])
    assert row["rows"]["read"] == plan.rows == len(panel)


def test_a_dry_run_prints_the_plan_without_a_session_and_writes_nothing(
    short: Settings, panel: pd.DataFrame
) -> None:
    document = run_forecast(short, engine="lightgbm", dry_run=True, session=no_session)
    plan = document["plan"]
    assert (document["job"], document["status"]) == ("forecast_pools", "planned")
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    assert plan["as_of"] == END.isoformat()
    assert plan["age_days"] == (yesterday - END).days
    assert (plan["pools"], plan["target_date"], plan["engine"]) == (
        12,
        NEXT.isoformat(),
        "lightgbm",
    )
    assert plan["rows"] == int((panel["date"] >= dt.date.fromisoformat(plan["first_day"])).sum())
    assert (plan["forecast_days"], plan["refits"], plan["history_days"]) == (46, 1, 0)
    assert (plan["champion"], plan["newest_version"], plan["problems"]) == (None, None, [])
    assert table(short, "yieldspark.run_ledger").empty
    assert f"as_of: {END}" in plain_lines(document)


def test_without_metrics_the_error_names_the_job_that_makes_them(short: Settings) -> None:
    with pytest.raises(NotEnoughHistory, match="run `calculate_metrics`"):
        run_forecast(short, session=no_session)
    ledger = table(short, "yieldspark.run_ledger")
    assert ledger["status"].tolist() == ["failed"]
    assert "calculate_metrics" in ledger["error"].iloc[0]


def test_an_as_of_day_without_data_names_the_newest_day(
    short: Settings, panel: pd.DataFrame
) -> None:
    with pytest.raises(
        NotEnoughHistory,
        match=(
            f"as-of day {NEXT} has no observed value: the newest day before it that has one is"
            f" {END}"
        ),
    ):
        run_forecast(short, as_of=NEXT, session=no_session)


def test_an_as_of_day_that_is_not_over_is_refused(short: Settings, panel: pd.DataFrame) -> None:
    today = dt.datetime.now(dt.UTC).date()
    with pytest.raises(ConfigurationError, match="is not over"):
        run_forecast(short, as_of=today, session=no_session)


def test_an_engine_that_is_not_available_fails_the_run_and_writes_nothing(
    short: Settings, spark: SparkSession, panel: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "forecasting.engines.synapseml_engine.ESTIMATOR_CLASS", "com.example.NotThere"
    )
    with pytest.raises(EnvironmentNotReady, match="--engine lightgbm"):
        forecast(short, engine="synapseml", session=lambda _: spark)
    assert table(short, "yieldspark.forecasts").empty
    assert table(short, "yieldspark.run_ledger")["status"].tolist() == ["failed"]


@pytest.fixture
def environment(short: Settings) -> dict[str, str]:
    """Returns the variables that a user sets to reach this test's database."""
    return environment_of(short, "train_days")


@pytest.mark.usefixtures("processes")
def test_the_job_starts_by_path(environment: dict[str, str], panel: pd.DataFrame) -> None:
    finished = subprocess.run(
        [sys.executable, "forecasting/forecast_pools_spark.py", "--dry-run", "--json"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["plan"]["as_of"] == END.isoformat()
    assert environment["DB_PASSWORD"] not in finished.stdout + finished.stderr


MODULE = "forecasting.forecast_pools_spark"


def run_module() -> NoReturn:
    runpy.run_module(MODULE, run_name="__main__")
    raise AssertionError("the module has no entry point")


class ModuleHere(CommandLineHere):
    """`python -m` with the job's module, in this process."""

    program = MODULE
    entry = staticmethod(run_module)


def test_the_job_starts_as_a_module(
    short: Settings, panel: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # runpy warns of a module that is imported already
    monkeypatch.delitem(sys.modules, MODULE)
    plan = ModuleHere(short, tmp_path).json("--dry-run")["plan"]
    assert plan["as_of"] == END.isoformat()


def test_the_command_returns_the_errors_exit_code(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(["--dry-run"])
    assert ended.value.code == NotEnoughHistory.exit_code
    assert capsys.readouterr().out == ""


def test_a_column_of_another_type_is_named(short: Settings) -> None:
    execute_sql(short, "ALTER TABLE pool_daily_metrics ALTER COLUMN actual_apy TYPE text")
    with pytest.raises(SchemaMismatch, match="actual_apy is text, expected number"):
        run_forecast(short, engine="lightgbm", dry_run=True, session=no_session)
