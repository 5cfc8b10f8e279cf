"""The plan of a forecast run or a backtest: as-of day, model versions, folds and row counts.

Reads the metrics table, the staleness of its values, `pools` and the model registry; never raw
tables. Writes nothing and starts no Spark session.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from common.horizons import NEXT_DAY
from config_spark import Settings
from database.connections.engine import make_engine
from forecasting.engines.folds import FoldPlan, backtest_folds, inference_folds
from forecasting.executors.choose import executor_of_engine
from forecasting.publishing.history_days import history_days
from forecasting.publishing.history_window import MIN_DAYS, PAST_DAYS
from forecasting.registry.serving import ServingVersions, serving_versions
from forecasting.run.as_of_day import (
    age_days,
    day_summary,
    first_read_day,
    forecast_as_of_day,
    newest_day,
    require_over,
    row_counts,
    training_folds,
    verify_forecast_tables,
)
from forecasting.run.changes import Changes
from forecasting.run.transfer import TransferChoice, transfer_choice
from spark.executor_choice import ExecutorChoice

# days before a backtest's first scored day: their forecasts give gate and interval a history
WARM_UP_DAYS = PAST_DAYS


@dataclass(frozen=True)
class HorizonPlan:
    """The part of a run that forecasts one horizon; that of a backtest has no model versions.

    Attributes:
        as_of: last UTC day whose values are used.
        age_days: days from the as-of day to the last complete UTC day.
        engine: name of the forecasting engine.
        folds: days to train on and to forecast.
        refits: the run fits models.
        first_day: first day of metrics that is read.
        rows: observed pool-days from `first_day` to the as-of day.
        pools: pools with such a pool-day.
        executor: what computes the run.
        history_days: past target days that gate and interval can learn from; 0 for a backtest.
        serving: model versions of a forecast run; None for a backtest.
        transfer: whether the fits learn from the transfer panel; None without a fit.
    """

    as_of: dt.date
    age_days: int
    engine: str
    folds: FoldPlan
    refits: bool
    first_day: dt.date
    rows: int
    pools: int
    executor: ExecutorChoice
    history_days: int = 0
    serving: ServingVersions | None = None
    transfer: TransferChoice | None = None

    @property
    def horizon(self) -> int:
        """Days from the as-of day to the target day."""
        return self.folds.horizon

    @property
    def transfers(self) -> bool:
        """Whether the fits learn from the transfer panel."""
        return self.transfer is not None and self.transfer.takes_part

    @property
    def backfills_history(self) -> bool:
        """Whether a refit's validation days extend a forecast history that is too short."""
        return self.refits and self.history_days < MIN_DAYS

    @property
    def refit_reason(self) -> str | None:
        """Why a forecast run fits a version; None if it does not."""
        if not self.refits or not self.serving:
            return None
        newest = self.serving.newest_as_of
        version = f"the newest model version is of {newest}" if newest else "no model version"
        of_horizon = "" if self.horizon == NEXT_DAY else f" at {self.horizon} days"
        return f"a refit is due{of_horizon}: {version}"

    def summary(self) -> dict[str, Any]:
        """Returns the plan as `--dry-run` and `--json` print it."""
        return {
            **day_summary(self.as_of, self.age_days, self.engine, self.horizon),
            "pools": self.pools,
            "rows": self.rows,
            "first_day": self.first_day.isoformat(),
            "forecast_days": len(self.folds.forecast.days),
            "refits": len(self.folds.apy),
            "executor": self.executor.name,
            "executor_reason": self.executor.reason,
            **(self.transfer.summary() if self.transfer else {}),
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


@dataclass(frozen=True)
class RunPlan:
    """A forecast run or a backtest as data.

    Attributes:
        horizons: the plans of its horizons, the shortest first; at least one. They share as-of
            day, engine and executor.
    """

    horizons: tuple[HorizonPlan, ...]

    @property
    def as_of(self) -> dt.date:
        """Last UTC day whose values are used."""
        return self.horizons[0].as_of

    @property
    def engine(self) -> str:
        """Name of the forecasting engine."""
        return self.horizons[0].engine

    @property
    def executor(self) -> ExecutorChoice:
        """What computes the run."""
        return self.horizons[0].executor

    @property
    def rows(self) -> int:
        """Observed pool-days of the horizon that reads the most."""
        return max(plan.rows for plan in self.horizons)

    def summary(self, changes: Changes | None = None) -> dict[str, Any]:
        """Returns the plan as `--dry-run` and `--json` print it.

        Args:
            changes: why a forecast run has work.

        Returns:
            The shortest horizon's plan; `further_horizons` has those of the others, if there are
            any.
        """
        reasons = [plan.refit_reason for plan in self.horizons if plan.refit_reason]
        if changes and reasons:
            changes = replace(changes, reasons=(*changes.reasons, *reasons))
        first, *others = (plan.summary() for plan in self.horizons)
        return {
            **first,
            **({"further_horizons": others} if others else {}),
            **(changes.summary() if changes else {}),
        }


def plan_forecast(
    settings: Settings, *, as_of: dt.date, engine: str, today: dt.date, prefers_spark: bool
) -> RunPlan:
    """Plans a forecast run of all HORIZONS.

    Args:
        as_of: as-of day, from `forecast_as_of_day`.
        engine: name of the forecasting engine.
        today: the current UTC day; the last complete one is the day before.
        prefers_spark: whether EXECUTOR=auto is Spark, whatever the number of rows.
    """
    database = make_engine(settings)
    plans = []
    for horizon in settings.horizons:
        days = history_days(database, engine, horizon=horizon, as_of=as_of)
        serving = serving_versions(settings, database, engine=engine, horizon=horizon, as_of=as_of)
        fitting = training_folds(settings, as_of, horizon)
        refits = refit_is_due(serving.newest_as_of, as_of, days, settings.refit_days)
        plan = _planned(
            settings,
            fitting if refits else inference_folds(as_of, horizon=horizon),
            # exponential means never forget: a run that fits nothing reads as far back as one that
            # does, so both see the same features
            first_day=first_read_day(fitting),
            as_of=as_of,
            engine=engine,
            today=today,
            prefers_spark=prefers_spark,
        )
        plans.append(replace(plan, refits=refits, history_days=days, serving=serving))
    return _with_one_executor(plans)


def _planned(
    settings: Settings,
    folds: FoldPlan,
    *,
    first_day: dt.date,
    as_of: dt.date,
    engine: str,
    today: dt.date,
    prefers_spark: bool,
) -> HorizonPlan:
    """The plan of a run that fits models, with the rows it reads and the executor they choose."""
    rows, pools = row_counts(settings, first_day, as_of)
    return HorizonPlan(
        as_of=as_of,
        age_days=age_days(as_of, today),
        engine=engine,
        folds=folds,
        refits=True,
        first_day=first_day,
        rows=rows,
        pools=pools,
        executor=executor_of_engine(settings, engine, rows, prefers_spark=prefers_spark),
        transfer=transfer_choice(settings, pools, folds.apy[-1].train.end) if folds.apy else None,
    )


def _with_one_executor(plans: Sequence[HorizonPlan]) -> RunPlan:
    """The run of these horizons; the one that reads the most chooses the executor of all."""
    # the horizons share one start: a session for the largest serves the others
    executor = max(plans, key=lambda plan: plan.rows).executor
    return RunPlan(tuple(replace(plan, executor=executor) for plan in plans))


def refit_is_due(
    newest_as_of: dt.date | None, as_of: dt.date, history_days: int, refit_days: int
) -> bool:
    """Returns whether a run of this as-of day fits a version.

    Args:
        newest_as_of: as-of day of the run that fitted the newest usable version; None without one.
        as_of: as-of day of the run.
        history_days: past target days that gate and interval can learn from.
        refit_days: days between fits.
    """
    if newest_as_of is None:
        return True
    age = (as_of - newest_as_of).days
    # a version of this as-of day is never fitted again: a second run of a day changes nothing
    return age >= refit_days or (age > 0 and history_days < MIN_DAYS)


def plan_backtest(
    settings: Settings,
    *,
    end: dt.date | None,
    days: int,
    engine: str,
    horizons: Sequence[int],
    today: dt.date,
) -> RunPlan:
    """Plans a backtest of `days` target days and of WARM_UP_DAYS days before them.

    Args:
        end: last target day; default: the newest day with an observed value.
        days: number of target days that are scored.
        engine: name of the forecasting engine.
        horizons: days from an as-of day to its target day, the shortest first.
        today: the current UTC day; the last complete one is the day before.

    Raises:
        NotEnoughHistory: no metrics exist, or the last day has none.
        ConfigurationError: the last day is not over, or the metrics were last written to another
            table.
    """
    complete = today - dt.timedelta(days=1)
    require_over(end, complete)
    verify_forecast_tables(settings)
    newest = newest_day(settings, as_of=end, complete=complete)
    plans = []
    for horizon in horizons:
        folds = backtest_folds(
            newest,
            days=days + WARM_UP_DAYS,
            horizon=horizon,
            train_days=settings.train_days,
            refit_days=settings.refit_days,
        )
        plans.append(
            _planned(
                settings,
                folds,
                first_day=first_read_day(folds),
                as_of=newest,
                engine=engine,
                today=today,
                prefers_spark=False,
            )
        )
    return _with_one_executor(plans)


class AsOfOption(Protocol):
    """The option of a run that its plan depends on: the last day that it may use, UTC."""

    @property
    def as_of(self) -> dt.date | None: ...


def rows_to_read(settings: Settings, options: AsOfOption) -> int:
    """Returns the number of metrics rows that a run will read; its plan needs no Spark."""
    today = settings.now().date()
    as_of = forecast_as_of_day(settings, as_of=options.as_of, today=today)
    plan = plan_forecast(
        settings, as_of=as_of, engine=settings.engine, today=today, prefers_spark=True
    )
    return plan.rows
