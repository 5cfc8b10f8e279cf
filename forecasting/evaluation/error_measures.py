"""What the scores are made of: errors of a point forecast, losses of an interval, and the ratio of
two of them.

In: columns of evaluation rows of one target. Out: plain numbers in the target's units (APY points
or USD) unless said; None where one has no value.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecasting.features.targets import Values

Numbers = npt.NDArray[np.int64]

MAPE_FLOOR = {"apy": 1.0, "tvl": 1_000.0}
"""Least denominator of MAPE, in APY points and USD: a pool at 0.01 % or with 3 USD would decide the
mean alone.
"""


def values(rows: pd.DataFrame, column: str) -> Values:
    """A column as floats; NaN where the rows do not have it: a caller that joins fewer columns gets
    fewer scores.
    """
    return rows[column].to_numpy(float) if column in rows else np.full(len(rows), np.nan)


def errors_in_scales(rows: pd.DataFrame, column: str) -> Values:
    """How far one target's column lies from what came true, in the pool's scales, so in its usual
    one-day steps; NaN where it has no scale.
    """
    actual, said = values(rows, "actual"), values(rows, column)
    if (rows["target"] == "tvl").any():
        actual, said = np.log1p(actual), np.log1p(said)
    return np.asarray(np.abs(actual - said) / values(rows, "volatility_scale"))


def number(value: float) -> float | None:
    """As JSON takes it."""
    return value if math.isfinite(value) else None


def mean(numbers: Values) -> float | None:
    return number(float(numbers.mean())) if numbers.size else None


def median(numbers: Values) -> float | None:
    return number(float(np.median(numbers))) if numbers.size else None


def ratio(value: float | None, reference: float | None) -> float | None:
    """None where the reference is zero or either is unknown."""
    return number(value / reference) if value is not None and reference else None


def point_errors(absolute: Values, actual: Values, floor: float) -> dict[str, float | None]:
    """mae, median_ae, rmse, and mape as a share: mean of |error| / max(|actual|, floor).

    All are None where one error is unknown: without its row they would not be of the same rows as
    the others.
    """
    return {
        "mae": mean(absolute),
        "median_ae": median(absolute),
        "rmse": number(math.sqrt((absolute**2).mean())),
        "mape": mean(absolute / np.maximum(np.abs(actual), floor)),
    }


def mean_changes(change: Values, pools: Numbers) -> Values:
    """Mean one-step change of each pool over its known rows, the unit of `mase`; NaN where it is
    zero or unknown. `pools` count from 0.
    """
    known = np.isfinite(change)
    count = int(pools.max()) + 1
    rows = np.bincount(pools[known], minlength=count)
    total = np.bincount(pools[known], change[known], count)
    return np.divide(total, rows, out=np.full(count, np.nan), where=total > 0.0)


def mase(absolute: Values, pools: Numbers, changes: Values) -> float | None:
    """Mean over pools of mean |error| / mean change; pools without a change are left out.

    Source: Hyndman and Koehler (2006), "Another look at measures of forecast accuracy", section 3;
    the days before a forecast are its sample.
    """
    scaled = np.bincount(pools, absolute) / np.bincount(pools) / changes
    return mean(scaled[np.isfinite(changes)])


def inside(rows: pd.DataFrame, low: str = "low", high: str = "high") -> Values:
    """1.0 where the interval, both ends included, holds what came true, 0.0 where not, NaN where
    there is no interval.
    """
    actual, lower, upper = values(rows, "actual"), values(rows, low), values(rows, high)
    return np.where(
        np.isfinite(lower) & np.isfinite(upper), (lower <= actual) & (actual <= upper), np.nan
    )


def interval_scores(rows: pd.DataFrame, level: float) -> dict[str, float | None]:
    """rows with a published interval, its coverage, mean_width and pinball loss there, and the same
    of the naive interval.

    `pinball` is the mean of the losses at the lower quantile, the median and the upper quantile.
    `pinball_ratio` (to the naive interval around persistence), `naive_coverage` and `naive_width`
    are of the rows that have both intervals.
    """
    low, high, naive_low, naive_high = (
        values(rows, column) for column in ("low", "high", "naive_low", "naive_high")
    )
    known = np.isfinite(low) & np.isfinite(high)
    both = known & np.isfinite(naive_low) & np.isfinite(naive_high)
    actual, tail = values(rows, "actual"), (1.0 - level) / 2.0
    loss = _interval_loss(actual, (low, values(rows, "forecast"), high), tail)
    naive_loss = _interval_loss(actual, (naive_low, values(rows, "persistence"), naive_high), tail)
    return {
        "rows": int(known.sum()),
        "coverage": mean(inside(rows)[known]),
        "mean_width": mean((high - low)[known]),
        "pinball": mean(loss[known]),
        "pinball_ratio": ratio(mean(loss[both]), mean(naive_loss[both])),
        "naive_coverage": mean(inside(rows, "naive_low", "naive_high")[both]),
        "naive_width": mean((naive_high - naive_low)[both]),
    }


def _interval_loss(actual: Values, quantiles: tuple[Values, Values, Values], tail: float) -> Values:
    """Mean pinball loss of three quantiles. Source: Koenker and Bassett (1978), "Regression
    quantiles".
    """
    losses = [
        np.maximum(q * (actual - value), (q - 1.0) * (actual - value))
        for q, value in zip((tail, 0.5, 1.0 - tail), quantiles, strict=True)
    ]
    return np.asarray(np.mean(losses, axis=0))
