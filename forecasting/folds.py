"""Folds in time: which as-of days a model is trained on and which it forecasts. Days are UTC, spans are half-open, and nothing is ever split by row.

A model of origin O knows what was known at the end of day O: its training rows have their target day on or before O, and it forecasts as-of days
from O on. This is rolling-origin evaluation (Tashman 2000) with refits at chosen origins.
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


@dataclass(frozen=True)
class Fold:
    """One fit: origin, the as-of days it is trained on, the as-of days it forecasts."""

    origin: dt.date
    train: DaySpan
    forecast: DaySpan


@dataclass(frozen=True)
class FoldPlan:
    """The fits of one run.

    `tvl` is a forward chain whose forecasts are a feature of APY; `apy` begins later, where that feature exists for enough training days.
    As-of days of `calibration` give the first blend weight and residuals; those of `scored` are the rolling-origin score; the last fold forecasts the
    as-of day itself.
    """

    as_of: dt.date
    horizon: int
    tvl: tuple[Fold, ...]
    apy: tuple[Fold, ...]
    calibration: DaySpan
    scored: DaySpan

    @property
    def first_day(self) -> dt.date:
        """First as-of day a model is trained on; its features look back a further month."""
        return min(fold.train.start for fold in (*self.tvl, *self.apy))

    @property
    def fits(self) -> int:
        return len(self.tvl) + len(self.apy)


COARSE_DAYS = (180, 90)
"""Days before the calibration span at which the coarse TVL folds begin: each fit buys 90 more days of out-of-fold TVL for APY to learn from."""


def plan_folds(as_of: dt.date, *, horizon: int, train_days: int, backtest_days: int, refit_days: int) -> FoldPlan:
    """Origins of a run at `as_of`: the calibration span, a refit each `refit_days` of the scored span, and the as-of day itself.

    The last scored as-of day is `as_of - horizon`: its target is the newest known value.
    """
    scored = DaySpan(as_of - dt.timedelta(days=backtest_days + horizon - 1), as_of - dt.timedelta(days=horizon - 1))
    calibration = DaySpan(scored.start - dt.timedelta(days=backtest_days), scored.start)
    refits = [scored.start + dt.timedelta(days=offset) for offset in range(0, backtest_days, refit_days)]
    origins = [calibration.start, *refits, as_of]
    coarse = [calibration.start - dt.timedelta(days=days) for days in COARSE_DAYS if days < train_days]
    earliest = calibration.start - dt.timedelta(days=train_days)
    tvl, apy = (_folds(chain, horizon, train_days, earliest) for chain in (coarse + origins, origins))
    return FoldPlan(as_of, horizon, tvl, apy, calibration, scored)


def _folds(origins: Sequence[dt.date], horizon: int, train_days: int, earliest: dt.date) -> tuple[Fold, ...]:
    ends = [*origins[1:], origins[-1] + dt.timedelta(days=1)]
    return tuple(
        Fold(origin, _training_span(origin, horizon, train_days, earliest), DaySpan(origin, end)) for origin, end in zip(origins, ends, strict=True)
    )


def _training_span(origin: dt.date, horizon: int, train_days: int, earliest: dt.date) -> DaySpan:
    """As-of days whose target day is on or before the origin, `train_days` of them; coarse folds take what lies in the days read for the others."""
    end = origin - dt.timedelta(days=horizon - 1)
    return DaySpan(max(end - dt.timedelta(days=train_days), earliest), end)
