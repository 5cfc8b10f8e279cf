"""Pools as dense arrays: what Arrow rows of the metrics table say of each pool and UTC day up to
the as-of day.

In: rows sorted by pool and day (pool_id, date, apy percent, tvl USD, apy_staleness_days,
tvl_staleness_days, pool_group), each pool whole. Out: `PoolHistory`, arrays of shape (pools, days),
NaN where nothing is known. A carried value stands as a level, and is not observed: nothing is
learned from it or scored by it. It fills nothing.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forecasting.features.rolling_windows import Days
from spark.arrow_groups import group_starts

Observed = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PoolHistory:
    """Pool ids of shape (pools,); `first_day` counts days since 1970-01-01; the last column is the
    as-of day.
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
        """Each column's day, since 1970-01-01."""
        return self.first_day + np.arange(self.apy.shape[1])


def pool_history(rows: pa.Table, as_of: dt.date) -> PoolHistory:
    """Dense days from the first of any of these pools to `as_of`; later rows are left out before
    anything is looked at.

    A value without an age (another system wrote it) counts as observed. A pool's group on a day is
    the last one its rows have said by then, or None.
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
        found, age = (
            rows[column].to_numpy().astype(float) for column in (name, f"{name}_staleness_days")
        )
        values[name], observed[name] = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
        values[name][pool, day - first] = found
        observed[name][pool, day - first] = ~np.isnan(found) & ~(age > 0)
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
    said = rows["pool_group"].is_valid().to_numpy()
    row = np.full(shape, -1)
    row[pool[said], column[said]] = np.flatnonzero(said)
    names = np.array([*rows["pool_group"].to_pylist(), None], dtype=object)
    found: npt.NDArray[np.object_] = names[np.maximum.accumulate(row, axis=1)]
    return found
