"""Groups the snapshots of each pool in Spark, with one shuffle, for `compute_pool_metrics`.

APY in percent, TVL in USD. Does not read or write tables.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

INTERVALS = "pool_id string, known_from date, open_end date, write_from date, write_end date"
"""A pool's intervals in a run, days half-open. known_from: first day that is read, if the pool is
older, else NULL. open_end: exclusive end of the days of an active pool, NULL for a pool that ends
with its last snapshot. write_from and write_end: the rows to write.
"""


def group_by_pool(parsed: DataFrame, intervals: DataFrame) -> DataFrame:
    """Group the snapshots of each pool in order of time, with the pool's intervals. One shuffle, by
    pool_id.

    Args:
        parsed: id, pool_id, timestamp, snapshot, apy (percent), tvl (USD), reason (NULL for an
            accepted row) and warning. id and snapshot are NULL for a stored day, whose timestamp is
            its start.
        intervals: the columns of INTERVALS, one row a pool, small enough to broadcast.

    Returns:
        Those columns, with day (since 1970-01-01). A row without any value starts the days of a
        pool that is older than the rows that are read.
    """
    days = ("open_end", "write_from", "write_end")
    parts = F.broadcast(
        intervals.select("pool_id", *(F.unix_date(name).alias(name) for name in days))
    )
    # left: a row out of range may belong to a pool that is not in the plan
    snapshots = parsed.unionByName(_carry_in_markers(intervals), allowMissingColumns=True).join(
        parts, on="pool_id", how="left"
    )
    # NULLs sort first: a marker (no id, no values) before a stored day (no id), and that before
    # every raw row of its day
    ordered = snapshots.repartition("pool_id").sortWithinPartitions(
        "pool_id", "timestamp", "id", "apy", "tvl", "snapshot"
    )
    return ordered.select(
        "pool_id",
        "id",
        F.unix_date(F.to_date("timestamp")).alias("day"),
        "timestamp",
        "snapshot",
        "apy",
        "tvl",
        "reason",
        "warning",
        *days,
    )


def _carry_in_markers(intervals: DataFrame) -> DataFrame:
    """Return an empty snapshot for each pool that is older than the rows that are read."""
    # without it, the days of such a pool would start at the first row that is read
    return intervals.where(F.col("known_from").isNotNull()).select(
        "pool_id", F.col("known_from").cast("timestamp").alias("timestamp")
    )
