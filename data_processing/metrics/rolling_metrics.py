"""The rolling metrics of a pool's days: mean, sample standard deviation and change of APY, in
percent.

In: the APY of one pool's dense days as a numpy array, so that positions are calendar days. Out: an
array for each metric. Nothing is filled here and no day is added or dropped. Each window is summed
by itself: running sums would drag the rounding of one spike through all later days.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from data_processing.metrics.daily_grid import Floats

WINDOW_DAYS = (7, 30)

LONGEST_WINDOW_DAYS = max(WINDOW_DAYS)

METRIC_RULES = 2
"""Version of what design section 4 makes of the raw rows: a run whose predecessor had another one
recomputes everything.
"""


def look_back_days(max_fill_days: int) -> int:
    """Days before a day that can change its row: yesterday's longest window, and the carry into
    that window's first day.
    """
    return LONGEST_WINDOW_DAYS + max_fill_days


def reach_days(max_fill_days: int) -> int:
    """Days from a changed snapshot's own on whose rows it can change: its carry, the longest window
    over that, and the change since yesterday.
    """
    return max_fill_days + LONGEST_WINDOW_DAYS + 1


def rolling_metrics(apy: Floats) -> dict[str, Floats]:
    """Seven metrics of each day, percent, NaN where there is none.

    rolling_apy_Nd is the mean and stddev_apy_Nd the sample standard deviation (divisor n - 1, in
    two passes) of the N days that end with the day, over those with a value; the deviation is NaN
    with fewer than two. apy_delta_today_yesterday and stddev_apy_Nd_delta are today minus
    yesterday.
    """
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
    known = ~np.isnan(windows)
    count = known.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, windows, 0.0).sum(axis=1) / count
        squares = np.where(known, windows - mean[:, None], 0.0) ** 2
        deviation = np.sqrt(squares.sum(axis=1) / np.where(count > 1, count - 1, np.nan))
    return mean, deviation


def _change(values: Floats) -> Floats:
    return np.concatenate([[np.nan], values[1:] - values[:-1]])
