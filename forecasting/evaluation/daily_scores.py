"""The same scores day by day, and over four weeks with their noise: is the model still as good as
it was?

In: evaluation rows of one target (columns of `yieldspark.forecast_evaluation`). Out: a frame with a
row for each target day, sorted; NaN where a score has no value.

A day's MAE is the error of its wildest pool, so its ratio to persistence's jumps from 0.2 to 2.6.
`capped_ratio` compares errors in each pool's own scales instead, none counted as more than
SPIKE_SCALES: every pool has a say (winsorised mean, Tukey 1962). Pools without a scale are not in
it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from forecasting.evaluation.day_bootstrap import mean_ratio_interval
from forecasting.evaluation.error_measures import errors_in_scales, inside, values
from forecasting.features.pool_features import SPIKE_SCALES
from forecasting.features.targets import Values

RECENT_DAYS = 28
"""Four blocks of the bootstrap."""
MEASURES = {
    "mae_ratio": ("forecast", "persistence"),
    "capped_ratio": ("capped_forecast", "capped_persistence"),
    "coverage": ("inside", "has_interval"),
}
"""Each is the sum of the first over the rows divided by that of the second."""


def daily_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """target_date, rows, and for each of MEASURES its value on that day, and of the RECENT_DAYS
    scored days that end with it `<name>_recent` with its interval `<name>_low`, `<name>_high` (see
    `day_bootstrap`); NaN on the first days, which have not so many before them.
    """
    absolute = {
        name: np.abs(values(rows, "actual") - values(rows, name))
        for name in ("forecast", "persistence")
    }
    capped = {
        f"capped_{name}": np.minimum(errors_in_scales(rows, name), SPIKE_SCALES)
        for name in absolute
    }
    held = inside(rows)
    by_row = pd.DataFrame(
        {
            "target_date": rows["target_date"].to_numpy(),
            **absolute,
            **capped,
            "inside": held,
            "has_interval": np.isfinite(held),
        }
    )
    days = by_row.groupby("target_date", sort=True)
    sums = {name: found.to_numpy(float) for name, found in days.sum().items()}
    measured: dict[str, Values] = {}
    for name, (above, below) in MEASURES.items():
        measured |= _measure(name, sums[above], sums[below])
    return pd.DataFrame(
        {"target_date": list(days.groups), "rows": days.size().to_numpy(), **measured}
    )


def _measure(name: str, above: Values, below: Values) -> dict[str, Values]:
    """Of the sums of each day: the ratio of the day, and of the days up to it."""
    recent = np.full((3, len(above)), np.nan)
    for end in range(RECENT_DAYS, len(above) + 1):
        part = slice(end - RECENT_DAYS, end)
        ends = mean_ratio_interval(above[part], below[part], np.arange(RECENT_DAYS))
        recent[:, end - 1] = [
            _ratio(above[part].sum(), below[part].sum()),
            *(np.nan if one is None else one for one in ends),
        ]
    return {
        name: _ratio(above, below),
        f"{name}_recent": recent[0],
        f"{name}_low": recent[1],
        f"{name}_high": recent[2],
    }


def _ratio(above: Values, below: Values) -> Values:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0.0)
