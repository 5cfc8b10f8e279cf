"""Computes the days of all pools with their metrics: numpy computes one pool at a time, from Arrow
batches in which the snapshots of each pool follow each other.

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

from data_processing.metrics.daily_grid import daily_grid
from data_processing.metrics.market_columns import MARKET, MarketColumns
from data_processing.metrics.rolling_metrics import rolling_metrics
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
