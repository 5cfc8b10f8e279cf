"""From snapshots to a dense calendar: a pool's day is its last accepted snapshot, a missing day is
a row with the value carried forward.

In: the accepted snapshots of one pool, any number a day, as numpy arrays. Out: its days without a
gap, APY in percent and TVL in USD, with the age of each value in days. A value is carried over at
most `max_fill_days` missing days, never backward; APY and TVL each on its own. Days are numbers
since 1970-01-01, NaN is an unknown value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Days = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DailyGrid:
    """One pool's days from the first to the last. Ages: 0 observed, n carried n days, NaN not
    known. last_snapshot: the position of the day's last snapshot, -1 for a day without one.
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
    """Dense days of one pool from the first snapshot's.

    Args: snapshots (at least one) in order of time, of those at one moment the later inserted last;
    open_end (exclusive) is how far a pool that is alive goes on after its last snapshot, None for
    one that ends with it.
    """
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
    """For each of `days` the last value known by then, and its age; `newest` is the position in
    `observed` of the last snapshot by then.
    """
    known = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(values.size)))[newest]
    age = days - observed[known]
    usable = (known >= 0) & (age <= max_fill_days)
    return np.where(usable, values[known], np.nan), np.where(usable, age, np.nan)
