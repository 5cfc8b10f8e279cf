"""Pools as dense numpy arrays: one row a pool, one column a UTC day up to the as-of day.

Reads Arrow rows of the metrics (pool_id, date, APY in percent, TVL in USD, their staleness in days,
pool_group), sorted by pool and day, every pool complete. Imports no Spark and fills nothing.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forecasting.features.observed_values import staleness_column
from forecasting.features.rolling_windows import Days
from spark.arrow_groups import group_starts

Observed = npt.NDArray[np.bool_]

METRICS_SCHEMA = pa.schema(
    [
        ("pool_id", pa.string()),
        ("date", pa.date32()),
        ("apy", pa.float64()),
        ("tvl", pa.float64()),
        ("pool_group", pa.string()),
        (staleness_column("apy"), pa.int32()),
        (staleness_column("tvl"), pa.int32()),
    ]
)
"""Columns of `metrics_query`."""


@dataclass(frozen=True)
class PoolHistory:
    """Dense history of a batch of pools.

    Attributes:
        pool_ids: shape (pools,).
        groups: the pool's group as of each day, or None; shape (pools, days).
        first_day: first column's day, in days since 1970-01-01; the last column is the as-of day.
        apy: percent, carried values too; shape (pools, days), NaN where unknown.
        tvl: USD, likewise.
        apy_observed: the value was observed that day; nothing is learned from a carried value.
        tvl_observed: likewise.
    """

    pool_ids: npt.NDArray[np.object_]
    groups: npt.NDArray[np.object_]
    first_day: int
    apy: Days
    tvl: Days
    apy_observed: Observed
    tvl_observed: Observed

    @property
    def days(self) -> npt.NDArray[np.int64]:
        """Day of each column, in days since 1970-01-01."""
        return self.first_day + np.arange(self.apy.shape[1])


def pool_history(rows: pa.Table, as_of: dt.date) -> PoolHistory:
    """Converts metrics rows into dense arrays.

    Args:
        rows: the columns named above.
        as_of: last day; later rows are dropped before anything else.

    Returns:
        Days from the first day of any of these pools to `as_of`.
    """
    last = (as_of - dt.date(1970, 1, 1)).days
    day = rows["date"].cast(pa.int32()).to_numpy()
    rows, day = rows.filter(pa.array(day <= last)), day[day <= last]
    starts = group_starts(rows["pool_id"]) if rows.num_rows else np.zeros(0, dtype=np.int64)
    pool = np.repeat(np.arange(starts.size), np.diff([*starts, rows.num_rows]))
    first = int(day.min()) if day.size else last
    shape = (starts.size, last - first + 1)
    values, observed = {}, {}
    for name in ("apy", "tvl"):
        value, staleness = (
            rows[column].to_numpy().astype(float) for column in (name, staleness_column(name))
        )
        values[name], observed[name] = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
        values[name][pool, day - first] = value
        # NaN compares false: a value without a staleness (another system's row) is observed
        observed[name][pool, day - first] = ~np.isnan(value) & ~(staleness > 0)
    return PoolHistory(
        rows["pool_id"].take(starts).to_numpy(),
        _groups_so_far(rows, pool, day - first, shape),
        first,
        values["apy"],
        values["tvl"],
        observed["apy"],
        observed["tvl"],
    )


def _groups_so_far(
    rows: pa.Table,
    pool: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
    shape: tuple[int, int],
) -> npt.NDArray[np.object_]:
    """The last group of each pool up to each day, or None."""
    has_group = rows["pool_group"].is_valid().to_numpy()
    row = np.full(shape, -1)
    row[pool[has_group], column[has_group]] = np.flatnonzero(has_group)
    # index -1, no group yet, selects the None at the end
    names = np.array([*rows["pool_group"].to_pylist(), None], dtype=object)
    groups: npt.NDArray[np.object_] = names[np.maximum.accumulate(row, axis=1)]
    return groups
