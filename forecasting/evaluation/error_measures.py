"""Error measures: errors of point forecasts, losses of intervals, and ratios of two of them.

Reads columns of evaluation rows of one target; returns plain numbers in the target's units (APY
points or USD) unless stated otherwise, and None where a measure has no value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecasting.features.targets import Values

Integers = npt.NDArray[np.int64]

# least denominator of MAPE, in APY points and USD: otherwise a pool at 0.01 % or with 3 USD would
# decide the mean alone
MAPE_FLOOR = {"apy": 1.0, "tvl": 1_000.0}


@dataclass(frozen=True)
class PointErrors:
    """Errors of a point forecast; None where one is unknown on a row.

    Attributes:
        mae: mean absolute error, in the target's units, as `median_ae` and `rmse`.
        mape: mean of |error| / max(|actual|, MAPE_FLOOR), a share.
        mase: mean absolute scaled error, see `mase`; None without a pool that moved.
    """

    mae: float | None
    median_ae: float | None
    rmse: float | None
    mape: float | None
    mase: float | None


@dataclass(frozen=True)
class IntervalScores:
    """Scores of the published interval and of the naive one around persistence.

    Attributes:
        level: nominal coverage, 0 to 1.
        rows: rows with a published interval.
        coverage: share of their actual values inside, both ends included.
        mean_width: in the target's units.
        pinball: mean of the losses at the lower quantile, the median and the upper quantile.
        pinball_ratio: to the naive interval's; this and the naive scores are of the rows that have
            both intervals.
    """

    level: float
    rows: int = 0
    coverage: float | None = None
    mean_width: float | None = None
    pinball: float | None = None
    pinball_ratio: float | None = None
    naive_coverage: float | None = None
    naive_width: float | None = None


def values(rows: pd.DataFrame, column: str) -> Values:
    """Returns a column as floats, NaN if the rows lack it: fewer columns give fewer scores."""
    return rows[column].to_numpy(float) if column in rows else np.full(len(rows), np.nan)


def errors_in_scales(rows: pd.DataFrame, column: str) -> Values:
    """Returns the absolute errors of a column in the pool's scales, its usual one-day steps.

    Args:
        rows: evaluation rows of one target.
        column: `forecast` or `persistence`.

    Returns:
        One error for each row; NaN without a scale.
    """
    actual, forecast = values(rows, "actual"), values(rows, column)
    if (rows["target"] == "tvl").any():
        # the scale of TVL is in log1p(USD)
        actual, forecast = np.log1p(actual), np.log1p(forecast)
    return np.asarray(np.abs(actual - forecast) / values(rows, "volatility_scale"))


def number(value: float) -> float | None:
    """Returns the value for JSON: None for NaN and infinities."""
    return value if math.isfinite(value) else None


def mean(numbers: Values) -> float | None:
    """Returns the mean; None without numbers."""
    return number(float(numbers.mean())) if numbers.size else None


def median(numbers: Values) -> float | None:
    """Returns the median; None without numbers."""
    return number(float(np.median(numbers))) if numbers.size else None


def ratio(value: float | None, reference: float | None) -> float | None:
    """Returns value / reference; None if the reference is zero or either is unknown."""
    return number(value / reference) if value is not None and reference else None


def point_errors(absolute: Values, actual: Values, floor: float, mase: float | None) -> PointErrors:
    """Computes the errors of a point forecast.

    Args:
        absolute: absolute errors.
        actual: actual values.
        floor: least denominator of MAPE.
        mase: the mean absolute scaled error of the same rows.
    """
    # One unknown error makes all of them unknown: without its row they would not be of the same
    # rows as other forecasts.
    return PointErrors(
        mae=mean(absolute),
        median_ae=median(absolute),
        rmse=number(math.sqrt((absolute**2).mean())),
        mape=mean(absolute / np.maximum(np.abs(actual), floor)),
        mase=mase,
    )


def mean_changes(change: Values, pools: Integers) -> Values:
    """Returns the mean one-step change of each pool, the unit of `mase`.

    Args:
        change: one-step changes by row; NaN if unknown.
        pools: number of each row's pool, from 0.

    Returns:
        One value for each pool; NaN if it is zero or unknown.
    """
    is_known = np.isfinite(change)
    count = int(pools.max()) + 1
    rows = np.bincount(pools[is_known], minlength=count)
    total = np.bincount(pools[is_known], change[is_known], count)
    return np.divide(total, rows, out=np.full(count, np.nan), where=total > 0.0)


def mase(absolute: Values, pools: Integers, changes: Values) -> float | None:
    """Returns the mean absolute scaled error (Hyndman and Koehler 2006, section 3).

    Args:
        absolute: absolute errors by row.
        pools: number of each row's pool, from 0.
        changes: `mean_changes` of the days before the forecasts.

    Returns:
        Mean over pools of mean |error| / mean change, without pools that have no change.
    """
    scaled = np.bincount(pools, absolute) / np.bincount(pools) / changes
    return mean(scaled[np.isfinite(changes)])


def inside(rows: pd.DataFrame, low: str = "low", high: str = "high") -> Values:
    """Returns whether the interval, both ends included, contains the actual value.

    Args:
        rows: evaluation rows of one target.
        low: column of the lower end.
        high: column of the upper end.

    Returns:
        1.0 or 0.0 for each row; NaN without an interval.
    """
    actual, lower, upper = values(rows, "actual"), values(rows, low), values(rows, high)
    return np.where(
        np.isfinite(lower) & np.isfinite(upper), (lower <= actual) & (actual <= upper), np.nan
    )


def interval_scores(rows: pd.DataFrame, level: float) -> IntervalScores:
    """Computes the scores of the published interval and of the naive one.

    Args:
        rows: evaluation rows of one target.
        level: nominal coverage, 0 to 1.
    """
    low, high, naive_low, naive_high = (
        values(rows, column) for column in ("low", "high", "naive_low", "naive_high")
    )
    has_interval = np.isfinite(low) & np.isfinite(high)
    has_both = has_interval & np.isfinite(naive_low) & np.isfinite(naive_high)
    actual, tail = values(rows, "actual"), (1.0 - level) / 2.0
    loss = _interval_loss(actual, (low, values(rows, "forecast"), high), tail)
    naive_loss = _interval_loss(actual, (naive_low, values(rows, "persistence"), naive_high), tail)
    return IntervalScores(
        level=level,
        rows=int(has_interval.sum()),
        coverage=mean(inside(rows)[has_interval]),
        mean_width=mean((high - low)[has_interval]),
        pinball=mean(loss[has_interval]),
        pinball_ratio=ratio(mean(loss[has_both]), mean(naive_loss[has_both])),
        naive_coverage=mean(inside(rows, "naive_low", "naive_high")[has_both]),
        naive_width=mean((naive_high - naive_low)[has_both]),
    )


def _interval_loss(actual: Values, quantiles: tuple[Values, Values, Values], tail: float) -> Values:
    """Mean pinball loss of three quantiles (Koenker and Bassett 1978)."""
    losses = [
        np.maximum(q * (actual - value), (q - 1.0) * (actual - value))
        for q, value in zip((tail, 0.5, 1.0 - tail), quantiles, strict=True)
    ]
    return np.asarray(np.mean(losses, axis=0))
