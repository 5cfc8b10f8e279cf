"""NaN and infinities that another program wrote into the metrics table count as absent values in
every query of the forecasts.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from sqlalchemy import Engine, text

from config_spark import Settings
from forecasting.features.source_queries import POOL_COLUMNS, active_pools_query, metrics_query
from forecasting.run.as_of_day import newest_day
from tests.forecasting.test_forecast_history import NEWEST, actuals, observe, put, row, take_in
from tests.support.metrics_store import execute

BEFORE = NEWEST - dt.timedelta(days=1)
TABLE = "pool_daily_metrics"


@pytest.fixture(params=["NaN", "Infinity", "-Infinity"])
def not_finite(request: pytest.FixtureRequest, engine: Engine) -> float:
    """Columns of an owner's table, which take all three; `numeric(20, 4)` takes NaN only."""
    for column in ("actual_apy", "actual_tvl"):
        execute(engine, f"ALTER TABLE {TABLE} ALTER COLUMN {column} TYPE double precision")
    return float(request.param)


def rows_of_query(engine: Engine, query: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        rows = connection.execute(text(query), {"as_of": NEWEST} if ":as_of" in query else {})
        return [dict(each) for each in rows.mappings()]


def test_a_number_that_is_not_finite_is_no_actual_value(engine: Engine, not_finite: float) -> None:
    put(engine, row(), row(target="tvl"), row("b"))
    observe(engine, "a", NEWEST, not_finite, not_finite)
    observe(engine, "b", NEWEST, 2.0)
    assert take_in(engine) == 1
    assert actuals(engine) == {("a", "apy"): None, ("a", "tvl"): None, ("b", "apy"): 2.0}


def test_the_newest_value_of_a_pool_is_its_newest_finite_one(
    engine: Engine, not_finite: float
) -> None:
    observe(engine, "a", BEFORE, 5.0, 1e6)
    observe(engine, "a", NEWEST, not_finite, not_finite)
    observe(engine, "never", NEWEST, not_finite, not_finite)
    (pool,) = rows_of_query(engine, active_pools_query(TABLE))
    assert [pool[name] for name in POOL_COLUMNS] == ["a", 5.0, 1e6, BEFORE, BEFORE, BEFORE]


def test_features_read_a_number_that_is_not_finite_as_null(
    engine: Engine, not_finite: float
) -> None:
    observe(engine, "a", BEFORE, 5.0, not_finite)
    observe(engine, "a", NEWEST, not_finite, 1e6)
    metrics = rows_of_query(engine, metrics_query(TABLE, BEFORE, NEWEST) + " ORDER BY m.date")
    assert [(each["apy"], each["tvl"]) for each in metrics] == [(5.0, None), (None, 1e6)]


def test_a_day_without_finite_values_is_no_as_of_day(
    database: Settings, engine: Engine, not_finite: float
) -> None:
    observe(engine, "a", BEFORE, 5.0)
    observe(engine, "a", NEWEST, not_finite, not_finite)
    assert newest_day(database, as_of=None, complete=NEWEST) == BEFORE
