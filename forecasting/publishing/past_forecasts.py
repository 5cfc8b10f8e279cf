"""What was forecast before and has come true since: what gate and interval learn from.

In: published rows of one target, of the days before the day that is decided about. Out:
`PastForecasts`, plain arrays. Moves are in scales: the change of level (APY percent, TVL
log1p(USD)) divided by the pool's scale on its as-of day. It decides nothing.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecasting.features.targets import Target, Values

PAST_COLUMNS = (
    "pool_id",
    "target_day",
    "now",
    "next",
    "volatility_scale",
    "model_change",
    "model_change_low",
    "model_change_high",
)
"""Of a past forecast of one target: values in percent or USD, volatility_scale in level, model
changes in scales; target_day a UTC midnight.
"""

PAST_DAYS = 90
"""Target days that are looked at: after four and a half half-lives of the gate a day counts for a
twentieth.
"""


@dataclass(frozen=True)
class PastForecasts:
    """One row a forecast that has come true. `age`: days since its target day, 0 for the day that
    is decided about.

    `move` was forecast between `low` and `high`, the model's own quantiles, and `came_true`
    followed; all in scales. `change` is what followed relative to the value's size
    (`Target.size`); `is_cold` where the pool had no scale yet. `pool_id` may be any key of a pool.
    """

    pool_id: npt.NDArray[Any]
    age: npt.NDArray[np.int64]
    move: Values
    low: Values
    high: Values
    came_true: Values
    change: Values
    is_cold: npt.NDArray[np.bool_]

    @property
    def days(self) -> int:
        return int(np.unique(self.age[np.isfinite(self.move)]).size)

    @property
    def pools(self) -> int:
        return int(pd.unique(self.pool_id[np.isfinite(self.move)]).size)


@dataclass(frozen=True)
class ForecastHistory:
    """The same of all forecasts of one target, come true or not; computed once for the days of a
    backtest, which each look at a part of it.
    """

    target_day: npt.NDArray[np.int64]
    """Days since 1970-01-01."""
    is_known: npt.NDArray[np.bool_]
    columns: dict[str, npt.NDArray[Any]]
    """Those of `PastForecasts` but for `age`."""

    def come_true(self, day: dt.date) -> PastForecasts:
        """Those whose value of the target day was known on `day`, of the last PAST_DAYS target
        days.
        """
        age = np.datetime64(day, "D").astype(np.int64) - self.target_day
        found = np.flatnonzero((age >= 0) & (age < PAST_DAYS) & self.is_known)
        return PastForecasts(
            age=age[found], **{name: values[found] for name, values in self.columns.items()}
        )


def forecast_history(
    target: Target, rows: pd.DataFrame, pools: npt.NDArray[Any] | None = None
) -> ForecastHistory:
    """Args: rows have PAST_COLUMNS. pools are keys of the rows' pools that take the place of
    `pool_id`.
    """
    now, after, scale = (_column(rows, name) for name in ("now", "next", "volatility_scale"))
    change = target.level(after) - target.level(now)
    return ForecastHistory(
        rows["target_day"].to_numpy().astype("datetime64[D]").astype(np.int64),
        ~np.isnan(after),
        {
            "pool_id": rows["pool_id"].to_numpy(object) if pools is None else pools,
            "move": _column(rows, "model_change"),
            "low": _column(rows, "model_change_low"),
            "high": _column(rows, "model_change_high"),
            "came_true": change / scale,
            "change": change / target.size(now),
            "is_cold": np.isnan(scale),
        },
    )


def past_forecasts(target: Target, rows: pd.DataFrame, day: dt.date) -> PastForecasts:
    """PAST_COLUMNS that had come true by `day`, as gate and interval look at them."""
    return forecast_history(target, rows).come_true(day)


def no_past() -> pd.DataFrame:
    """PAST_COLUMNS without a row."""
    kinds = {"pool_id": "object", "target_day": "datetime64[ns]"}
    return pd.DataFrame(
        {name: pd.Series(dtype=kinds.get(name, "float64")) for name in PAST_COLUMNS}
    )


def decay(age: npt.NDArray[np.int64], half_life: float) -> Values:
    weights: Values = 0.5 ** (age / half_life)
    return weights


def _column(rows: pd.DataFrame, name: str) -> Values:
    return rows[name].to_numpy(float)
