"""Windows over dense days in plain numpy. Each value is computed from its own window alone, so no
history before it can change its bits; but for the exponential mean, which has no first day.

In: arrays of shape (pools, days), one column a UTC day, NaN for not known. Out: arrays of that
shape; a window of n days ends with its own day, and values that are not known are left out of it.
Running sums would be faster and would drag the rounding of one spike through all later days.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Days = npt.NDArray[np.float64]


def lag(values: Days, days: int) -> Days:
    """The value of `days` days before; negative days look ahead."""
    shifted = np.full_like(values, np.nan)
    if days == 0:
        return values
    if days > 0:
        shifted[:, days:] = values[:, :-days]
    else:
        shifted[:, :days] = values[:, -days:]
    return shifted


def windows(values: Days, days: int, *, before: float = np.nan) -> Days:
    """A view of shape (pools, days, window); the first windows begin with the value `before`."""
    padding = np.full((values.shape[0], days - 1), before)
    view: Days = sliding_window_view(np.concatenate([padding, values], axis=1), days, axis=1)
    return view


def count(values: Days, days: int) -> Days:
    found: Days = windows(np.where(np.isnan(values), 0.0, 1.0), days, before=0.0).sum(axis=2)
    return found


def total(values: Days, days: int) -> Days:
    """Sum; 0.0 where nothing is known."""
    found: Days = windows(np.where(np.isnan(values), 0.0, values), days, before=0.0).sum(axis=2)
    return found


def mean(values: Days, days: int) -> Days:
    known = count(values, days)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known > 0, total(values, days) / known, np.nan)


def deviation(values: Days, days: int) -> Days:
    """Sample standard deviation (divisor n - 1, in two passes); NaN with fewer than two values."""
    window, known = windows(values, days), count(values, days)
    squares = np.nansum((window - mean(values, days)[:, :, None]) ** 2, axis=2)
    return np.where(known > 1, np.sqrt(squares / np.maximum(known - 1, 1)), np.nan)


def quantiles(values: Days, days: int, levels: Sequence[float]) -> list[Days]:
    """Quantiles with linear interpolation between order statistics (Hyndman & Fan 1996, type 7),
    one array a level.
    """
    ordered = np.sort(windows(values, days), axis=2)
    last = np.maximum(count(values, days) - 1, 0)
    found = []
    for level in levels:
        position = last * level
        lower = np.floor(position).astype(np.intp)
        upper = np.minimum(lower + 1, last.astype(np.intp))
        low, high = (
            np.take_along_axis(ordered, index[:, :, None], axis=2)[:, :, 0]
            for index in (lower, upper)
        )
        found.append(low + (high - low) * (position - lower))
    return found


def median(values: Days, days: int) -> Days:
    return quantiles(values, days, [0.5])[0]


def lowest(values: Days, days: int) -> Days:
    found: Days = np.fmin.reduce(windows(values, days), axis=2)
    return found


def highest(values: Days, days: int) -> Days:
    found: Days = np.fmax.reduce(windows(values, days), axis=2)
    return found


def exponential_mean(values: Days, half_life: float) -> Days:
    """Exponentially weighted mean of the values known so far, their weights halved every
    `half_life` days; NaN before the first.
    """
    decay = 0.5 ** (1.0 / half_life)
    weighted, weights = np.zeros(values.shape[0]), np.zeros(values.shape[0])
    means = np.full_like(values, np.nan)
    for day in range(values.shape[1]):
        known = ~np.isnan(values[:, day])
        weighted = weighted * decay + np.where(known, values[:, day], 0.0)
        weights = weights * decay + known
        np.divide(weighted, weights, out=means[:, day], where=weights > 0.0)
    return means


def days_since(happened: npt.NDArray[np.bool_]) -> Days:
    """Days since it last happened, 0 on the day itself; NaN before the first time."""
    day = np.arange(happened.shape[1], dtype=float)
    last = np.fmax.accumulate(np.where(happened, day, np.nan), axis=1)
    since: Days = day - last
    return since
