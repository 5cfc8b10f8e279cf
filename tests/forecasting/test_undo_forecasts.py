"""`undo` of forecast runs: what they published and learnt goes, their model decisions stay."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from common.errors import ConfigurationError
from config_spark import Settings
from database.ledger.runs import open_run
from database.undo.replaced_rows import begin_change, end_change, insert_replaced
from database.undo.undo import undo_run
from forecasting.forecast_pools_spark import run_forecast
from tests.support.forecast_panels import END, SHORT, panel_rows, store
from tests.support.metrics_store import rows_of
from tests.support.undone_runs import contents

NEXT = END + dt.timedelta(days=1)
TARGET = END + dt.timedelta(days=2)


def forecast(settings: Settings, spark: SparkSession, as_of: dt.date) -> dict[str, Any]:
    short = settings.model_copy(update=SHORT | {"refit_days": 30})
    return run_forecast(
        short, session=lambda _: spark, engine="lightgbm", as_of=as_of, full_refresh=True
    )


def write_metrics(engine: Engine, day: dt.date) -> str:
    """Write a value of each pool that has a row of the day, as a metrics run; return its id."""
    with open_run(engine, job="calculate_metrics", mode="incremental") as run:
        run.undo_days = 7
        with run.connection.begin():
            change_id = begin_change(
                run, "pool_daily_metrics", "written", ["pool_id", "date"], ["actual_apy"]
            )
            assert change_id is not None
            rows = f"pool_daily_metrics AS t WHERE t.date = '{day}'"
            kept = insert_replaced(change_id, rows, ["t.pool_id", "t.date"], ["t.actual_apy"])
            update = f"UPDATE pool_daily_metrics SET actual_apy = 4 WHERE date = '{day}'"
            end_change(
                run,
                change_id,
                run.connection.exec_driver_sql(f"WITH kept AS ({kept}) {update}").rowcount,
            )
    return run.run_id


def test_undone_forecasts_leave_no_trace_but_the_model(
    database: Settings, engine: Engine, spark: SparkSession
) -> None:
    store(engine, panel_rows(8, 131, end=NEXT))
    beginning = contents(engine)
    first = forecast(database, spark, END)
    before = contents(engine)
    wrong = forecast(database, spark, NEXT)
    after = contents(engine)
    with pytest.raises(ConfigurationError, match=rf"{wrong['run_id']} ran later"):
        undo_run(engine, first["run_id"], by="tester@host")
    result = undo_run(engine, wrong["run_id"], by="tester@host")
    assert (result["runs"], result["continues_from"]) == ([wrong["run_id"]], first["run_id"])
    assert contents(engine) == before
    again = forecast(database, spark, NEXT)
    assert again["rows"] == wrong["rows"]
    published = "yieldspark.forecasts"
    assert [
        row.replace(again["run_id"], wrong["run_id"]) for row in contents(engine)[published]
    ] == after[published]

    later_metrics = write_metrics(engine, TARGET)
    # the metrics did not use the forecasts, so that they stay
    undo_run(engine, again["run_id"], by="tester@host")
    rows = rows_of(
        engine,
        "SELECT actual_apy, forecasted_apy FROM pool_daily_metrics WHERE date = :day",
        day=TARGET,
    )
    assert {tuple(row.values()) for row in rows} == {(4, None)}
    undo_run(engine, later_metrics, by="tester@host")
    assert contents(engine) == before

    undone = undo_run(engine, first["run_id"], by="tester@host")
    decided = "yieldspark.promotion"
    left = contents(engine)
    assert [entry["decision"] for entry in undone["decisions_that_stay"]] == ["promoted"]
    assert left[decided] == before[decided]
    assert left | {decided: []} == beginning | {decided: []}


def test_undo_of_metrics_needs_that_of_the_forecasts_that_read_them(
    database: Settings, engine: Engine
) -> None:
    metrics = write_metrics(engine, END)
    with open_run(engine, job="forecast_pools", mode="daily") as run:
        run.undo_days = 7
    with pytest.raises(ConfigurationError, match=rf"{run.run_id} ran later and used"):
        undo_run(engine, metrics, by="tester@host")
    result = undo_run(engine, metrics, by="tester@host", cascade=True)
    assert result["runs"] == [run.run_id, metrics]
