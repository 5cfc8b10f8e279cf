"""Builds the dense daily grid of pools: a day has the values of its last accepted snapshot, a
missing day carries them forward.

Computes on numpy arrays in which the snapshots, and the days, of each pool follow each other. APY
in percent, TVL in USD, days as numbers since 1970-01-01, NaN for an unknown value. APY and TVL are
carried each on its own, over at most `max_fill_days` missing days and never backward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Days = npt.NDArray[np.int64]
Positions = npt.NDArray[np.int64]

NO_END = np.iinfo(np.int32).min
"""Open end of a pool whose days end with its last snapshot."""


@dataclass(frozen=True)
class DailyGrid:
    """The days of pools, each pool's from its first to its last, one element a day.

    Attributes:
        pool: position of the day's pool.
        days: days since 1970-01-01, without a gap inside a pool.
        last_snapshot: position of the day's last snapshot, -1 without one.
        apy: percent, NaN if unknown.
        apy_staleness_days: 0 observed, n carried over n days, NaN unknown.
        tvl: USD, NaN if unknown.
        tvl_staleness_days: as apy_staleness_days.
    """

    pool: Positions
    days: Days
    last_snapshot: Positions
    apy: Floats
    apy_staleness_days: Floats
    tvl: Floats
    tvl_staleness_days: Floats


def daily_grid(
    starts: Positions,
    snapshot_days: Days,
    apy: Floats,
    tvl: Floats,
    *,
    open_ends: Days,
    max_fill_days: int,
) -> DailyGrid:
    """Compute the dense days of pools, each from the day of its first snapshot.

    Args:
        starts: position of the first snapshot of each pool, at least one pool.
        snapshot_days: day of each snapshot, in order of time inside a pool; of snapshots at the
            same moment the later inserted one is last.
        apy: percent, one for each snapshot.
        tvl: USD, one for each snapshot.
        open_ends: exclusive end of the days of each active pool; NO_END ends with the last
            snapshot.
        max_fill_days: missing days over which a value is carried.
    """
    # all pools at once: the calls of numpy for one pool take longer than its numbers
    is_start = np.zeros(snapshot_days.size, dtype=bool)
    is_start[starts] = True
    # the last snapshot of a day is followed by one of another day or pool, or by none
    is_last = np.append((snapshot_days[1:] != snapshot_days[:-1]) | is_start[1:], True)
    last_of_day = np.flatnonzero(is_last)
    observed = snapshot_days[last_of_day].astype(np.int64)
    first_observed = np.searchsorted(last_of_day, starts)
    last_observed = np.append(first_observed[1:], observed.size) - 1
    first_day = observed[first_observed]
    lengths = np.maximum(open_ends, observed[last_observed] + 1) - first_day
    # what turns a day of each pool into its position in the grid
    offset = np.cumsum(lengths) - lengths - first_day
    pool = np.repeat(np.arange(starts.size), lengths)
    days = np.arange(pool.size) - offset[pool]
    # position in `observed` of the last snapshot on or before each day; the first day has one
    newest = np.zeros(pool.size, dtype=np.int64)
    snapshots_of_pool = last_observed - first_observed + 1
    newest[observed + np.repeat(offset, snapshots_of_pool)] = np.arange(observed.size)
    newest = np.maximum.accumulate(newest)
    first = first_observed[pool]
    return DailyGrid(
        pool,
        days,
        np.where(observed[newest] == days, last_of_day[newest], -1),
        *_carried(observed, apy[last_of_day], days, newest, first, max_fill_days),
        *_carried(observed, tvl[last_of_day], days, newest, first, max_fill_days),
    )


def _carried(
    observed: Days,
    values: Floats,
    days: Days,
    newest: Positions,
    first: Positions,
    max_fill_days: int,
) -> tuple[Floats, Floats]:
    """Return for each of `days` the last known value and its staleness in days.

    Args:
        observed: days with a snapshot, pool after pool.
        values: one for each observed day, NaN if unknown.
        days: the days of the grid.
        newest: position of the last observed day on or before each of `days`.
        first: position of the first observed day of the pool of each of `days`.
        max_fill_days: missing days over which a value is carried.
    """
    # position of the last observed day with a value: that of an earlier pool, or -1, before the
    # first of a pool
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(values.size)))[newest]
    staleness = days - observed[last]
    usable = (last >= first) & (staleness <= max_fill_days)
    return np.where(usable, values[last], np.nan), np.where(usable, staleness, np.nan)
