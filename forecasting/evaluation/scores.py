"""Scores of out-of-sample forecasts, compared with persistence, the 7-day median and mean
reversion.

Reads evaluation rows (columns of `yieldspark.forecast_evaluation`); returns plain numbers for JSON,
None where a score has no value. Errors are in APY points or USD.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from forecasting.evaluation.day_bootstrap import LEVEL, mean_ratio_interval, median_ratio_interval
from forecasting.evaluation.error_measures import (
    MAPE_FLOOR,
    Integers,
    interval_scores,
    mase,
    mean_changes,
    point_errors,
    ratio,
    values,
)
from forecasting.features.targets import Values

# the class `restricted`: pools that a large investor considers
INVESTABLE_TVL_USD = 1_000_000.0
INVESTABLE_APY_PERCENT = 100.0
FORECASTS = {
    "model": "forecast",
    "persistence": "persistence",
    "median7": "median_7d",
    "mean_reversion": "mean_reversion",
}


def score_table(rows: pd.DataFrame, level: float) -> dict[str, Any]:
    """Scores evaluation rows of any targets.

    Args:
        level: nominal coverage of the intervals, 0 to 1.

    Returns:
        `{target: {"restricted" | "all": score}}`, see `score`.
    """
    masks = {"restricted": investable(rows), "all": pd.Series(True, index=rows.index)}
    table = {}
    for target in sorted(rows["target"].unique()):
        of_target = rows["target"] == target
        table[str(target)] = {
            name: score(rows[mask & of_target], level) for name, mask in masks.items()
        }
    return table


def investable(rows: pd.DataFrame) -> pd.Series[bool]:
    """Returns which rows have a TVL over 1 M USD and an APY under 100 % on the as-of day."""
    large, plausible = (
        values(rows, "tvl_usd") > INVESTABLE_TVL_USD,
        values(rows, "apy_percent") < INVESTABLE_APY_PERCENT,
    )
    return pd.Series(large & plausible, index=rows.index)


def score(rows: pd.DataFrame, level: float) -> dict[str, Any]:
    """Scores one target's rows.

    Args:
        level: nominal coverage of the published interval, 0 to 1.

    Returns:
        rows, pools, days (as-of days); mase_pools, the pools of MASE; for each of FORECASTS mae,
        median_ae, rmse, mape (a share) and mase; `ratio`, the model's errors to persistence's, the
        first two with a bootstrap interval; `interval`, see `interval_scores`. Without rows only
        rows, pools and days.
    """
    if rows.empty:
        return {"rows": 0, "pools": 0, "days": 0}
    actual, floor = values(rows, "actual"), MAPE_FLOOR[rows["target"].iloc[0]]
    pools, days = category_codes(rows["pool_id"]), category_codes(rows["as_of"])
    changes = mean_changes(values(rows, "mean_abs_change"), pools)
    absolute = {name: np.abs(actual - values(rows, column)) for name, column in FORECASTS.items()}
    errors = {
        name: point_errors(error, actual, floor) | {"mase": mase(error, pools, changes)}
        for name, error in absolute.items()
    }
    return {
        "rows": len(rows),
        "pools": int(pools.max()) + 1,
        "days": int(days.max()) + 1,
        "mase_pools": int(np.isfinite(changes).sum()),
        **errors,
        "ratio": (
            _ratios(errors) | _ratio_intervals(absolute["model"], absolute["persistence"], days)
        ),
        "interval": {"level": level, **interval_scores(rows, level)},
    }


def summary_line(table: dict[str, Any]) -> str:
    """Returns a score table as one line: errors relative to persistence and coverage by target.

    Uses the class `restricted` where it has rows.
    """
    parts = []
    for target, classes in table.items():
        scores = classes["restricted"] if classes["restricted"]["rows"] else classes["all"]
        errors = scores["ratio"]
        interval = (
            f" ({LEVEL:.0%} interval {_text(errors['mae_low'])} to {_text(errors['mae_high'])})"
            if errors["mae_low"] is not None
            else ""
        )
        parts.append(
            f"{target}: MAE {_text(errors['mae'])}{interval}, median error"
            f" {_text(errors['median_ae'])} of persistence, coverage"
            f" {_text(scores['interval']['coverage'])} on {scores['rows']} rows"
        )
    return "; ".join(parts) or "no day could be scored"


def category_codes(labels: pd.Series[Any]) -> Integers:
    """Returns each label as a number from 0, in the sorted order of the labels."""
    return np.asarray(pd.factorize(labels, sort=True)[0], dtype=np.int64)


def _ratios(errors: dict[str, dict[str, float | None]]) -> dict[str, float | None]:
    return {
        name: ratio(value, errors["persistence"][name]) for name, value in errors["model"].items()
    }


def _ratio_intervals(model: Values, persistence: Values, days: Integers) -> dict[str, float | None]:
    mae, median_ae = (
        mean_ratio_interval(model, persistence, days),
        median_ratio_interval(model, persistence, days),
    )
    return {
        "mae_low": mae[0],
        "mae_high": mae[1],
        "median_ae_low": median_ae[0],
        "median_ae_high": median_ae[1],
    }


def _text(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
