"""The plan of a forecast run or a backtest: as-of day, model versions, folds and row counts.

Reads the metrics table, the staleness of its values, `pools` and the model registry; never raw
tables. Writes nothing and starts no Spark session.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import text

from common.errors import ConfigurationError, NotEnoughHistory
from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from database.schema.check import verify_tables
from database.schema.merge_sql import qualified
from database.schema.metrics_table import metrics_table, require_same_metrics_table
from database.schema.table_use import FORECAST_USE
from forecasting.engines.folds import FoldPlan, backtest_folds, inference_folds, refit_folds
from forecasting.features.observed_values import is_observed, staleness_join
from forecasting.features.pool_features import LOOK_BACK_DAYS
from forecasting.publishing.forecast_history import DAY_IS_OVER, history_days
from forecasting.publishing.past_forecasts import PAST_DAYS
from forecasting.publishing.persistence_gate import MIN_DAYS
from forecasting.registry.serving import ServingVersions, serving_versions

# days before a backtest's first scored day: their forecasts give gate and interval a history
WARM_UP_DAYS = PAST_DAYS

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


@dataclass(frozen=True)
class ForecastPlan:
    """A run as data.

    Attributes:
        as_of: last UTC day whose values are used.
        age_days: days from the as-of day to the last complete UTC day.
        engine: name of the forecasting engine.
        folds: days to train on and to forecast.
        refits: the run fits models.
        first_day: first day of metrics that is read.
        rows: observed pool-days from `first_day` to the as-of day.
        pools: pools with such a pool-day.
        history_days: past target days that gate and interval can learn from; 0 for a backtest.
        serving: model versions of a forecast run; None for a backtest.
    """

    as_of: dt.date
    age_days: int
    engine: str
    folds: FoldPlan
    refits: bool
    first_day: dt.date
    rows: int
    pools: int
    history_days: int = 0
    serving: ServingVersions | None = None

    @property
    def backfills_history(self) -> bool:
        """Whether a refit's validation days extend a forecast history that is too short."""
        return self.refits and self.history_days < MIN_DAYS

    def summary(self) -> dict[str, Any]:
        """Returns the plan as `--dry-run` and `--json` print it."""
        return {
            "as_of": self.as_of.isoformat(),
            "age_days": self.age_days,
            "engine": self.engine,
            "horizon_days": self.folds.horizon,
            "target_date": (self.as_of + dt.timedelta(days=self.folds.horizon)).isoformat(),
            "pools": self.pools,
            "rows": self.rows,
            "first_day": self.first_day.isoformat(),
            "forecast_days": len(self.folds.forecast.days),
            "refits": len(self.folds.apy),
            **(_serving_summary(self.serving, self.history_days) if self.serving else {}),
        }


def _serving_summary(serving: ServingVersions, history_days: int) -> dict[str, Any]:
    champion, newest = (
        archive.card.version if archive else None for archive in (serving.champion, serving.newest)
    )
    return {
        "history_days": history_days,
        "champion": champion,
        "newest_version": newest,
        "problems": list(serving.problems),
    }


def plan_forecast(
    settings: Settings, *, as_of: dt.date | None, engine: str, today: dt.date
) -> ForecastPlan:
    """Plans a forecast run.

    Args:
        as_of: requested as-of day; default: the newest day with an observed value.
        engine: name of the forecasting engine.
        today: the current UTC day; the last complete one is the day before.

    Raises:
        NotEnoughHistory: no metrics exist, or the requested day has none.
        ConfigurationError: the requested day is not over, or the metrics were last written to
            another table.
    """
    complete = today - dt.timedelta(days=1)
    _require_over(as_of, complete)
    _verify_tables(settings)
    newest = newest_day(settings, as_of=as_of, complete=complete)
    database, horizon = make_engine(settings), settings.horizon_days
    days = history_days(database, engine, horizon=horizon, as_of=newest)
    serving = serving_versions(settings, database, engine=engine, as_of=newest)
    fitting = refit_folds(
        newest,
        horizon=horizon,
        train_days=settings.train_days,
        validation_days=settings.validation_days,
    )
    refits = _refit_is_due(serving, newest, days, settings.refit_days)
    # exponential means never forget: a run that fits nothing reads as far back as one that does,
    # so both see the same features
    first_day = first_read_day(fitting)
    rows, pools = _row_counts(settings, first_day, newest)
    return ForecastPlan(
        as_of=newest,
        age_days=(complete - newest).days,
        engine=engine,
        folds=fitting if refits else inference_folds(newest, horizon=horizon),
        refits=refits,
        first_day=first_day,
        rows=rows,
        pools=pools,
        history_days=days,
        serving=serving,
    )


def _refit_is_due(
    serving: ServingVersions, as_of: dt.date, history_days: int, refit_days: int
) -> bool:
    if serving.newest_as_of is None:
        return True
    age = (as_of - serving.newest_as_of).days
    # a version of this as-of day is never fitted again: a second run of a day changes nothing
    return age >= refit_days or (age > 0 and history_days < MIN_DAYS)


def plan_backtest(
    settings: Settings, *, end: dt.date | None, days: int, engine: str, today: dt.date
) -> ForecastPlan:
    """Plans a backtest of `days` target days and of WARM_UP_DAYS days before them.

    Args:
        end: last target day; default: the newest day with an observed value.
        days: number of target days that are scored.
        engine: name of the forecasting engine.
        today: the current UTC day; the last complete one is the day before.

    Raises:
        NotEnoughHistory: no metrics exist, or the last day has none.
        ConfigurationError: the last day is not over, or the metrics were last written to another
            table.
    """
    complete = today - dt.timedelta(days=1)
    _require_over(end, complete)
    _verify_tables(settings)
    newest = newest_day(settings, as_of=end, complete=complete)
    folds = backtest_folds(
        newest,
        days=days + WARM_UP_DAYS,
        horizon=settings.horizon_days,
        train_days=settings.train_days,
        refit_days=settings.refit_days,
    )
    first_day = first_read_day(folds)
    rows, pools = _row_counts(settings, first_day, newest)
    return ForecastPlan(
        as_of=newest,
        age_days=(complete - newest).days,
        engine=engine,
        folds=folds,
        refits=True,
        first_day=first_day,
        rows=rows,
        pools=pools,
    )


def _verify_tables(settings: Settings) -> None:
    with checked_connection(make_engine(settings)) as connection:
        verify_tables(connection, FORECAST_USE)
        require_same_metrics_table(connection)


def _require_over(day: dt.date | None, complete: dt.date) -> None:
    if day is not None and day > complete:
        raise ConfigurationError(
            f"day {day} is not over: the last complete UTC day is {complete}; give that or an"
            " earlier day"
        )


def newest_day(settings: Settings, *, as_of: dt.date | None, complete: dt.date) -> dt.date:
    """Returns the as-of day: the requested one, or the newest with an observed value.

    Args:
        as_of: requested day, or None.
        complete: the last complete UTC day.

    Raises:
        NotEnoughHistory: no day up to it has an observed value, or the requested day has none.
    """
    newest: dt.date | None = _read(settings, _NEWEST_DAY, {"last": as_of or complete})["day"]
    return _require_day(settings.metrics_table, as_of, newest)


def first_read_day(folds: FoldPlan) -> dt.date:
    """Returns the first day whose metrics are read."""
    return folds.first_day - dt.timedelta(days=LOOK_BACK_DAYS)


def _row_counts(settings: Settings, first: dt.date, last: dt.date) -> tuple[int, int]:
    """Observed pool-days of these days, and their pools."""
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


class AsOfOption(Protocol):
    """The option of a run that its plan depends on: the last day that it may use, UTC."""

    @property
    def as_of(self) -> dt.date | None: ...


def rows_to_read(settings: Settings, options: AsOfOption) -> int:
    """Returns the number of metrics rows that a run will read; its plan needs no Spark."""
    today = dt.datetime.now(dt.UTC).date()
    return plan_forecast(settings, as_of=options.as_of, engine=settings.engine, today=today).rows
