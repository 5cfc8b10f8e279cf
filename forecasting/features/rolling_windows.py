"""Rolling windows over dense days in plain numpy.

Arrays have the shape (pools, days), one column a UTC day, NaN for unknown. A window of n days ends
with its own day and leaves unknown values out. Each value is computed from its own window alone;
only the exponential mean depends on the whole history.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Days = npt.NDArray[np.float64]


def lag(values: Days, days: int) -> Days:
    """Returns the value of `days` days before; negative days look ahead."""
    shifted = np.full_like(values, np.nan)
    if days == 0:
        return values
    if days > 0:
        shifted[:, days:] = values[:, :-days]
    else:
        shifted[:, :days] = values[:, -days:]
    return shifted


def windows(values: Days, days: int, *, before: float = np.nan) -> Days:
    """Returns a view of shape (pools, days, window).

    Args:
        days: length of the window.
        before: value of the days before the first column.
    """
    padding = np.full((values.shape[0], days - 1), before)
    view: Days = sliding_window_view(np.concatenate([padding, values], axis=1), days, axis=1)
    return view


def count(values: Days, days: int) -> Days:
    """Returns the number of known values."""
    counts: Days = windows(np.where(np.isnan(values), 0.0, 1.0), days, before=0.0).sum(axis=2)
    return counts


def total(values: Days, days: int) -> Days:
    """Returns the sum; 0.0 without a known value."""
    # a running sum would be faster, but carries the rounding error of a spike to all later days
    sums: Days = windows(np.where(np.isnan(values), 0.0, values), days, before=0.0).sum(axis=2)
    return sums


def mean(values: Days, days: int) -> Days:
    """Returns the mean; NaN without a known value."""
    counts = count(values, days)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts > 0, total(values, days) / counts, np.nan)


def deviation(values: Days, days: int) -> Days:
    """Returns the sample standard deviation, in two passes; NaN with fewer than two values."""
    window, counts = windows(values, days), count(values, days)
    squares = np.nansum((window - mean(values, days)[:, :, None]) ** 2, axis=2)
    return np.where(counts > 1, np.sqrt(squares / np.maximum(counts - 1, 1)), np.nan)


def quantiles(values: Days, days: int, levels: Sequence[float]) -> list[Days]:
    """Returns quantiles of type 7 (Hyndman & Fan 1996), one array a level."""
    # NaN sorts last: positions up to `last` are known values, or NaN if there is none
    ordered = np.sort(windows(values, days), axis=2)
    last = np.maximum(count(values, days) - 1, 0)
    results = []
    for level in levels:
        position = last * level
        lower = np.floor(position).astype(np.intp)
        upper = np.minimum(lower + 1, last.astype(np.intp))
        low, high = (
            np.take_along_axis(ordered, index[:, :, None], axis=2)[:, :, 0]
            for index in (lower, upper)
        )
        results.append(low + (high - low) * (position - lower))
    return results


def median(values: Days, days: int) -> Days:
    """Returns the median; NaN without a known value."""
    return quantiles(values, days, [0.5])[0]


def lowest(values: Days, days: int) -> Days:
    """Returns the minimum; NaN without a known value."""
    minimum: Days = np.fmin.reduce(windows(values, days), axis=2)
    return minimum


def highest(values: Days, days: int) -> Days:
    """Returns the maximum; NaN without a known value."""
    maximum: Days = np.fmax.reduce(windows(values, days), axis=2)
    return maximum


def exponential_mean(values: Days, half_life: float) -> Days:
    """Returns the exponentially weighted mean of all known values up to each day.

    Args:
        half_life: days after which a value has half its weight.

    Returns:
        NaN before the first known value.
    """
    decay = 0.5 ** (1.0 / half_life)
    weighted, weights = np.zeros(values.shape[0]), np.zeros(values.shape[0])
    means = np.full_like(values, np.nan)
    for day in range(values.shape[1]):
        is_known = ~np.isnan(values[:, day])
        weighted = weighted * decay + np.where(is_known, values[:, day], 0.0)
        weights = weights * decay + is_known
        np.divide(weighted, weights, out=means[:, day], where=weights > 0.0)
    return means


def days_since(happened: npt.NDArray[np.bool_]) -> Days:
    """Returns days since the last True, 0 on the day itself; NaN before the first."""
    day = np.arange(happened.shape[1], dtype=float)
    last = np.fmax.accumulate(np.where(happened, day, np.nan), axis=1)
    since: Days = day - last
    return since
