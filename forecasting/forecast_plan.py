"""The plan of a forecast run: which as-of day, how old it is, which pools, how many rows and fits. SQL only, before any Spark session exists.

It reads `pool_daily_metrics`, `yieldspark.observation_age` and `pools`, never raw tables, and changes nothing.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from config_spark import Settings
from database.connection import checked_connection, make_engine
from database.db_utils_spark import execute_sql
from database.schema_check import verify_tables
from database.tables import pool_daily_metrics, pools
from forecasting.folds import FoldPlan, plan_folds
from product_errors import ConfigurationError, NotEnoughHistory

FEATURE_LOOK_BACK_DAYS = 31

OBSERVED = """
FROM pool_daily_metrics m LEFT JOIN yieldspark.observation_age a ON a.pool_id = m.pool_id AND a.date = m.date
WHERE ((m.actual_apy IS NOT NULL AND coalesce(a.apy_age_days, 0) = 0) OR (m.actual_tvl IS NOT NULL AND coalesce(a.tvl_age_days, 0) = 0))
"""
NEWEST_DAY = f"SELECT max(m.date) AS day {OBSERVED} AND m.date <= :last"
FACTS = f"SELECT count(*) AS rows, count(DISTINCT m.pool_id) AS pools {OBSERVED} AND m.date BETWEEN :first AND :last"


@dataclass(frozen=True)
class ForecastPlan:
    """A run as data. `age_days` is how far the as-of day lies behind the last complete UTC day; `rows` are observed pool-days the models may read."""

    as_of: dt.date
    age_days: int
    engine: str
    folds: FoldPlan
    first_day: dt.date
    rows: int
    pools: int

    def document(self) -> dict[str, Any]:
        """What `--dry-run` prints."""
        return {
            "as_of": self.as_of.isoformat(),
            "age_days": self.age_days,
            "engine": self.engine,
            "horizon_days": self.folds.horizon,
            "target_date": (self.as_of + dt.timedelta(days=self.folds.horizon)).isoformat(),
            "pools": self.pools,
            "rows": self.rows,
            "first_day": self.first_day.isoformat(),
            "fits": self.folds.fits,
            "scored_days": (self.folds.scored.end - self.folds.scored.start).days,
        }


def plan_forecast(settings: Settings, *, as_of: dt.date | None, engine: str, today: dt.date) -> ForecastPlan:
    """Args: today is the running UTC day, so the last complete one is the day before.

    Raises: NotEnoughHistory where no metric exists, or the wanted as-of day has none (names the newest day that has);
    ConfigurationError for a day that is not over.
    """
    complete = today - dt.timedelta(days=1)
    if as_of is not None and as_of > complete:
        raise ConfigurationError(f"as-of day {as_of} is not over: the last complete UTC day is {complete}; give that or an earlier day")
    with checked_connection(make_engine(settings)) as connection:
        verify_tables(connection, (pools, pool_daily_metrics))
    newest = execute_sql(settings, NEWEST_DAY, {"last": as_of or complete})[0]["day"]
    _check_day(as_of, newest)
    folds = plan_folds(
        newest,
        horizon=settings.horizon_days,
        train_days=settings.train_days,
        backtest_days=settings.backtest_days,
        refit_days=settings.refit_days,
    )
    first_day = folds.first_day - dt.timedelta(days=FEATURE_LOOK_BACK_DAYS)
    facts = execute_sql(settings, FACTS, {"first": first_day, "last": newest})[0]
    return ForecastPlan(newest, (complete - newest).days, engine, folds, first_day, facts["rows"], facts["pools"])


def _check_day(as_of: dt.date | None, newest: dt.date | None) -> None:
    if newest is None:
        until = f" on or before {as_of}" if as_of else ""
        raise NotEnoughHistory(f"pool_daily_metrics has no observed APY or TVL{until}: load history, run `calculate_metrics`, then forecast")
    if as_of is not None and newest != as_of:
        raise NotEnoughHistory(
            f"as-of day {as_of} has no observed value: the newest day before it that has one is {newest}; give that, or run `calculate_metrics`"
        )
