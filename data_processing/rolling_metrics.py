"""The rolling metrics of a pool's days.

In: the dense daily grid, so that rows are calendar days. Out: its rows with mean, sample standard deviation and change of APY, in percent.
Nothing is filled here and no day is added or dropped.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

WINDOW_DAYS = (7, 30)

LONGEST_WINDOW_DAYS = max(WINDOW_DAYS)

METRIC_RULES = 1
"""Version of what design section 4 makes of the raw rows: a run whose predecessor had another one recomputes everything."""


def look_back_days(max_fill_days: int) -> int:
    """Days before a day that can change its row: yesterday's longest window, and the carry into that window's first day."""
    return LONGEST_WINDOW_DAYS + max_fill_days


def reach_days(max_fill_days: int) -> int:
    """Days from a changed snapshot's own on whose rows it can change: its carry, the longest window over that, and the change since yesterday."""
    return max_fill_days + LONGEST_WINDOW_DAYS + 1


def rolling_metrics(grid: DataFrame) -> DataFrame:
    """`grid` (pool_id, date, actual_apy, ...; one row for each calendar day of a pool) with seven columns, double, percent.

    rolling_apy_Nd is the mean and stddev_apy_Nd the sample standard deviation of the N days that end with the row's, over the days with a value;
    the deviation is NULL with fewer than two. apy_delta_today_yesterday and stddev_apy_Nd_delta are today minus yesterday, NULL where either is NULL.
    """
    by_day = Window.partitionBy("pool_id").orderBy("date")
    windows = {days: by_day.rowsBetween(1 - days, Window.currentRow) for days in WINDOW_DAYS}
    levels = grid.select(
        "*",
        *(F.avg("actual_apy").over(window).alias(f"rolling_apy_{days}d") for days, window in windows.items()),
        *(F.stddev_samp("actual_apy").over(window).alias(f"stddev_apy_{days}d") for days, window in windows.items()),
        (F.col("actual_apy") - F.lag("actual_apy").over(by_day)).alias("apy_delta_today_yesterday"),
    )
    deltas = ((f"stddev_apy_{days}d", f"stddev_apy_{days}d_delta") for days in WINDOW_DAYS)
    return levels.select("*", *((F.col(level) - F.lag(level).over(by_day)).alias(delta) for level, delta in deltas))
