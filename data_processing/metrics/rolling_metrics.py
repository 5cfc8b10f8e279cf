"""Computes the rolling metrics of a pool's days: mean, sample standard deviation and change of APY,
in percent.

Reads the APY of one pool's dense days as a numpy array, so that positions are UTC days; returns one
array for each metric. Fills no value, adds and drops no day.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from data_processing.metrics.daily_grid import Floats

WINDOW_DAYS = (7, 30)

LONGEST_WINDOW_DAYS = max(WINDOW_DAYS)

METRIC_RULES = 2
"""Version of the metric definition. A run whose predecessor used another version recomputes every
day.
"""


def look_back_days(max_fill_days: int) -> int:
    """Return how many days before a day can change its row.

    Yesterday's longest window reaches back that far, and a value may be carried into its first day.

    Args:
        max_fill_days: missing days over which a value is carried.
    """
    return LONGEST_WINDOW_DAYS + max_fill_days


def affected_days_after(max_fill_days: int) -> int:
    """Return for how many days, from its own on, a changed snapshot can change rows.

    The value is carried, the longest window covers the carried days, and the next day's change
    compares with them.

    Args:
        max_fill_days: missing days over which a value is carried.
    """
    return max_fill_days + LONGEST_WINDOW_DAYS + 1


def rolling_metrics(apy: Floats) -> dict[str, Floats]:
    """Compute seven metrics of each day.

    rolling_apy_Nd is the mean and stddev_apy_Nd the sample standard deviation (divisor n - 1, in
    two passes) of the N days that end with the day, over those with a value; the deviation is NaN
    with fewer than two. apy_delta_today_yesterday and stddev_apy_Nd_delta are today minus
    yesterday.

    Args:
        apy: percent, one element for each consecutive day, NaN if unknown.

    Returns:
        One array for each metric, in percent, NaN without a value.
    """
    # each window is summed by itself: running sums carry the rounding of a spike into later days
    longest = sliding_window_view(
        np.concatenate([np.full(LONGEST_WINDOW_DAYS - 1, np.nan), apy]), LONGEST_WINDOW_DAYS
    )
    metrics = {"apy_delta_today_yesterday": _change(apy)}
    for days in WINDOW_DAYS:
        mean, deviation = _mean_and_deviation(longest[:, LONGEST_WINDOW_DAYS - days :])
        metrics |= {
            f"rolling_apy_{days}d": mean,
            f"stddev_apy_{days}d": deviation,
            f"stddev_apy_{days}d_delta": _change(deviation),
        }
    return metrics


def _mean_and_deviation(windows: Floats) -> tuple[Floats, Floats]:
    has_value = ~np.isnan(windows)
    count = has_value.sum(axis=1)
    # a window without a value is 0 / 0, the NaN of an unknown mean
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(has_value, windows, 0.0).sum(axis=1) / count
        squares = np.where(has_value, windows - mean[:, None], 0.0) ** 2
        deviation = np.sqrt(squares.sum(axis=1) / np.where(count > 1, count - 1, np.nan))
    return mean, deviation


def _change(values: Floats) -> Floats:
    return np.concatenate([[np.nan], values[1:] - values[:-1]])
