"""Scores of out-of-sample forecasts beside persistence and the 7-day median, on the same rows.

In: evaluation rows of one target (columns of `yieldspark.forecast_evaluation`). Out: plain numbers for JSON; None where a score has no value.
`restricted` rows are what a large investor looks at: TVL over 1 M USD and APY under 100 % on the as-of day. Units: APY points or USD.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from forecasting.targets import Values

RESTRICTED_TVL_USD = 1_000_000.0
RESTRICTED_APY_PERCENT = 100.0
FORECASTS = {"model": "forecast", "persistence": "persistence", "median7": "median_7d"}


def score_table(rows: pd.DataFrame, level: float) -> dict[str, Any]:
    """`{target: {"restricted" | "all": score}}` of evaluation rows of any targets."""
    chosen = {"restricted": restricted(rows), "all": pd.Series(True, index=rows.index)}
    return {
        str(target): {name: score(rows[mask & (rows["target"] == target)], level) for name, mask in chosen.items()}
        for target in sorted(rows["target"].unique())
    }


def restricted(rows: pd.DataFrame) -> pd.Series[bool]:
    return (rows["tvl_usd"] > RESTRICTED_TVL_USD) & (rows["apy_percent"] < RESTRICTED_APY_PERCENT)


def score(rows: pd.DataFrame, level: float) -> dict[str, Any]:
    """rows, pools, errors of each forecast, `ratio` of the model's to persistence's errors, and the interval's coverage and mean width."""
    if rows.empty:
        return {"rows": 0, "pools": 0}
    actual = rows["actual"].to_numpy(float)
    errors = {name: _errors(actual - rows[column].to_numpy(float)) for name, column in FORECASTS.items()}
    ratio = {name: _ratio(value, errors["persistence"][name]) for name, value in errors["model"].items()}
    return {
        "rows": len(rows),
        "pools": int(rows["pool_id"].nunique()),
        **errors,
        "ratio": ratio,
        "interval": {"level": level, **_interval(actual, rows["low"].to_numpy(float), rows["high"].to_numpy(float))},
    }


def sentence(table: dict[str, Any]) -> str:
    """One line for the ledger and the terminal: ratio to persistence (MAE, median) and coverage on restricted rows."""
    parts = []
    for target, classes in table.items():
        found = classes["restricted"] if classes["restricted"]["rows"] else classes["all"]
        parts.append(
            f"{target}: MAE {_words(found['ratio']['mae'])}, median error {_words(found['ratio']['median_ae'])} of persistence, "
            f"coverage {_words(found['interval']['coverage'])} on {found['rows']} rows"
        )
    return "; ".join(parts) or "no day could be scored"


def _errors(residuals: Values) -> dict[str, float]:
    absolute = np.abs(residuals)
    return {"mae": float(absolute.mean()), "median_ae": float(np.median(absolute)), "rmse": float(np.sqrt((residuals**2).mean()))}


def _interval(actual: Values, low: Values, high: Values) -> dict[str, float | None]:
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return {"coverage": None, "mean_width": None}
    inside = (actual[known] >= low[known]) & (actual[known] <= high[known])
    return {"coverage": float(inside.mean()), "mean_width": float((high[known] - low[known]).mean())}


def _ratio(model: float, persistence: float) -> float | None:
    return model / persistence if persistence > 0.0 else None


def _words(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
