"""Scores of one target day by day, and over four weeks with their noise.

Reads evaluation rows (columns of `yieldspark.forecast_evaluation`); returns one row for each target
day, sorted, with NaN where a score has no value.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from forecasting.evaluation.day_bootstrap import mean_ratio_interval
from forecasting.evaluation.error_measures import errors_in_scales, inside, values
from forecasting.features.pool_features import SPIKE_SCALES
from forecasting.features.targets import Values

# four blocks of the bootstrap
RECENT_DAYS = 28
# each measure is the sum of the first column divided by the sum of the second
MEASURES = {
    "mae_ratio": ("forecast", "persistence"),
    "capped_ratio": ("capped_forecast", "capped_persistence"),
    "coverage": ("inside", "has_interval"),
}


def daily_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Computes the scores of each target day, as `scores_of_sums`, from evaluation rows of one
    target.
    """
    return scores_of_sums(daily_sums(rows))


def scores_of_sums(sums: pd.DataFrame) -> pd.DataFrame:
    """Computes the scores of each target day.

    Args:
        sums: as `daily_sums` returns them, for one target.

    Returns:
        target_date, rows and, for each of MEASURES, its value on that day and of the RECENT_DAYS
            scored days up to it: `<name>_recent` with its bootstrap interval `<name>_low`,
            `<name>_high`; these are NaN on the first days.
    """
    measures: dict[str, Values] = {}
    for name, (above, below) in MEASURES.items():
        measures |= _measure(name, sums[above].to_numpy(float), sums[below].to_numpy(float))
    return pd.DataFrame(
        {"target_date": list(sums["target_date"]), "rows": sums["rows"].to_numpy(), **measures}
    )


def daily_sums(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds up the errors and hits of each target day.

    Args:
        rows: evaluation rows of one target.

    Returns:
        target_date in order, rows, and the sums that MEASURES names.
    """
    absolute = {
        name: np.abs(values(rows, "actual") - values(rows, name))
        for name in ("forecast", "persistence")
    }
    # A day's MAE is the error of its wildest pool: its ratio to persistence jumps from 0.2 to 2.6.
    # Errors in each pool's own scales, capped at SPIKE_SCALES, give every pool a say (winsorised
    # mean, Tukey 1962); pools without a scale are left out.
    capped = {
        f"capped_{name}": np.minimum(errors_in_scales(rows, name), SPIKE_SCALES)
        for name in absolute
    }
    is_inside = inside(rows)
    by_row = pd.DataFrame(
        {
            "target_date": rows["target_date"].to_numpy(),
            **absolute,
            **capped,
            "inside": is_inside,
            "has_interval": np.isfinite(is_inside),
        }
    )
    days = by_row.groupby("target_date", sort=True)
    return days.sum().assign(rows=days.size()).reset_index()


def _measure(name: str, above: Values, below: Values) -> dict[str, Values]:
    """Ratios of daily sums: of each day, and of the RECENT_DAYS days up to it."""
    recent = np.full((3, len(above)), np.nan)
    for end in range(RECENT_DAYS, len(above) + 1):
        part = slice(end - RECENT_DAYS, end)
        ends = mean_ratio_interval(above[part], below[part], np.arange(RECENT_DAYS))
        recent[:, end - 1] = [
            _ratio(above[part].sum(), below[part].sum()),
            *(np.nan if bound is None else bound for bound in ends),
        ]
    return {
        name: _ratio(above, below),
        f"{name}_recent": recent[0],
        f"{name}_low": recent[1],
        f"{name}_high": recent[2],
    }


def _ratio(above: Values, below: Values) -> Values:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0.0)
