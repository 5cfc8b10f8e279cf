"""Computes the rolling metrics of the days of pools: mean, sample standard deviation and change of
APY, in percent.

Reads the APY of their dense days as a numpy array, pool after pool, so that positions are UTC days;
returns one array for each metric. Fills no value.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from data_processing.metrics.daily_grid import Floats, Positions

WINDOW_DAYS = (7, 30)

LONGEST_WINDOW_DAYS = max(WINDOW_DAYS)

PADDING_DAYS = LONGEST_WINDOW_DAYS - 1
"""Unknown days before the first one of each pool, so that no window reaches into another pool."""

WINDOWS_AT_ONCE = 4096
"""Their numbers, a megabyte, stay in the processor's cache."""

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


def rolling_metrics(apy: Floats, pool: Positions, rows: Positions) -> dict[str, Floats]:
    """Compute seven metrics of some days.

    rolling_apy_Nd is the mean and stddev_apy_Nd the sample standard deviation (divisor n - 1, in
    two passes) of the N days that end with the day, over those with a value; the deviation is NaN
    with fewer than two. apy_delta_today_yesterday and stddev_apy_Nd_delta are today minus
    yesterday.

    Args:
        apy: percent, one element for each consecutive day of a pool, pool after pool, NaN if
            unknown.
        pool: position of the pool of each day, ascending.
        rows: positions of the days to return, ascending.

    Returns:
        One array for each metric, one element for each of `rows`, in percent, NaN without a value.
    """
    is_first = np.append(True, pool[1:] != pool[:-1])
    # the other days serve the windows alone; yesterday's deviation is needed for its change
    is_computed = np.zeros(apy.size, dtype=bool)
    is_computed[rows] = True
    is_computed[rows[~is_first[rows]] - 1] = True
    computed = np.flatnonzero(is_computed)
    windows = _longest_windows(apy, pool)
    metrics = {"apy_delta_today_yesterday": _change(apy, rows, is_first)}
    for days in WINDOW_DAYS:
        mean, deviation = np.full((2, apy.size), np.nan)
        for part in np.array_split(computed, computed.size // WINDOWS_AT_ONCE + 1):
            mean[part], deviation[part] = _mean_and_deviation(
                windows[part + PADDING_DAYS * pool[part], LONGEST_WINDOW_DAYS - days :]
            )
        metrics |= {
            f"rolling_apy_{days}d": mean[rows],
            f"stddev_apy_{days}d": deviation[rows],
            f"stddev_apy_{days}d_delta": _change(deviation, rows, is_first),
        }
    return metrics


def _longest_windows(apy: Floats, pool: Positions) -> Floats:
    """Return the window that ends with each day, at the day's position plus PADDING_DAYS for each
    pool before its own.
    """
    # each window is summed by itself: running sums carry the rounding of a spike into later days
    padded = np.full(apy.size + PADDING_DAYS * (pool[-1] + 1), np.nan)
    padded[np.arange(apy.size) + PADDING_DAYS * (pool + 1)] = apy
    return sliding_window_view(padded, LONGEST_WINDOW_DAYS)


def _mean_and_deviation(windows: Floats) -> tuple[Floats, Floats]:
    has_value = ~np.isnan(windows)
    count = has_value.sum(axis=1)
    # a window without a value is 0 / 0, the NaN of an unknown mean
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(has_value, windows, 0.0).sum(axis=1) / count
        squares = np.where(has_value, windows - mean[:, None], 0.0) ** 2
        deviation = np.sqrt(squares.sum(axis=1) / np.where(count > 1, count - 1, np.nan))
    return mean, deviation


def _change(values: Floats, rows: Positions, is_first: npt.NDArray[np.bool_]) -> Floats:
    """Return the change of `values` since yesterday at `rows`, NaN on the first day of a pool."""
    return np.where(is_first[rows], np.nan, values[rows] - values[rows - 1])
