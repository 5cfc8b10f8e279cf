"""From snapshots to a dense calendar: a pool's day is its last accepted snapshot, a missing day is a row with the value carried forward.

In: accepted snapshots (any number a day) and each pool's calendar. Out: one row for each pool and UTC day, APY in percent and TVL in USD, with
the age of each value in days. A value is carried over at most `max_fill_days` missing days, never backward; APY and TVL each on its own.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

CALENDAR = "pool_id string, known_from date, open_end date, write_from date, write_end date"
"""A pool's part in a run. known_from: the first day read, where the pool is older than that, else NULL. open_end (exclusive): how far a pool that is
alive goes on after its last snapshot, NULL for one that ends with it. write_from, write_end: the half-open interval of the rows to write."""

_ORDER = ("timestamp", "id")
"""One window order for every step on snapshots, so that they are sorted once; Spark puts a NULL id first."""


def daily_grid(accepted: DataFrame, calendar: DataFrame, max_fill_days: int) -> DataFrame:
    """Dense days of each pool.

    Args: accepted has id, pool_id, timestamp, apy, tvl; calendar has the columns of CALENDAR, one row a pool, and is small enough to broadcast.
    Returns: pool_id, date, actual_apy, actual_tvl (double), apy_age_days, tvl_age_days (0 observed, n carried n days, NULL not known), the calendar's
    write_from and write_end. A pool starts with its first snapshot, or with known_from. One shuffle, by pool_id.
    """
    known = _with_last_known(_last_of_each_day(accepted.unionByName(_openings(calendar))))
    ends = F.broadcast(calendar.select("pool_id", "open_end", "write_from", "write_end"))
    following = F.coalesce("next_date", "open_end", F.date_add("date", 1))
    days = known.join(ends, on="pool_id", how="inner").withColumn("date", F.explode(F.sequence("date", F.date_sub(following, 1))))
    ages = {f"{name}_age_days": F.datediff("date", f"{name}_date") for name in ("apy", "tvl")}
    bounded = days.withColumns({name: F.when(age <= max_fill_days, age) for name, age in ages.items()})
    return bounded.select(
        "pool_id",
        "date",
        F.when(F.col("apy_age_days").isNotNull(), F.col("apy")).alias("actual_apy"),
        F.when(F.col("tvl_age_days").isNotNull(), F.col("tvl")).alias("actual_tvl"),
        "apy_age_days",
        "tvl_age_days",
        "write_from",
        "write_end",
    )


def _openings(calendar: DataFrame) -> DataFrame:
    """An empty snapshot for each pool that is older than what is read: its calendar must not start with the first row read."""
    return calendar.where(F.col("known_from").isNotNull()).select(
        F.lit(None).cast("bigint").alias("id"),
        "pool_id",
        F.col("known_from").cast("timestamp").alias("timestamp"),
        F.lit(None).cast("double").alias("apy"),
        F.lit(None).cast("double").alias("tvl"),
    )


def _last_of_each_day(snapshots: DataFrame) -> DataFrame:
    """By timestamp, then by insertion: id is an identity column. An opening has no id and comes before whatever its day holds."""
    next_date = F.lead("date").over(Window.partitionBy("pool_id").orderBy(*_ORDER))
    dated = snapshots.withColumn("date", F.to_date("timestamp")).withColumn("next_date", next_date)
    return dated.where(F.col("next_date").isNull() | (F.col("next_date") > F.col("date")))


def _with_last_known(snapshots: DataFrame) -> DataFrame:
    """APY and TVL each of the last day that has one, and that day."""
    so_far = Window.partitionBy("pool_id").orderBy(*_ORDER).rowsBetween(Window.unboundedPreceding, Window.currentRow)

    def last_known(value: Column, of: str) -> Column:
        return F.last(F.when(F.col(of).isNotNull(), value), ignorenulls=True).over(so_far)

    return snapshots.select(
        "pool_id",
        "date",
        "next_date",
        last_known(F.col("apy"), "apy").alias("apy"),
        last_known(F.col("date"), "apy").alias("apy_date"),
        last_known(F.col("tvl"), "tvl").alias("tvl"),
        last_known(F.col("date"), "tvl").alias("tvl_date"),
    )
