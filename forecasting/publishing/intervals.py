"""Forecast intervals: the model's own outer quantiles, made as wide as past misses say.

Source: conformalised quantile regression (Romano, Patterson & Candès 2019) with the misses as a
share of each half-width instead of a difference, so that calm and wild pools share one factor, a
factor per tail, and recent misses counting more (Barber, Candès, Ramdas & Tibshirani 2023). Factors
are estimated anew each day.
"""

from __future__ import annotations

import numpy as np

from forecasting.features.targets import Values
from forecasting.publishing.past_forecasts import PastForecasts, decay

HALF_LIFE_DAYS = 20.0
MIN_PAST = 200
"""Past forecasts below which there is no factor, and no interval is published."""
HALF_WIDTH_FLOOR = 0.02
"""Scales: a model that sees no way up still publishes an interval with two sides."""
PANEL_DAYS = 20.0
"""Where few pools have begun lately, the panel stands in for them. With 10 days, coverage and
pinball loss of beginners hardly differed.
"""


def half_widths(steps: Values, low: Values, high: Values) -> tuple[Values, Values]:
    """How far the model's own quantiles lie below and above the published step, never under
    HALF_WIDTH_FLOOR; all in scales.
    """
    return np.maximum(steps - low, HALF_WIDTH_FLOOR), np.maximum(high - steps, HALF_WIDTH_FLOOR)


def tail_factors(past: PastForecasts, steps: Values, level: float) -> tuple[float, float]:
    """Factors of the lower and the upper half-width, never negative; (nan, nan) with fewer than
    MIN_PAST past forecasts.

    Each is the weighted quantile of past misses, as shares of the half-width, that leaves (1 -
    level) / 2 outside.
    Args: steps are what today's gate would have published of the past moves: an interval is for
    what is published today, whatever was then.
    """
    low, high = half_widths(steps, past.low, past.high)
    below, above = (steps - past.actual_move) / low, (past.actual_move - steps) / high
    known = np.isfinite(below) & np.isfinite(above)
    if known.sum() < MIN_PAST:
        return np.nan, np.nan
    weights, inside = decay(past.age[known], HALF_LIFE_DAYS), (1.0 + level) / 2.0
    factors = (
        max(weighted_quantile(misses[known], weights, inside), 0.0) for misses in (below, above)
    )
    return next(factors), next(factors)


def relative_quantiles(past: PastForecasts, level: float) -> tuple[float, float]:
    """Outer quantiles of what followed the as-of day, relative to the value's size: the interval of
    a pool without a model.

    Never above and below zero; (nan, nan) with fewer than MIN_PAST known changes.
    """
    known = past.change[np.isfinite(past.change)]
    if known.size < MIN_PAST:
        return np.nan, np.nan
    low, high = np.quantile(known, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return min(float(low), 0.0), max(float(high), 0.0)


def cold_start_quantiles(past: PastForecasts, level: float) -> tuple[float, float]:
    """The same for a pool that has no scale yet, from what such pools did before: they move more
    than the panel, and their TVL mostly upwards.

    n of them on one day count for sqrt(n), for those that begin together move partly alike; the
    panel's other changes count for PANEL_DAYS days with one each.
    """
    known, is_cold = np.isfinite(past.change), past.is_cold
    if known.sum() < MIN_PAST:
        return np.nan, np.nan
    weights = np.full(known.size, PANEL_DAYS / max(np.count_nonzero(known & ~is_cold), 1))
    _, day, beginners = np.unique(
        past.age[known & is_cold], return_inverse=True, return_counts=True
    )
    weights[known & is_cold] = beginners[day].astype(float) ** -0.5
    low, high = (
        weighted_quantile(past.change[known], weights[known], inside)
        for inside in ((1.0 - level) / 2.0, (1.0 + level) / 2.0)
    )
    return min(low, 0.0), max(high, 0.0)


def weighted_quantile(values: Values, weights: Values, level: float) -> float:
    """The smallest value up to which at least `level` of the weight lies."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][min(np.searchsorted(reached, level * reached[-1]), values.size - 1)])
