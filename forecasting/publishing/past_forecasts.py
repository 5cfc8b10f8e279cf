"""Past forecasts of one target as arrays: the input of gate and intervals.

Reads published rows in pandas; returns `PastForecasts`. Moves are in scales: the change of level
(APY percent, TVL log1p(USD)) divided by the pool's scale on its as-of day.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecasting.features.targets import Target, Values
from forecasting.publishing.history_window import PAST_DAYS

# `now` and `next` are in percent or USD, `volatility_scale` in level, model changes in scales;
# `target_day` is a UTC midnight
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


@dataclass(frozen=True)
class PastForecasts:
    """Past forecasts of one target with an actual value, one element each.

    Attributes:
        pool_id: any key of the pool.
        age: days from the target day to the day that is forecast from; 0 is that day.
        move: the model's move, in scales; NaN without a model.
        low: the model's lower quantile, in scales.
        high: the model's upper quantile, in scales.
        actual_move: the move that followed, in scales.
        change: the change that followed, relative to the value's size (`Target.size`).
        is_cold: the pool had no scale yet.
    """

    pool_id: npt.NDArray[Any]
    age: npt.NDArray[np.int64]
    move: Values
    low: Values
    high: Values
    actual_move: Values
    change: Values
    is_cold: npt.NDArray[np.bool_]

    @property
    def days(self) -> int:
        """Target days with a model's move."""
        return int(np.unique(self.age[np.isfinite(self.move)]).size)

    @property
    def pools(self) -> int:
        """Pools with a model's move."""
        return int(pd.unique(self.pool_id[np.isfinite(self.move)]).size)


@dataclass(frozen=True)
class ForecastHistory:
    """All forecasts of one target, computed once for all days of a backtest.

    Attributes:
        target_day: days since 1970-01-01.
        has_actual: the target day's value was observed.
        columns: arrays by field of `PastForecasts`, without `age`.
    """

    target_day: npt.NDArray[np.int64]
    has_actual: npt.NDArray[np.bool_]
    columns: dict[str, npt.NDArray[Any]]

    def observed_by(self, day: dt.date) -> PastForecasts:
        """Selects forecasts whose target day is one of the PAST_DAYS days up to `day`.

        Returns:
            The forecasts that have an actual value; none of a target day after `day`.
        """
        age = np.datetime64(day, "D").astype(np.int64) - self.target_day
        # a target day after `day` has a negative age: nothing is learned from the future
        selected = np.flatnonzero((age >= 0) & (age < PAST_DAYS) & self.has_actual)
        return PastForecasts(
            age=age[selected], **{name: values[selected] for name, values in self.columns.items()}
        )


def forecast_history(
    target: Target, rows: pd.DataFrame, pools: npt.NDArray[Any] | None = None
) -> ForecastHistory:
    """Converts rows of PAST_COLUMNS into arrays.

    Args:
        rows: PAST_COLUMNS.
        pools: keys of the rows' pools; default: `pool_id`.
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
            "actual_move": change / scale,
            "change": change / target.size(now),
            "is_cold": np.isnan(scale),
        },
    )


def past_forecasts(target: Target, rows: pd.DataFrame, day: dt.date) -> PastForecasts:
    """Returns the past forecasts that gate and interval use on `day`.

    Args:
        rows: PAST_COLUMNS.
    """
    return forecast_history(target, rows).observed_by(day)


def empty_history() -> pd.DataFrame:
    """Returns PAST_COLUMNS without a row."""
    kinds = {"pool_id": "object", "target_day": "datetime64[ns]"}
    return pd.DataFrame(
        {name: pd.Series(dtype=kinds.get(name, "float64")) for name in PAST_COLUMNS}
    )


def decay(age: npt.NDArray[np.int64], half_life: float) -> Values:
    """Returns weights that halve every `half_life` days."""
    weights: Values = 0.5 ** (age / half_life)
    return weights


def _column(rows: pd.DataFrame, name: str) -> Values:
    return rows[name].to_numpy(float)
