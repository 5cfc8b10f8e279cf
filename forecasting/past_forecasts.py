"""What was forecast before and has come true since: what gate and interval learn from.

In: published rows of one target, of the days before the day that is decided about. Out:
`PastForecasts`, plain arrays. Moves are in scales: the change of level (APY percent, TVL
log1p(USD)) divided by the pool's scale on its as-of day. It decides nothing.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecasting.targets import Target, Values

PAST_COLUMNS = ("pool_id", "target_day", "now", "next", "scale", "move", "move_low", "move_high")
"""Of a past forecast of one target: values in percent or USD, scale in level, moves in scales;
target_day a UTC midnight.
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
    followed; all in scales.
    """

    pool_id: npt.NDArray[np.object_]
    age: npt.NDArray[np.int64]
    move: Values
    low: Values
    high: Values
    came_true: Values

    @property
    def days(self) -> int:
        return int(np.unique(self.age[np.isfinite(self.move)]).size)

    @property
    def pools(self) -> int:
        return int(pd.unique(self.pool_id[np.isfinite(self.move)]).size)


def no_past() -> pd.DataFrame:
    """PAST_COLUMNS without a row."""
    kinds = {"pool_id": "object", "target_day": "datetime64[ns]"}
    return pd.DataFrame(
        {name: pd.Series(dtype=kinds.get(name, "float64")) for name in PAST_COLUMNS}
    )


def come_true(rows: pd.DataFrame, day: dt.date) -> pd.DataFrame:
    """Those whose value of the target day was known on `day`, of the last PAST_DAYS target days."""
    age = _age(rows, day)
    known: pd.DataFrame = rows[(age >= 0) & (age < PAST_DAYS) & rows["next"].notna().to_numpy()]
    return known


def past_forecasts(target: Target, rows: pd.DataFrame, day: dt.date) -> PastForecasts:
    """PAST_COLUMNS that had come true by `day`, as gate and interval look at them."""
    now, after = (target.level(_column(rows, name)) for name in ("now", "next"))
    came_true = (after - now) / _column(rows, "scale")
    move, low, high = (_column(rows, name) for name in ("move", "move_low", "move_high"))
    return PastForecasts(
        rows["pool_id"].to_numpy(object), _age(rows, day), move, low, high, came_true
    )


def _age(rows: pd.DataFrame, day: dt.date) -> npt.NDArray[np.int64]:
    """Days since the target day."""
    found: npt.NDArray[np.int64] = (
        np.datetime64(day, "D") - rows["target_day"].to_numpy().astype("datetime64[D]")
    ).astype(np.int64)
    return found


def decay(age: npt.NDArray[np.int64], half_life: float) -> Values:
    weights: Values = 0.5 ** (age / half_life)
    return weights


def _column(rows: pd.DataFrame, name: str) -> Values:
    return rows[name].to_numpy(float)
