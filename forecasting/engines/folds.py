"""Folds in time: which as-of days a model is trained on and which it forecasts. Days are UTC, spans
are half-open, and nothing is ever split by row.

A model of origin O knows what was known at the end of day O: its training rows have their target
day on or before O, and it forecasts as-of days from O on. This is rolling-origin evaluation
(Tashman 2000) with refits at chosen origins.
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
        return [
            self.start + dt.timedelta(days=offset) for offset in range((self.end - self.start).days)
        ]


@dataclass(frozen=True)
class Fold:
    """One fit: origin, the as-of days it is trained on, the as-of days it forecasts."""

    origin: dt.date
    train: DaySpan
    forecast: DaySpan


@dataclass(frozen=True)
class FoldPlan:
    """The fits of one run, and the as-of days that they forecast out of sample; nothing after
    `known` is read.

    `tvl` is a forward chain whose forecasts are a feature of APY; `apy` begins later, where that
    feature exists for enough training days.
    """

    known: dt.date
    horizon: int
    tvl: tuple[Fold, ...]
    apy: tuple[Fold, ...]
    forecast: DaySpan

    @property
    def first_day(self) -> dt.date:
        """First as-of day a model is trained on or forecasts; its features look back further."""
        return min(
            [fold.train.start for fold in (*self.tvl, *self.apy)], default=self.forecast.start
        )

    @property
    def fits(self) -> int:
        return len(self.tvl) + len(self.apy)


COARSE_DAYS = (270, 180, 90)
"""Days before the first origin at which the coarse TVL folds begin: each fit buys 90 more days of
out-of-fold TVL for APY to learn from.
"""

EXPANDING_DAYS = 3650
ONE_DAY = dt.timedelta(days=1)


def refit_folds(as_of: dt.date, *, horizon: int, train_days: int, validation_days: int) -> FoldPlan:
    """One origin `validation_days` before the as-of day, which forecasts what has come true since, and
    the as-of day.

    `train_days` 0 trains on all there is (an expanding window).
    """
    origin = as_of - dt.timedelta(days=validation_days + horizon - 1)
    return _plan(as_of, [origin], DaySpan(origin, as_of + ONE_DAY), horizon, train_days)


def inference_folds(as_of: dt.date, *, horizon: int) -> FoldPlan:
    """Nothing is fitted: the as-of day is forecast by a model there is."""
    return FoldPlan(as_of, horizon, (), (), DaySpan(as_of, as_of + ONE_DAY))


def backtest_folds(
    known: dt.date, *, days: int, horizon: int, train_days: int, refit_days: int
) -> FoldPlan:
    """An origin each `refit_days` of the `days` as-of days whose target days end with `known`."""
    forecast = DaySpan(
        known - dt.timedelta(days=days + horizon - 1), known - dt.timedelta(days=horizon - 1)
    )
    return _plan(known, forecast.days[::refit_days], forecast, horizon, train_days)


def _plan(
    known: dt.date, origins: Sequence[dt.date], forecast: DaySpan, horizon: int, train_days: int
) -> FoldPlan:
    window = train_days or EXPANDING_DAYS
    coarse = [origins[0] - dt.timedelta(days=days) for days in COARSE_DAYS if days < window]
    earliest = origins[0] - dt.timedelta(days=window + horizon - 1)
    tvl, apy = (
        _folds(chain, forecast.end, horizon, window, earliest)
        for chain in ([*coarse, *origins], origins)
    )
    return FoldPlan(known, horizon, tvl, apy, forecast)


def _folds(
    origins: Sequence[dt.date], end: dt.date, horizon: int, train_days: int, earliest: dt.date
) -> tuple[Fold, ...]:
    ends = [*origins[1:], end]
    return tuple(
        Fold(origin, _training_span(origin, horizon, train_days, earliest), DaySpan(origin, end))
        for origin, end in zip(origins, ends, strict=True)
    )


def _training_span(origin: dt.date, horizon: int, train_days: int, earliest: dt.date) -> DaySpan:
    """As-of days whose target day is on or before the origin, `train_days` of them; coarse folds
    take what lies in the days read for the others.
    """
    end = origin - dt.timedelta(days=horizon - 1)
    return DaySpan(max(end - dt.timedelta(days=train_days), earliest), end)
