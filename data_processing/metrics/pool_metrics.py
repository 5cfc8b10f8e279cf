"""Computes the days of all pools with their metrics: numpy computes the pools of an Arrow batch at
once. The snapshots of each pool follow each other.

Returns the days to write and, among them, the rejected snapshots, so that rows are read and
grouped once. APY in percent, TVL in USD. Does not read or write tables. Both executors import this
module in their processes, so it imports neither PySpark nor SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_processing.metrics.daily_grid import NO_END, daily_grid
from data_processing.metrics.market_columns import MARKET, MarketColumns
from data_processing.metrics.rolling_metrics import rolling_metrics
from spark.arrow_columns import (
    date_column,
    float_column,
    integer_column,
    numbers,
    text_column,
)
from spark.arrow_groups import Batches, group_starts, iter_groups

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
"""METRIC_COLUMNS, repeated because their module imports SQLAlchemy."""
STALENESS = ("apy_staleness_days", "tvl_staleness_days")
SNAPSHOT_COLUMNS = ("timestamp", "snapshot")
"""Moment and identity of the raw row that the day's value comes from, or that was rejected."""
REJECTED = ("reason", "source_table", "run_id")
SCHEMA = pa.schema(
    [
        ("pool_id", pa.string()),
        ("date", pa.date32()),
        *((name, pa.float64()) for name in VALUES),
        *((name, pa.int32()) for name in STALENESS),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("snapshot", pa.int64()),
        *((name, pa.string()) for name in REJECTED),
    ]
)
"""Columns of the rows to stage. The types of staging and of Spark follow from it."""


@dataclass(frozen=True)
class Provenance:
    """Origin of a rejected snapshot.

    Attributes:
        source_table: table of the raw row.
        run_id: run that rejected it.
    """

    source_table: str
    run_id: str


def compute_pool_metrics(
    max_fill_days: int, market: MarketColumns, provenance: Provenance
) -> Callable[[Batches], Batches]:
    """Return a function from snapshots, grouped by pool and in order of time, to rows of SCHEMA.

    Snapshots have pool_id, day (since 1970-01-01), timestamp, snapshot, apy (percent), tvl (USD),
    reason (NULL for an accepted row), and the pool's open_end, write_from and write_end as days.

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
    intervals = rows.select(["open_end", "write_from", "write_end"]).take(integer_column(starts))
    grid = daily_grid(
        starts,
        numbers(rows["day"]),
        numbers(rows["apy"]),
        numbers(rows["tvl"]),
        open_ends=numbers(intervals["open_end"], null=NO_END),
        max_fill_days=max_fill_days,
    )
    # the days before it are look-back: they are read for the windows and not written
    write_from, write_end = (
        numbers(intervals[name])[grid.pool] for name in ("write_from", "write_end")
    )
    to_write = np.flatnonzero((grid.days >= write_from) & (grid.days < write_end))
    if not to_write.size:
        return
    row = grid.last_snapshot[to_write]
    columns = {
        "date": grid.days[to_write],
        "actual_apy": grid.apy[to_write],
        "actual_tvl": grid.tvl[to_write],
        "apy_staleness_days": grid.apy_staleness_days[to_write],
        "tvl_staleness_days": grid.tvl_staleness_days[to_write],
        **rolling_metrics(grid.apy, grid.pool, to_write),
        **market.at(grid.days[to_write]),
    }
    pool_ids = rows["pool_id"].take(integer_column(starts[grid.pool[to_write]]))
    last_rows = integer_column(row, row < 0)
    last_snapshots = [rows[name].take(last_rows) for name in SNAPSHOT_COLUMNS]
    yield _days_batch(pool_ids, columns, last_snapshots)


def _days_batch(
    pool_ids: pa.ChunkedArray,
    columns: dict[str, npt.NDArray[Any]],
    snapshots: list[pa.ChunkedArray],
) -> pa.RecordBatch:
    """Return rows of SCHEMA; NaN becomes NULL."""
    dates = date_column(columns["date"])
    values = [float_column(columns[name]) for name in VALUES]
    staleness = [float_column(columns[name]).cast(pa.int32()) for name in STALENESS]
    rejected = [pa.nulls(len(dates), pa.string())] * len(REJECTED)
    snapshot_columns = [column.combine_chunks() for column in snapshots]
    return _batch(
        [pool_ids.combine_chunks(), dates, *values, *staleness, *snapshot_columns, *rejected]
    )


def _rejected_batch(rows: pa.Table, provenance: Provenance) -> pa.RecordBatch:
    # copies of one snapshot are one quarantined row
    _, firsts = np.unique(numbers(rows["snapshot"]), return_index=True)
    rows = rows.take(integer_column(np.sort(firsts)))
    types = [pa.date32(), *[pa.float64()] * len(VALUES), *[pa.int32()] * len(STALENESS)]
    empty = [pa.nulls(rows.num_rows, type_) for type_ in types]
    snapshot_columns = [rows[name].combine_chunks() for name in (*SNAPSHOT_COLUMNS, "reason")]
    origin = [
        text_column(value, rows.num_rows) for value in (provenance.source_table, provenance.run_id)
    ]
    return _batch([rows["pool_id"].combine_chunks(), *empty, *snapshot_columns, *origin])


def _batch(columns: list[pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(columns, names=SCHEMA.names)
