"""Forecast intervals: the model's outer quantiles, scaled by the errors of past forecasts.

Conformalised quantile regression (Romano, Patterson & Candès 2019), with errors as shares of the
half-width, one factor for each tail, and weights that decay with age (Barber, Candès, Ramdas &
Tibshirani 2023). Factors are estimated anew each day.
"""

from __future__ import annotations

import numpy as np

from forecasting.features.targets import Values
from forecasting.publishing.past_forecasts import PastForecasts, decay

HALF_LIFE_DAYS = 20.0
# with fewer past forecasts there is no factor, and no interval is published
MIN_PAST = 200
# scales: an interval has two sides even if the model's quantiles leave no room on one
HALF_WIDTH_FLOOR = 0.02
# weight of the panel's changes where few pools have started lately; with 10 days, coverage and
# pinball loss of cold starts hardly differed
PANEL_DAYS = 20.0


def half_widths(steps: Values, low: Values, high: Values) -> tuple[Values, Values]:
    """Returns the distances of the model's quantiles below and above the published step.

    Args:
        steps: published steps.
        low: lower quantiles of the model.
        high: upper quantiles of the model.

    Returns:
        Two arrays, never under HALF_WIDTH_FLOOR. All values are in scales.
    """
    return np.maximum(steps - low, HALF_WIDTH_FLOOR), np.maximum(high - steps, HALF_WIDTH_FLOOR)


def tail_factors(past: PastForecasts, steps: Values, level: float) -> tuple[float, float]:
    """Computes the factors of the lower and the upper half-width.

    Each is the weighted quantile of past errors, as shares of the half-width, that leaves (1 -
    level) / 2 outside.

    Args:
        past: past forecasts with actual moves.
        steps: steps that the current gate would have published of the past moves, in scales. An
            interval is for what is published today, whatever was published then.
        level: nominal coverage, 0 to 1.

    Returns:
        Two factors, never negative; (nan, nan) with fewer than MIN_PAST past forecasts.
    """
    low, high = half_widths(steps, past.low, past.high)
    below, above = (steps - past.actual_move) / low, (past.actual_move - steps) / high
    has_errors = np.isfinite(below) & np.isfinite(above)
    if has_errors.sum() < MIN_PAST:
        return np.nan, np.nan
    weights, inside = decay(past.age[has_errors], HALF_LIFE_DAYS), (1.0 + level) / 2.0
    lower, upper = (
        max(weighted_quantile(errors[has_errors], weights, inside), 0.0)
        for errors in (below, above)
    )
    return lower, upper


def relative_quantiles(past: PastForecasts, level: float) -> tuple[float, float]:
    """Computes the interval of a pool without a model, from day-to-day changes of the panel.

    Args:
        past: past forecasts with actual moves.
        level: nominal coverage, 0 to 1.

    Returns:
        Outer quantiles of the changes relative to the value's size, at most and at least zero;
        (nan, nan) with fewer than MIN_PAST changes.
    """
    changes = past.change[np.isfinite(past.change)]
    if changes.size < MIN_PAST:
        return np.nan, np.nan
    low, high = np.quantile(changes, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return min(float(low), 0.0), max(float(high), 0.0)


def cold_start_quantiles(past: PastForecasts, level: float) -> tuple[float, float]:
    """Computes the same interval for a pool that has no scale yet.

    Such pools move more than the panel, and their TVL mostly upwards, so earlier cold starts have
    most of the weight.

    Args:
        past: past forecasts with actual moves.
        level: nominal coverage, 0 to 1.

    Returns:
        As `relative_quantiles`.
    """
    has_change, is_cold = np.isfinite(past.change), past.is_cold
    if has_change.sum() < MIN_PAST:
        return np.nan, np.nan
    weights = np.full(has_change.size, PANEL_DAYS / max(np.count_nonzero(has_change & ~is_cold), 1))
    _, day, cold_starts = np.unique(
        past.age[has_change & is_cold], return_inverse=True, return_counts=True
    )
    # n pools of one day count as sqrt(n): pools that start together move partly alike
    weights[has_change & is_cold] = cold_starts[day].astype(float) ** -0.5
    low, high = (
        weighted_quantile(past.change[has_change], weights[has_change], inside)
        for inside in ((1.0 - level) / 2.0, (1.0 + level) / 2.0)
    )
    return min(low, 0.0), max(high, 0.0)


def weighted_quantile(values: Values, weights: Values, level: float) -> float:
    """Returns the smallest value with at least `level` of the weight at or below it."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][min(np.searchsorted(reached, level * reached[-1]), values.size - 1)])
