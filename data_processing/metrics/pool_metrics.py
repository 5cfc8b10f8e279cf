"""All pools' days with their metrics: one shuffle that brings each pool's snapshots together, then
numpy a pool at a time inside Spark's tasks.

In: parsed snapshots and each pool's part in the run. Out: the days to write, and among them the
snapshots that were rejected, so that the rows are read and shuffled once and nothing has to be kept
for a second pass. Why not window functions: a frame of 30 rows is evaluated anew for each row, and
the windows, the carry and the dense calendar took most of a run's time; the arrays of a pool take a
small part of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
from spark.arrow_groups import Batches, group_starts, whole_groups

CALENDAR = "pool_id string, known_from date, open_end date, write_from date, write_end date"
"""A pool's part in a run. known_from: the first day read, where the pool is older than that, else
NULL. open_end (exclusive): how far a pool that is alive goes on after its last snapshot, NULL for
one that ends with it. write_from, write_end: the half-open interval of the rows to write.
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
"""The names of METRIC_COLUMNS once more: a Python worker imports this module, and with it no
SQLAlchemy.
"""
AGES = ("apy_staleness_days", "tvl_staleness_days")
SNAPSHOT_COLUMNS = ("timestamp", "snapshot")
"""Moment and identity of the raw row that the day is known by, or that was rejected."""
REJECTED = ("reason", "source_table", "run_id")
SCHEMA = T.StructType(
    [
        T.StructField("pool_id", T.StringType()),
        T.StructField("date", T.DateType()),
        *(T.StructField(name, T.DoubleType()) for name in VALUES),
        *(T.StructField(name, T.IntegerType()) for name in AGES),
        T.StructField("timestamp", T.TimestampType()),
        T.StructField("snapshot", T.LongType()),
        *(T.StructField(name, T.StringType()) for name in REJECTED),
    ]
)


@dataclass(frozen=True)
class Provenance:
    """What a rejected snapshot's row says besides: where it is from, and which run met it."""

    source_table: str
    run_id: str


def by_pool(parsed: DataFrame, calendar: DataFrame) -> DataFrame:
    """The snapshots of each pool together and in order, beside its part in the run. One shuffle, by
    pool_id.

    Args: parsed has id, pool_id, timestamp, snapshot, apy (percent), tvl (USD), reason (NULL for an
    accepted one) and warning; id and snapshot are NULL for a stored day, whose timestamp is its
    begin. calendar has the columns of CALENDAR, one row a pool, and is small enough to broadcast.
    Returns: those columns, the calendar's, day (since 1970-01-01); a row without any value opens
    the calendar of a pool that is older than what is read.
    """
    days = ("open_end", "write_from", "write_end")
    parts = F.broadcast(
        calendar.select("pool_id", *(F.unix_date(name).alias(name) for name in days))
    )
    # a row of no possible day belongs to no pool's calendar
    snapshots = parsed.unionByName(_openings(calendar), allowMissingColumns=True).join(
        parts, on="pool_id", how="left"
    )
    # NULLs come first: an opening, without id and values, before a stored day, without an id, and
    # that before every raw row of its day
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


def pool_days(
    max_fill_days: int, market: MarketColumns, provenance: Provenance
) -> Callable[[Batches], Batches]:
    """For `mapInArrow` over the rows of `by_pool`: days of each pool inside its [write_from,
    write_end), and its rejected snapshots.

    Returns: a function to rows of SCHEMA. A day: APY-like values in percent, TVL and prices in USD,
    gas in gwei, NULL where unknown; ages in days (0 observed, n carried n days, NULL not known);
    timestamp and snapshot of the raw row that it is known by, NULL where it is none's. A pool
    starts with its first snapshot, or with its opening. A rejected snapshot: its timestamp,
    snapshot, reason and provenance, everything else but pool_id NULL; equal ones are one.
    """

    def compute(batches: Batches) -> Batches:
        for pools in whole_groups(batches, "pool_id"):
            yield from _days(pools, max_fill_days, market, provenance)

    return compute


def _openings(calendar: DataFrame) -> DataFrame:
    """An empty snapshot for each pool that is older than what is read: its calendar must not start
    with the first row read.
    """
    return calendar.where(F.col("known_from").isNotNull()).select(
        "pool_id", F.col("known_from").cast("timestamp").alias("timestamp")
    )


def _days(
    rows: pa.Table, max_fill_days: int, market: MarketColumns, provenance: Provenance
) -> Batches:
    """The days to write and the rejected snapshots of the pools in `rows`; no batch where there are
    none.
    """
    is_rejected = rows["reason"].is_valid()
    if pc.any(is_rejected).as_py():
        yield _rejected_batch(rows.filter(is_rejected), provenance)
        rows = rows.filter(pc.invert(is_rejected))
    if not rows.num_rows:
        return
    starts = group_starts(rows["pool_id"])
    snapshots = {name: rows[name].to_numpy() for name in ("day", "apy", "tvl")}
    parts = rows.select(["open_end", "write_from", "write_end"]).take(starts).to_pylist()
    found = []
    for first, end, part in zip(starts, [*starts[1:], rows.num_rows], parts, strict=True):
        day, apy, tvl = (snapshots[name][first:end] for name in ("day", "apy", "tvl"))
        grid = daily_grid(day, apy, tvl, open_end=part["open_end"], max_fill_days=max_fill_days)
        values = {
            "actual_apy": grid.apy,
            "actual_tvl": grid.tvl,
            "apy_staleness_days": grid.apy_staleness_days,
            "tvl_staleness_days": grid.tvl_staleness_days,
        }
        planned = slice(*np.searchsorted(grid.days, [part["write_from"], part["write_end"]]))
        found.append(
            {
                "date": grid.days[planned],
                "row": np.where(grid.last_snapshot < 0, -1, grid.last_snapshot + first)[planned],
                **{
                    name: array[planned]
                    for name, array in (values | rolling_metrics(grid.apy)).items()
                },
            }
        )
    counts = [pool["date"].size for pool in found]
    if sum(counts):
        pool_ids = rows["pool_id"].take(np.repeat(starts, counts))
        columns = {name: np.concatenate([pool[name] for pool in found]) for name in found[0]}
        own_rows = pa.array(columns["row"], mask=columns["row"] < 0)
        own = [rows[name].take(own_rows) for name in SNAPSHOT_COLUMNS]
        yield _days_batch(pool_ids, columns | market.of(columns["date"]), own)


def _days_batch(
    pool_ids: pa.ChunkedArray,
    columns: dict[str, npt.NDArray[np.generic]],
    snapshots: list[pa.ChunkedArray],
) -> pa.RecordBatch:
    """NaN becomes NULL."""
    dates = pa.array(columns["date"].astype(np.int32)).cast(pa.date32())
    values = [pa.array(columns[name], pa.float64(), from_pandas=True) for name in VALUES]
    ages = [
        pa.array(columns[name], pa.float64(), from_pandas=True).cast(pa.int32()) for name in AGES
    ]
    nothing = [pa.nulls(len(dates), pa.string())] * len(REJECTED)
    own = [column.combine_chunks() for column in snapshots]
    return _batch([pool_ids.combine_chunks(), dates, *values, *ages, *own, *nothing])


def _rejected_batch(rows: pa.Table, provenance: Provenance) -> pa.RecordBatch:
    # copies of one snapshot are one in quarantine
    _, firsts = np.unique(rows["snapshot"].to_numpy(), return_index=True)
    rows = rows.take(np.sort(firsts))
    kinds = [pa.date32(), *[pa.float64()] * len(VALUES), *[pa.int32()] * len(AGES)]
    nothing = [pa.nulls(rows.num_rows, kind) for kind in kinds]
    own = [rows[name].combine_chunks() for name in (*SNAPSHOT_COLUMNS, "reason")]
    where = [
        pa.array([value] * rows.num_rows, pa.string())
        for value in (provenance.source_table, provenance.run_id)
    ]
    return _batch([rows["pool_id"].combine_chunks(), *nothing, *own, *where])


def _batch(columns: list[pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(columns, names=SCHEMA.names)
