"""HORIZONS: forecasts of several target days in one run, each with its own models and history."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from common.errors import ConfigurationError, EnvironmentNotReady
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.undo.undo import undo_run
from forecasting.backtest_spark import run_backtest
from forecasting.engines.synapseml_engine import check_runtime
from forecasting.evaluation.evaluate import evaluate
from forecasting.forecast_pools_spark import run_forecast
from forecasting.registry.versions import list_versions, show_version
from tests.conftest import skip_where_synapseml_cannot_run
from tests.forecasting.test_forecast_executors import newest_plan
from tests.forecasting.test_forecast_job import no_session
from tests.support.forecast_panels import END, SHORT, panel_rows, store
from tests.support.metrics_store import rows_of
from tests.support.undone_runs import contents

FAR = 7
EARLIER = END - dt.timedelta(days=FAR)
POOLS = 10


@pytest.mark.parametrize(
    ("value", "horizons"), [("1", (1,)), ("7,1", (1, 7)), (" 1, 30 ", (1, 30)), ("", (1,))]
)
def test_horizons_are_sorted_days(
    monkeypatch: pytest.MonkeyPatch, value: str, horizons: tuple[int, ...]
) -> None:
    monkeypatch.setenv("HORIZONS", value)
    assert load_settings().horizons == horizons


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("7", "1 is missing"),
        ("1,1", "occurs twice"),
        *((value, "write whole numbers of days from 1 to 30") for value in ("1,31", "0,1", "1,,7")),
        *((value, "write whole numbers of days from 1 to 30") for value in ("[1]", "1;7", "1,1.5")),
        *(
            (value, "write whole numbers of days from 1 to 30")
            for value in ("1,+7", "1,²", "1,007")
        ),
    ],
)
def test_wrong_horizons_are_refused(
    monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.setenv("HORIZONS", value)
    with pytest.raises(ConfigurationError, match=message) as refused:
        load_settings()
    assert str(refused.value).startswith(f"HORIZONS={value!r} is wrong: ")


TABLES = {
    "forecasts": "SELECT * FROM yieldspark.forecasts WHERE horizon_days = 1",
    "metrics": "SELECT * FROM pool_daily_metrics",
    "history": "SELECT * FROM yieldspark.forecast_evaluation WHERE horizon_days = 1",
    "decisions": "SELECT engine, as_of, decision, challenger, champion, serving_version, reason,"
    " numbers FROM yieldspark.promotion WHERE horizon_days = 1",
}


def of_next_day(engine: Engine) -> dict[str, list[str]]:
    """Returns all that is published of the next day as sorted text, without run ids."""
    tables = {}
    for name, query in TABLES.items():
        rows = rows_of(engine, query)
        for row in rows:
            row.pop("run_id", None)
        tables[name] = sorted(map(repr, rows))
    return tables


def settings_of(database: Settings, *horizons: int, **values: Any) -> Settings:
    common = SHORT | {"engine": "lightgbm", "executor": "inprocess", "refit_days": 30}
    return database.model_copy(update=common | {"horizons": horizons} | values)


def forecast(settings: Settings) -> dict[str, Any]:
    """Runs the job; returns its row of the run ledger with the plan."""
    row = run_forecast(settings, session=no_session)
    return row | {"plan": newest_plan(make_engine(settings))}


def test_a_further_horizon_changes_nothing_of_the_next_day(
    database: Settings, second_database: Settings
) -> None:
    """A fit, then a run with the champions seven days later, when the far target day arrives."""
    alone, both = settings_of(database, 1), settings_of(second_database, 1, FAR)
    engines = [make_engine(settings) for settings in (alone, both)]
    rows = panel_rows(POOLS, 140)
    for engine in engines:
        store(engine, rows[rows["date"] <= EARLIER])
    forecast(alone)
    first = forecast(both)
    assert of_next_day(engines[1]) == of_next_day(engines[0])
    assert first["rows"]["inserted"] == 2 * POOLS
    (further,) = first["plan"]["further_horizons"]
    assert (further["horizon_days"], further["target_date"]) == (FAR, END.isoformat())
    assert "a refit is due at 7 days: no model version" in first["plan"]["reasons"]
    names = {check["name"] for check in first["checks"]}
    assert {"model_serves", "model_serves_7d", "feature_drift_7d"} <= names
    assert {"rolling_origin_score", "rolling_origin_score_7d"} <= names
    # no row of the owner's table for the far target day
    newest = "SELECT max(date) AS day FROM pool_daily_metrics"
    assert rows_of(engines[1], newest) == [{"day": EARLIER + dt.timedelta(days=1)}]
    assert forecast(both)["status"] == "nothing_to_do"

    for engine in engines:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DELETE FROM pool_daily_metrics WHERE date > '{EARLIER}'")
        store(engine, rows[rows["date"] > EARLIER])
    forecast(alone)
    second = forecast(both)
    assert second["plan"]["further_horizons"][0]["refits"] == 0
    assert of_next_day(engines[1]) == of_next_day(engines[0])
    assert_history_of_the_far_day_has_actual_values(engines[1])
    assert forecast(both)["status"] == "nothing_to_do"
    reasons = forecast(alone.model_copy(update={"horizons": (1, 2)}))["plan"]["reasons"]
    assert reasons[0] == "settings changed: horizons 1 -> 1,2"


def assert_history_of_the_far_day_has_actual_values(engine: Engine) -> None:
    """Those of the first run's target day; persistence is the value of the as-of day."""
    history = """
        SELECT e.source, count(*) AS rows, count(e.actual) AS known,
            bool_and(e.actual = t.actual_apy::float8) AS is_value_of_target_day,
            bool_and(e.persistence = a.actual_apy::float8) AS is_value_of_as_of_day
        FROM yieldspark.forecast_evaluation AS e
        JOIN pool_daily_metrics AS a ON a.pool_id = e.pool_id AND a.date = e.as_of
        LEFT JOIN pool_daily_metrics AS t ON t.pool_id = e.pool_id AND t.date = e.target_date
        WHERE e.horizon_days = 7
            AND e.target = 'apy'
            AND e.target_date = e.as_of + 7
            AND e.as_of = :as_of
        GROUP BY e.source
    """
    expected = {"source": "production", "rows": POOLS, "is_value_of_as_of_day": True}
    (arrived,) = rows_of(engine, history, as_of=EARLIER)
    assert arrived == expected | {"known": POOLS, "is_value_of_target_day": True}
    (open_rows,) = rows_of(engine, history, as_of=END)
    assert open_rows == expected | {"known": 0, "is_value_of_target_day": None}


def test_each_horizon_has_versions_scores_and_an_undo(database: Settings, engine: Engine) -> None:
    settings = settings_of(database, 1, FAR)
    store(engine, panel_rows(POOLS, 140))
    empty = contents(engine)
    run = forecast(settings)
    near, far = (list_versions(settings, engine, horizon=horizon) for horizon in (1, FAR))
    assert (len(near), len(far)) == (1, 1)
    assert show_version(settings, engine, far[0].version, horizon=FAR)["horizon_days"] == FAR
    versions = "SELECT DISTINCT horizon_days, model_version FROM yieldspark.forecasts ORDER BY 1"
    assert [tuple(row.values()) for row in rows_of(engine, versions)] == [
        (1, near[0].version),
        (FAR, far[0].version),
    ]

    scores = evaluate(settings, days=20)
    (further,) = scores["further_horizons"]
    assert further["horizon_days"] == FAR
    assert further["targets"]["apy"]["all"]["rows"] == scores["targets"]["apy"]["all"]["rows"]
    assert further["targets"] != scores["targets"]
    # one horizon alone is the document itself
    alone = evaluate(settings, days=20, horizon=FAR)
    assert (alone["targets"], "further_horizons" in alone) == (further["targets"], False)

    undo_run(engine, run["run_id"], by="tester@host")
    after = contents(engine)
    for table in ("yieldspark.forecasts", "yieldspark.forecast_evaluation"):
        assert after[table] == empty[table]


def test_a_backtest_scores_each_horizon(database: Settings, engine: Engine) -> None:
    settings = settings_of(database, 1, FAR)
    store(engine, panel_rows(POOLS, 260))
    both = run_backtest(settings, days=5, session=no_session)
    (further,) = both["further_horizons"]
    assert further["horizon_days"] == FAR
    counted = """
        SELECT horizon_days, count(*) AS rows, min(target_date) AS first, max(target_date) AS last,
            bool_and(target_date = as_of + horizon_days) AS is_ahead
        FROM yieldspark.forecast_evaluation
        WHERE target = 'apy'
        GROUP BY horizon_days
        ORDER BY horizon_days
    """
    days = {"first": END - dt.timedelta(days=4), "last": END, "is_ahead": True}
    assert rows_of(engine, counted) == [
        {"horizon_days": horizon, "rows": 5 * POOLS} | days for horizon in (1, FAR)
    ]
    alone = run_backtest(settings, days=5, horizon=1, session=no_session)
    assert (alone["targets"], "further_horizons" in alone) == (both["targets"], False)


@pytest.mark.long
@pytest.mark.parametrize("name", ["lightgbm", "synapseml"])
def test_a_further_horizon_changes_nothing_of_the_next_day_on_spark(
    spark: SparkSession, database: Settings, second_database: Settings, name: str
) -> None:
    if name == "synapseml":
        try:
            check_runtime(spark)
        except EnvironmentNotReady as error:
            skip_where_synapseml_cannot_run(error)
    common = {"engine": name, "executor": "spark"}
    alone = settings_of(database, 1, **common)
    both = settings_of(second_database, 1, FAR, **common)
    engines = [make_engine(settings) for settings in (alone, both)]
    for engine, settings in zip(engines, (alone, both), strict=True):
        store(engine, panel_rows(POOLS, 140))
        run_forecast(settings, session=lambda _: spark)
    assert of_next_day(engines[1]) == of_next_day(engines[0])
    count = "SELECT count(*) AS rows FROM yieldspark.forecasts WHERE horizon_days = 7"
    assert rows_of(engines[1], count) == [{"rows": POOLS}]
