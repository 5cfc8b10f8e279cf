"""Forecast intervals: the model's own outer quantiles, made as wide as past misses say.

Source: conformalised quantile regression (Romano, Patterson & Candès 2019) with the misses as a share of each half-width instead of a difference, so
that calm and wild pools share one factor, a factor per tail, and recent misses counting more (Barber, Candès, Ramdas & Tibshirani 2023). Factors are
estimated anew each day.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from forecasting.past_forecasts import PastForecasts, decay
from forecasting.targets import Target, Values

HALF_LIFE_DAYS = 20.0
MIN_PAST = 200
"""Past forecasts below which there is no factor, and no interval is published."""
HALF_WIDTH_FLOOR = 0.02
"""Scales: a model that sees no way up still publishes an interval with two sides."""


def half_widths(steps: Values, low: Values, high: Values) -> tuple[Values, Values]:
    """How far the model's own quantiles lie below and above the published step, never under HALF_WIDTH_FLOOR; all in scales."""
    return np.maximum(steps - low, HALF_WIDTH_FLOOR), np.maximum(high - steps, HALF_WIDTH_FLOOR)


def tail_factors(past: PastForecasts, steps: Values, level: float) -> tuple[float, float]:
    """Factors of the lower and the upper half-width, never negative; (nan, nan) with fewer than MIN_PAST past forecasts.

    Each is the weighted quantile of past misses, as shares of the half-width, that leaves (1 - level) / 2 outside.
    Args: steps are what today's gate would have published of the past moves: an interval is for what is published today, whatever was then.
    """
    low, high = half_widths(steps, past.low, past.high)
    below, above = (steps - past.came_true) / low, (past.came_true - steps) / high
    known = np.isfinite(below) & np.isfinite(above)
    if known.sum() < MIN_PAST:
        return np.nan, np.nan
    weights, inside = decay(past.age[known], HALF_LIFE_DAYS), (1.0 + level) / 2.0
    factors = (max(weighted_quantile(misses[known], weights, inside), 0.0) for misses in (below, above))
    return next(factors), next(factors)


def relative_quantiles(target: Target, past: pd.DataFrame, level: float) -> tuple[float, float]:
    """Outer quantiles of what followed the as-of day, relative to the value's size: the interval of a pool that has no scale of its own.

    Args: past has now and next in values. Never above and below zero; (nan, nan) with fewer than MIN_PAST known changes.
    """
    now, after = (past[name].to_numpy(float) for name in ("now", "next"))
    changes = (target.level(after) - target.level(now)) / target.size(now)
    known = changes[np.isfinite(changes)]
    if known.size < MIN_PAST:
        return np.nan, np.nan
    low, high = np.quantile(known, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return min(float(low), 0.0), max(float(high), 0.0)


def weighted_quantile(values: Values, weights: Values, level: float) -> float:
    """The smallest value up to which at least `level` of the weight lies."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][min(np.searchsorted(reached, level * reached[-1]), values.size - 1)])
