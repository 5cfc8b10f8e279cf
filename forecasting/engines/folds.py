"""Folds in time: as-of days that a model is trained on and as-of days that it forecasts.

Days are UTC, spans are half-open, and rows of one day are never split. A model of origin O is
trained on rows whose target day is on or before O, and forecasts as-of days from O on
(rolling-origin evaluation, Tashman 2000).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DaySpan:
    """Days of `[start, end)`."""

    start: dt.date
    end: dt.date

    def __contains__(self, day: dt.date) -> bool:
        return self.start <= day < self.end

    @property
    def days(self) -> list[dt.date]:
        """All days, in order."""
        return [
            self.start + dt.timedelta(days=offset) for offset in range((self.end - self.start).days)
        ]


@dataclass(frozen=True)
class Fold:
    """One fit: origin, as-of days to train on, as-of days to forecast."""

    origin: dt.date
    train: DaySpan
    forecast: DaySpan


@dataclass(frozen=True)
class FoldPlan:
    """The fits of one run.

    Attributes:
        as_of: last day whose values are read.
        horizon: days from an as-of day to its target day.
        tvl: a forward chain, whose forecasts are a feature of APY.
        apy: folds that start where that feature exists for enough training days.
        forecast: as-of days that are forecast out of sample.
    """

    as_of: dt.date
    horizon: int
    tvl: tuple[Fold, ...]
    apy: tuple[Fold, ...]
    forecast: DaySpan

    @property
    def first_day(self) -> dt.date:
        """First as-of day that is trained on or forecast; its features look back further."""
        return min(
            [fold.train.start for fold in (*self.tvl, *self.apy)], default=self.forecast.start
        )


# Days before the first origin at which coarse TVL folds start: each fit gives APY 90 more days of
# out-of-fold TVL forecasts to learn from.
COARSE_DAYS = (270, 180, 90)

# training days of an expanding window: ten years
EXPANDING_DAYS = 3650
ONE_DAY = dt.timedelta(days=1)


def refit_folds(as_of: dt.date, *, horizon: int, train_days: int, validation_days: int) -> FoldPlan:
    """Returns the folds of a forecast run that fits a version.

    Args:
        as_of: the as-of day.
        horizon: days to the target day.
        train_days: training window; 0 for all days (an expanding window).
        validation_days: days from the origin to the as-of day. The version forecasts them and the
            as-of day.
    """
    origin = as_of - dt.timedelta(days=validation_days + horizon - 1)
    return _plan(as_of, [origin], DaySpan(origin, as_of + ONE_DAY), horizon, train_days)


def inference_folds(as_of: dt.date, *, horizon: int) -> FoldPlan:
    """Returns the plan of a run that fits nothing and forecasts the as-of day."""
    return FoldPlan(as_of, horizon, (), (), DaySpan(as_of, as_of + ONE_DAY))


def backtest_folds(
    as_of: dt.date, *, days: int, horizon: int, train_days: int, refit_days: int
) -> FoldPlan:
    """Returns the folds of a backtest.

    Args:
        as_of: last target day.
        days: number of target days up to it.
        horizon: days to the target day.
        train_days: training window; 0 for all days (an expanding window).
        refit_days: days between two origins.
    """
    forecast = DaySpan(
        as_of - dt.timedelta(days=days + horizon - 1), as_of - dt.timedelta(days=horizon - 1)
    )
    return _plan(as_of, forecast.days[::refit_days], forecast, horizon, train_days)


def _plan(
    as_of: dt.date, origins: Sequence[dt.date], forecast: DaySpan, horizon: int, train_days: int
) -> FoldPlan:
    window = train_days or EXPANDING_DAYS
    # an older one would have no training day: none is read before `earliest`
    coarse = [origins[0] - dt.timedelta(days=days) for days in COARSE_DAYS if days < window]
    earliest = origins[0] - dt.timedelta(days=window + horizon - 1)
    tvl, apy = (
        _folds(chain, forecast.end, horizon, window, earliest)
        for chain in ([*coarse, *origins], origins)
    )
    return FoldPlan(as_of, horizon, tvl, apy, forecast)


def _folds(
    origins: Sequence[dt.date], end: dt.date, horizon: int, train_days: int, earliest: dt.date
) -> tuple[Fold, ...]:
    ends = [*origins[1:], end]
    return tuple(
        Fold(origin, _training_span(origin, horizon, train_days, earliest), DaySpan(origin, end))
        for origin, end in zip(origins, ends, strict=True)
    )


def _training_span(origin: dt.date, horizon: int, train_days: int, earliest: dt.date) -> DaySpan:
    """The `train_days` as-of days whose target day is on or before the origin."""
    end = origin - dt.timedelta(days=horizon - 1)
    # coarse folds train on the days that are read for the others
    return DaySpan(max(end - dt.timedelta(days=train_days), earliest), end)
