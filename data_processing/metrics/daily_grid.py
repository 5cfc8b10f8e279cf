"""Builds a pool's dense daily grid: a day has the values of its last accepted snapshot, a missing
day carries them forward.

Computes on numpy arrays of one pool. APY in percent, TVL in USD, days as numbers since 1970-01-01,
NaN for an unknown value. APY and TVL are carried each on its own, over at most `max_fill_days`
missing days and never backward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Days = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DailyGrid:
    """A pool's days from the first to the last, one element a day.

    Attributes:
        days: days since 1970-01-01, without a gap.
        last_snapshot: position of the day's last snapshot, -1 without one.
        apy: percent, NaN if unknown.
        apy_staleness_days: 0 observed, n carried over n days, NaN unknown.
        tvl: USD, NaN if unknown.
        tvl_staleness_days: as apy_staleness_days.
    """

    days: Days
    last_snapshot: Days
    apy: Floats
    apy_staleness_days: Floats
    tvl: Floats
    tvl_staleness_days: Floats


def daily_grid(
    snapshot_days: Days, apy: Floats, tvl: Floats, *, open_end: int | None, max_fill_days: int
) -> DailyGrid:
    """Compute the dense days of one pool, from the day of its first snapshot.

    Args:
        snapshot_days: day of each snapshot, at least one, in order of time; of snapshots at the
            same moment the later inserted one is last.
        apy: percent, one for each snapshot.
        tvl: USD, one for each snapshot.
        open_end: exclusive end of the days of an active pool; None ends with the last snapshot.
        max_fill_days: missing days over which a value is carried.
    """
    # the last snapshot of a day is followed by one of another day, or by none
    last_of_day = np.flatnonzero(np.append(snapshot_days[1:] != snapshot_days[:-1], True))
    observed = snapshot_days[last_of_day]
    end = observed[-1] + 1 if open_end is None else max(open_end, observed[-1] + 1)
    days = np.arange(observed[0], end)
    newest = np.searchsorted(observed, days, side="right") - 1
    return DailyGrid(
        days,
        np.where(observed[newest] == days, last_of_day[newest], -1),
        *_carried(observed, apy[last_of_day], days, newest, max_fill_days),
        *_carried(observed, tvl[last_of_day], days, newest, max_fill_days),
    )


def _carried(
    observed: Days, values: Floats, days: Days, newest: Days, max_fill_days: int
) -> tuple[Floats, Floats]:
    """Return for each of `days` the last known value and its staleness in days."""
    # position of the last snapshot with a value, -1 before the first; `newest` is the position of
    # the last snapshot on or before each day
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(values.size)))[newest]
    staleness = days - observed[last]
    usable = (last >= 0) & (staleness <= max_fill_days)
    return np.where(usable, values[last], np.nan), np.where(usable, staleness, np.nan)
