"""The as-of day of a run and the metrics rows up to it: which day, which rows, how many.

Reads the metrics table and the staleness of its values. Imports neither Spark nor pandas. Days are
UTC.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import text

from common.errors import ConfigurationError, NotEnoughHistory
from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from database.schema.check import verify_tables
from database.schema.merge_sql import qualified
from database.schema.metrics_table import metrics_table, require_same_metrics_table
from database.schema.table_use import FORECAST_USE
from forecasting.engines.folds import FoldPlan, refit_folds
from forecasting.features.observed_values import is_observed, staleness_join
from forecasting.features.source_queries import LOOK_BACK_DAYS
from forecasting.publishing.actuals import DAY_IS_OVER

_OBSERVED_ROWS = f"""
FROM {{metrics}} m
{staleness_join()}
WHERE {DAY_IS_OVER}
    AND (
        ({is_observed("apy")})
        OR ({is_observed("tvl")})
    )
"""
_NEWEST_DAY = f"""
SELECT max(m.date) AS day
{_OBSERVED_ROWS}
    AND m.date <= :last
"""
_ROW_COUNTS = f"""
SELECT count(*) AS rows, count(DISTINCT m.pool_id) AS pools
{_OBSERVED_ROWS}
    AND m.date BETWEEN :first AND :last
"""


def verify_forecast_tables(settings: Settings) -> None:
    with checked_connection(make_engine(settings)) as connection:
        verify_tables(connection, FORECAST_USE)
        require_same_metrics_table(connection)


def require_over(day: dt.date | None, complete: dt.date) -> None:
    if day is not None and day > complete:
        raise ConfigurationError(
            f"day {day} is not over: the last complete UTC day is {complete}; give that or an"
            " earlier day"
        )


def forecast_as_of_day(settings: Settings, *, as_of: dt.date | None, today: dt.date) -> dt.date:
    """Returns the as-of day of a forecast run.

    Args:
        as_of: requested day; default: the newest day with an observed value.
        today: the current UTC day; the last complete one is the day before.

    Raises:
        NotEnoughHistory: no metrics exist, or the requested day has none.
        ConfigurationError: the requested day is not over, or the metrics were last written to
            another table.
    """
    complete = today - dt.timedelta(days=1)
    require_over(as_of, complete)
    verify_forecast_tables(settings)
    return newest_day(settings, as_of=as_of, complete=complete)


def newest_day(settings: Settings, *, as_of: dt.date | None, complete: dt.date) -> dt.date:
    """Returns the as-of day: the requested one, or the newest with an observed value.

    Args:
        as_of: requested day, or None.
        complete: the last complete UTC day.

    Raises:
        NotEnoughHistory: no day up to it has an observed value, or the requested day has none.
    """
    # also for a requested day: if it has no value, the error names the newest day before it
    newest: dt.date | None = _read(settings, _NEWEST_DAY, {"last": as_of or complete})["day"]
    return _require_day(settings.metrics_table, as_of, newest)


def age_days(as_of: dt.date, today: dt.date) -> int:
    """Returns the days from the as-of day to the last complete UTC day."""
    return (today - as_of).days - 1


def day_summary(as_of: dt.date, age: int, engine: str, horizon: int) -> dict[str, Any]:
    """Returns the entries of a plan's summary that need no model.

    Args:
        as_of: as-of day of the run.
        age: `age_days` of that day.
        engine: name of the forecasting engine.
        horizon: days from the as-of day to the target day.
    """
    return {
        "as_of": as_of.isoformat(),
        "age_days": age,
        "engine": engine,
        "horizon_days": horizon,
        "target_date": (as_of + dt.timedelta(days=horizon)).isoformat(),
    }


def first_read_day(folds: FoldPlan) -> dt.date:
    """Returns the first day whose metrics are read."""
    return folds.first_day - dt.timedelta(days=LOOK_BACK_DAYS)


def training_folds(settings: Settings, as_of: dt.date, horizon: int) -> FoldPlan:
    """Returns the folds of a run that fits a version.

    Args:
        as_of: as-of day of the run.
        horizon: days from the as-of day to the target day.
    """
    return refit_folds(
        as_of,
        horizon=horizon,
        train_days=settings.train_days,
        validation_days=settings.validation_days,
    )


def row_counts(settings: Settings, first: dt.date, last: dt.date) -> tuple[int, int]:
    """Returns the observed pool-days of these days, and their pools."""
    counts = _read(settings, _ROW_COUNTS, {"first": first, "last": last})
    return counts["rows"], counts["pools"]


def _read(settings: Settings, query: str, parameters: dict[str, dt.date]) -> dict[str, Any]:
    """The only row of a query of the metrics."""
    statement = query.format(metrics=qualified(metrics_table(settings.metrics_table)))
    with checked_connection(make_engine(settings)) as connection:
        return dict(connection.execute(text(statement), parameters).mappings().one())


def _require_day(table: str, as_of: dt.date | None, newest: dt.date | None) -> dt.date:
    if newest is None:
        until = f" on or before {as_of}" if as_of else ""
        raise NotEnoughHistory(
            f"{table} has no observed APY or TVL{until}: load history, run"
            " `calculate_metrics`, then forecast"
        )
    if as_of is not None and newest != as_of:
        raise NotEnoughHistory(
            f"as-of day {as_of} has no observed value: the newest day before it that has one is"
            f" {newest}; give that, or run `calculate_metrics`"
        )
    return newest
