"""Computes the days of all pools with their metrics: one shuffle groups each pool's snapshots, then
numpy computes one pool at a time inside Spark's tasks.

Returns the days to write and, among them, the rejected snapshots, so that rows are read and
shuffled once. APY in percent, TVL in USD. Does not read or write tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from data_processing.metrics.daily_grid import daily_grid
from data_processing.metrics.market_columns import MARKET, MarketColumns
from data_processing.metrics.rolling_metrics import rolling_metrics
from spark.arrow_groups import Batches, group_starts, iter_groups

INTERVALS = "pool_id string, known_from date, open_end date, write_from date, write_end date"
"""A pool's intervals in a run, days half-open. known_from: first day that is read, if the pool is
older, else NULL. open_end: exclusive end of the days of an active pool, NULL for a pool that ends
with its last snapshot. write_from and write_end: the rows to write.
"""

VALUES = (
    "actual_apy",
    "actual_tvl",
    "rolling_apy_7d",
    "rolling_apy_30d",
    "apy_delta_today_yesterday",
    "stddev_apy_7d",
    "stddev_apy_30d",
    "stddev_apy_7d_delta",
    "stddev_apy_30d_delta",
    *MARKET,
)
"""METRIC_COLUMNS, repeated because every Python worker imports this module, and must not import
SQLAlchemy.
"""
STALENESS = ("apy_staleness_days", "tvl_staleness_days")
SNAPSHOT_COLUMNS = ("timestamp", "snapshot")
"""Moment and identity of the raw row that the day's value comes from, or that was rejected."""
REJECTED = ("reason", "source_table", "run_id")
SCHEMA = T.StructType(
    [
        T.StructField("pool_id", T.StringType()),
        T.StructField("date", T.DateType()),
        *(T.StructField(name, T.DoubleType()) for name in VALUES),
        *(T.StructField(name, T.IntegerType()) for name in STALENESS),
        T.StructField("timestamp", T.TimestampType()),
        T.StructField("snapshot", T.LongType()),
        *(T.StructField(name, T.StringType()) for name in REJECTED),
    ]
)


@dataclass(frozen=True)
class Provenance:
    """Origin of a rejected snapshot.

    Attributes:
        source_table: table of the raw row.
        run_id: run that rejected it.
    """

    source_table: str
    run_id: str


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
    # the join must not shuffle: `repartition` below is the only shuffle
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
        "pool_id", "timestamp", "id", "apy", "tvl"
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


def compute_pool_metrics(
    max_fill_days: int, market: MarketColumns, provenance: Provenance
) -> Callable[[Batches], Batches]:
    """Return a function for `mapInArrow` from the rows of `group_by_pool` to rows of SCHEMA.

    A day inside the pool's [write_from, write_end) has APY-like values in percent, TVL and prices
    in USD, gas in gwei, NULL if unknown; staleness in days (0 observed, n carried over n days, NULL
    unknown); timestamp and snapshot of its raw row, NULL without one. A rejected snapshot has its
    pool_id, timestamp, snapshot, reason and provenance, everything else NULL; equal ones are one
    row.

    Args:
        max_fill_days: missing days over which a value is carried.
        market: the market series.
        provenance: origin of rejected snapshots.
    """
    # Not window functions: Spark evaluates a frame of 30 rows anew for each row, and windows, carry
    # and dense grid took most of a run. The arrays of a pool take a small part of that.

    def compute(batches: Batches) -> Batches:
        for pools in iter_groups(batches, "pool_id"):
            yield from _days(pools, max_fill_days, market, provenance)

    return compute


def _carry_in_markers(intervals: DataFrame) -> DataFrame:
    """Return an empty snapshot for each pool that is older than the rows that are read."""
    # without it, the days of such a pool would start at the first row that is read
    return intervals.where(F.col("known_from").isNotNull()).select(
        "pool_id", F.col("known_from").cast("timestamp").alias("timestamp")
    )


def _days(
    rows: pa.Table, max_fill_days: int, market: MarketColumns, provenance: Provenance
) -> Batches:
    """Yield the days to write and the rejected snapshots of the pools in `rows`."""
    is_rejected = rows["reason"].is_valid()
    if pc.any(is_rejected).as_py():
        yield _rejected_batch(rows.filter(is_rejected), provenance)
        rows = rows.filter(pc.invert(is_rejected))
    if not rows.num_rows:
        return
    starts = group_starts(rows["pool_id"])
    ends = [*starts[1:], rows.num_rows]
    snapshots = {name: rows[name].to_numpy() for name in ("day", "apy", "tvl")}
    intervals = rows.select(["open_end", "write_from", "write_end"]).take(starts).to_pylist()
    pools = [
        _pool_columns(snapshots, first, end, interval, max_fill_days)
        for first, end, interval in zip(starts, ends, intervals, strict=True)
    ]
    counts = [pool["date"].size for pool in pools]
    if sum(counts):
        pool_ids = rows["pool_id"].take(np.repeat(starts, counts))
        columns = {name: _concatenated(pools, name) for name in pools[0]}
        row_numbers = pa.array(columns["row"], mask=columns["row"] < 0)
        last_snapshots = [rows[name].take(row_numbers) for name in SNAPSHOT_COLUMNS]
        yield _days_batch(pool_ids, columns | market.at(columns["date"]), last_snapshots)


def _concatenated(pools: list[dict[str, npt.NDArray[Any]]], name: str) -> npt.NDArray[Any]:
    return np.concatenate([pool[name] for pool in pools])


def _pool_columns(
    snapshots: dict[str, npt.NDArray[Any]],
    first: int,
    end: int,
    interval: dict[str, Any],
    max_fill_days: int,
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of one pool's days to write; `row` is the row of the day's snapshot."""
    day, apy, tvl = (snapshots[name][first:end] for name in ("day", "apy", "tvl"))
    grid = daily_grid(day, apy, tvl, open_end=interval["open_end"], max_fill_days=max_fill_days)
    columns = {
        "date": grid.days,
        "row": np.where(grid.last_snapshot < 0, -1, grid.last_snapshot + first),
        "actual_apy": grid.apy,
        "actual_tvl": grid.tvl,
        "apy_staleness_days": grid.apy_staleness_days,
        "tvl_staleness_days": grid.tvl_staleness_days,
        **rolling_metrics(grid.apy),
    }
    # the days before it are look-back: they are read for the windows and not written
    to_write = slice(*np.searchsorted(grid.days, [interval["write_from"], interval["write_end"]]))
    return {name: array[to_write] for name, array in columns.items()}


def _days_batch(
    pool_ids: pa.ChunkedArray,
    columns: dict[str, npt.NDArray[Any]],
    snapshots: list[pa.ChunkedArray],
) -> pa.RecordBatch:
    """Return rows of SCHEMA; NaN becomes NULL."""
    dates = pa.array(columns["date"].astype(np.int32)).cast(pa.date32())
    values = [pa.array(columns[name], pa.float64(), from_pandas=True) for name in VALUES]
    staleness = [
        pa.array(columns[name], pa.float64(), from_pandas=True).cast(pa.int32())
        for name in STALENESS
    ]
    rejected = [pa.nulls(len(dates), pa.string())] * len(REJECTED)
    snapshot_columns = [column.combine_chunks() for column in snapshots]
    return _batch(
        [pool_ids.combine_chunks(), dates, *values, *staleness, *snapshot_columns, *rejected]
    )


def _rejected_batch(rows: pa.Table, provenance: Provenance) -> pa.RecordBatch:
    # copies of one snapshot are one quarantined row
    _, firsts = np.unique(rows["snapshot"].to_numpy(), return_index=True)
    rows = rows.take(np.sort(firsts))
    types = [pa.date32(), *[pa.float64()] * len(VALUES), *[pa.int32()] * len(STALENESS)]
    empty = [pa.nulls(rows.num_rows, type_) for type_ in types]
    snapshot_columns = [rows[name].combine_chunks() for name in (*SNAPSHOT_COLUMNS, "reason")]
    origin = [
        pa.array([value] * rows.num_rows, pa.string())
        for value in (provenance.source_table, provenance.run_id)
    ]
    return _batch([rows["pool_id"].combine_chunks(), *empty, *snapshot_columns, *origin])


def _batch(columns: list[pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(columns, names=SCHEMA.names)
