"""The plan of a forecast run: which as-of day, how old it is, which pools, how many rows and fits,
which model version. No Spark session exists yet.

It reads the metrics table, `yieldspark.value_staleness`, `pools` and the model registry, never
raw tables, and changes nothing.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigurationError, NotEnoughHistory
from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from database.db_utils_spark import execute_sql
from database.schema.check import verify_tables
from database.schema.merge_sql import qualified
from database.schema.metrics_table import metrics_table, require_same_metrics_table
from database.schema.table_use import FORECAST_USE
from forecasting.engines.folds import FoldPlan, night_folds, past_folds, served_folds
from forecasting.features.pool_features import LOOK_BACK_DAYS
from forecasting.publishing.forecast_history import DAY_IS_OVER, known_days
from forecasting.publishing.past_forecasts import PAST_DAYS
from forecasting.publishing.persistence_gate import MIN_DAYS
from forecasting.registry.serving import Serving, serving

WARM_UP_DAYS = PAST_DAYS
"""Days before a backtest whose forecasts are made and not scored."""

_OBSERVED = f"""
FROM {{metrics}} m
LEFT JOIN yieldspark.value_staleness a ON a.pool_id = m.pool_id AND a.date = m.date
WHERE {DAY_IS_OVER}
AND (
    (m.actual_apy IS NOT NULL AND coalesce(a.apy_staleness_days, 0) = 0)
    OR (m.actual_tvl IS NOT NULL AND coalesce(a.tvl_staleness_days, 0) = 0)
)
"""
_NEWEST_DAY = f"SELECT max(m.date) AS day {_OBSERVED} AND m.date <= :last"
_FACTS = (
    f"SELECT count(*) AS rows, count(DISTINCT m.pool_id) AS pools {_OBSERVED} AND m.date BETWEEN"
    " :first AND :last"
)


@dataclass(frozen=True)
class ForecastPlan:
    """A run as data. `age_days` is how far the as-of day lies behind the last complete UTC day;
    `first_day` is the first that is read, and `rows` are observed pool-days from there on. A night
    has `serving`, and `ledger_days`, past target days that gate and interval can learn from: with
    too few, a refit's judged days make up for them.
    """

    as_of: dt.date
    age_days: int
    engine: str
    folds: FoldPlan
    first_day: dt.date
    rows: int
    pools: int
    ledger_days: int = 0
    serving: Serving | None = None

    @property
    def makes_up(self) -> bool:
        """Whether a refit's judged days go into the ledger."""
        return bool(self.folds.apy) and self.ledger_days < MIN_DAYS

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
            "forecast_days": len(self.folds.forecast.days),
            "refits": len(self.folds.apy),
            **(_of_a_night(self.serving, self.ledger_days) if self.serving else {}),
        }


def _of_a_night(serving: Serving, ledger_days: int) -> dict[str, Any]:
    champion, newest = (
        archive.card.version if archive else None for archive in (serving.champion, serving.newest)
    )
    return {
        "ledger_days": ledger_days,
        "champion": champion,
        "newest_version": newest,
        "problems": list(serving.problems),
    }


def plan_forecast(
    settings: Settings, *, as_of: dt.date | None, engine: str, today: dt.date
) -> ForecastPlan:
    """Args: today is the running UTC day, so the last complete one is the day before.

    Raises: NotEnoughHistory where no metric exists, or the wanted as-of day has none (names the
    newest day that has); ConfigurationError for a day that is not over, or where the metrics were
    last written to another table.
    """
    complete = today - dt.timedelta(days=1)
    _require_over(as_of, complete)
    _verify_tables(settings)
    newest = newest_day(settings, as_of=as_of, complete=complete)
    database, horizon = make_engine(settings), settings.horizon_days
    known = known_days(database, engine, horizon=horizon, as_of=newest)
    found = serving(settings, database, engine=engine, as_of=newest)
    fitting = night_folds(
        newest,
        horizon=horizon,
        train_days=settings.train_days,
        judged_days=settings.validation_days,
    )
    folds = (
        fitting
        if _refit_is_due(found, newest, known, settings.refit_days)
        else served_folds(newest, horizon=horizon)
    )
    first_day = first_read_day(fitting)
    return ForecastPlan(
        newest,
        (complete - newest).days,
        engine,
        folds,
        first_day,
        *_facts(settings, first_day, newest),
        known,
        found,
    )


def _refit_is_due(found: Serving, as_of: dt.date, ledger_days: int, refit_days: int) -> bool:
    """A version of this very day is never fitted again: a second run of a night changes nothing."""
    if found.newest_known is None:
        return True
    age = (as_of - found.newest_known).days
    return age >= refit_days or (age > 0 and ledger_days < MIN_DAYS)


def plan_backtest(
    settings: Settings, *, end: dt.date | None, days: int, engine: str, today: dt.date
) -> ForecastPlan:
    """Forecasts of the `days` as-of days whose target days end with `end` (default: the newest day
    with data), and of WARM_UP_DAYS before them, so that gate and interval have a past of their own.
    Raises: as `plan_forecast`.
    """
    complete = today - dt.timedelta(days=1)
    _require_over(end, complete)
    _verify_tables(settings)
    known = newest_day(settings, as_of=end, complete=complete)
    options = {
        "horizon": settings.horizon_days,
        "train_days": settings.train_days,
        "refit_days": settings.refit_days,
    }
    folds = past_folds(known, days=days + WARM_UP_DAYS, **options)
    first_day = first_read_day(folds)
    return ForecastPlan(
        known,
        (complete - known).days,
        engine,
        folds,
        first_day,
        *_facts(settings, first_day, known),
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
    """The as-of day: the one asked for, or the newest with an observed value up to the last
    complete day. Raises: NotEnoughHistory.
    """
    newest: dt.date | None = _read(settings, _NEWEST_DAY, {"last": as_of or complete})["day"]
    return _checked(settings.metrics_table, as_of, newest)


def first_read_day(folds: FoldPlan) -> dt.date:
    """The first day whose metrics are read."""
    return folds.first_day - dt.timedelta(days=LOOK_BACK_DAYS)


def _facts(settings: Settings, first: dt.date, last: dt.date) -> tuple[int, int]:
    """Observed pool-days, and pools, that the models may read."""
    facts = _read(settings, _FACTS, {"first": first, "last": last})
    return facts["rows"], facts["pools"]


def _read(settings: Settings, query: str, parameters: dict[str, dt.date]) -> dict[str, Any]:
    """The one row of a query of the metrics."""
    metrics = qualified(metrics_table(settings.metrics_table))
    return execute_sql(settings, query.format(metrics=metrics), parameters)[0]


def _checked(table: str, as_of: dt.date | None, newest: dt.date | None) -> dt.date:
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
