"""All pools' days with their metrics: one shuffle that brings each pool's snapshots together, then numpy a pool at a time inside Spark's tasks.

In: accepted snapshots and each pool's part in the run. Out: the days to write. Why not window functions: a frame of 30 rows is evaluated anew for
each row, and on 2 cores the windows, the carry and the dense calendar took 60 % of a warm run's time; the arrays of a pool cost a tenth of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from data_processing.daily_grid import daily_grid
from data_processing.rolling_metrics import rolling_metrics

CALENDAR = "pool_id string, known_from date, open_end date, write_from date, write_end date"
"""A pool's part in a run. known_from: the first day read, where the pool is older than that, else NULL. open_end (exclusive): how far a pool that is
alive goes on after its last snapshot, NULL for one that ends with it. write_from, write_end: the half-open interval of the rows to write."""

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
)
AGES = ("apy_age_days", "tvl_age_days")
SCHEMA = f"pool_id string, date date, {', '.join(f'{name} double' for name in VALUES)}, {', '.join(f'{name} int' for name in AGES)}"

Batches = Iterable[pa.RecordBatch]


def pool_days(accepted: DataFrame, calendar: DataFrame, max_fill_days: int) -> DataFrame:
    """Days of each pool inside its [write_from, write_end).

    Args: accepted has id, pool_id, timestamp, apy (percent), tvl (USD); calendar has the columns of CALENDAR, one row a pool, and is small enough to
    broadcast.
    Returns: SCHEMA: APY-like values in percent, TVL in USD, NULL where unknown; ages in days (0 observed, n carried n days, NULL not known). A pool
    starts with its first snapshot, or with known_from. One shuffle, by pool_id.
    """
    parts = F.broadcast(calendar.select("pool_id", *(F.unix_date(name).alias(name) for name in ("open_end", "write_from", "write_end"))))
    snapshots = accepted.unionByName(_openings(calendar)).join(parts, on="pool_id", how="inner")
    # an opening has no id, and comes before whatever its day holds: Spark puts a NULL first
    ordered = snapshots.repartition("pool_id").sortWithinPartitions("pool_id", "timestamp", "id")
    dated = ordered.select("pool_id", F.unix_date(F.to_date("timestamp")).alias("day"), "apy", "tvl", "open_end", "write_from", "write_end")
    return dated.mapInArrow(_days_of_each_pool(max_fill_days), SCHEMA)


def _openings(calendar: DataFrame) -> DataFrame:
    """An empty snapshot for each pool that is older than what is read: its calendar must not start with the first row read."""
    return calendar.where(F.col("known_from").isNotNull()).select(
        F.lit(None).cast("bigint").alias("id"),
        "pool_id",
        F.col("known_from").cast("timestamp").alias("timestamp"),
        F.lit(None).cast("double").alias("apy"),
        F.lit(None).cast("double").alias("tvl"),
    )


def _days_of_each_pool(max_fill_days: int) -> Callable[[Batches], Batches]:
    def compute(batches: Batches) -> Batches:
        for pools in _whole_pools(batches):
            yield from _days(pools, max_fill_days)

    return compute


def _whole_pools(batches: Batches) -> Iterator[pa.Table]:
    """The rows again, cut between pools: the last pool of a batch may go on in the next one."""
    held: list[pa.Table] = []
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        if not rows.num_rows:
            continue
        if held and held[-1]["pool_id"][-1] != rows["pool_id"][0]:
            yield pa.concat_tables(held)
            held = []
        last = _starts(rows["pool_id"])[-1]
        if last:
            yield pa.concat_tables([*held, rows.slice(0, last)])
            held = []
        held.append(rows.slice(last))
    if held:
        yield pa.concat_tables(held)


def _starts(pool_ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Where each pool begins."""
    ids = pool_ids.combine_chunks()
    changes = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


def _days(rows: pa.Table, max_fill_days: int) -> Batches:
    """The days to write of each pool in `rows`, as one batch; none where no pool has any."""
    starts = _starts(rows["pool_id"])
    columns = {name: rows[name].to_numpy() for name in ("day", "apy", "tvl")}
    parts = rows.select(["open_end", "write_from", "write_end"]).take(starts).to_pylist()
    found = []
    for first, end, part in zip(starts, [*starts[1:], rows.num_rows], parts, strict=True):
        day, apy, tvl = (columns[name][first:end] for name in ("day", "apy", "tvl"))
        grid = daily_grid(day, apy, tvl, open_end=part["open_end"], max_fill_days=max_fill_days)
        values = {"actual_apy": grid.apy, "actual_tvl": grid.tvl, "apy_age_days": grid.apy_age_days, "tvl_age_days": grid.tvl_age_days}
        planned = slice(*np.searchsorted(grid.days, [part["write_from"], part["write_end"]]))
        found.append({"date": grid.days[planned], **{name: array[planned] for name, array in (values | rolling_metrics(grid.apy)).items()}})
    counts = [pool["date"].size for pool in found]
    if sum(counts):
        yield _batch(rows["pool_id"].take(np.repeat(starts, counts)), {name: np.concatenate([pool[name] for pool in found]) for name in found[0]})


def _batch(pool_ids: pa.ChunkedArray, columns: dict[str, npt.NDArray[np.generic]]) -> pa.RecordBatch:
    """NaN becomes NULL."""
    dates = pa.array(columns["date"].astype(np.int32)).cast(pa.date32())
    values = [pa.array(columns[name], pa.float64(), from_pandas=True) for name in VALUES]
    ages = [pa.array(columns[name], pa.float64(), from_pandas=True).cast(pa.int32()) for name in AGES]
    return pa.RecordBatch.from_arrays([pool_ids.combine_chunks(), dates, *values, *ages], names=["pool_id", "date", *VALUES, *AGES])
