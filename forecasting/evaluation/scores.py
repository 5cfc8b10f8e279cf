"""Scores of out-of-sample forecasts beside persistence, the 7-day median and the pool's shrunk mean
reversion, on the same rows.

In: evaluation rows (columns of `yieldspark.forecast_evaluation`). Out: plain numbers for JSON; None
where a score has no value. `restricted` rows are what a large investor looks at: TVL over 1 M USD
and APY under 100 % on the as-of day. Units: APY points or USD.
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

INVESTABLE_TVL_USD = 1_000_000.0
INVESTABLE_APY_PERCENT = 100.0
FORECASTS = {
    "model": "forecast",
    "persistence": "persistence",
    "median7": "median_7d",
    "mean_reversion": "mean_reversion",
}


def score_table(rows: pd.DataFrame, level: float) -> dict[str, Any]:
    """`{target: {"restricted" | "all": score}}` of evaluation rows of any targets."""
    chosen = {"restricted": investable(rows), "all": pd.Series(True, index=rows.index)}
    return {
        str(target): {
            name: score(rows[mask & (rows["target"] == target)], level)
            for name, mask in chosen.items()
        }
        for target in sorted(rows["target"].unique())
    }


def investable(rows: pd.DataFrame) -> pd.Series[bool]:
    large, plausible = (
        values(rows, "tvl_usd") > INVESTABLE_TVL_USD,
        values(rows, "apy_percent") < INVESTABLE_APY_PERCENT,
    )
    return pd.Series(large & plausible, index=rows.index)


def score(rows: pd.DataFrame, level: float) -> dict[str, Any]:
    """Scores of one target's rows, with the interval published at `level`.

    rows, pools, days (as-of days); mase_pools, the pools that MASE is a mean of; for each of
    FORECASTS mae, median_ae, rmse, mape (a share) and mase; `ratio`, the model's errors to
    persistence's, with the bootstrap's interval of the first two; `interval`, see
    `interval_scores`.
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
    """One line for the ledger and the terminal: ratio to persistence (MAE with its interval,
    median) and coverage on restricted rows.
    """
    parts = []
    for target, classes in table.items():
        found = classes["restricted"] if classes["restricted"]["rows"] else classes["all"]
        errors = found["ratio"]
        between = (
            f" ({LEVEL:.0%} interval {_words(errors['mae_low'])} to {_words(errors['mae_high'])})"
            if errors["mae_low"] is not None
            else ""
        )
        parts.append(
            f"{target}: MAE {_words(errors['mae'])}{between}, median error"
            f" {_words(errors['median_ae'])} of persistence, coverage"
            f" {_words(found['interval']['coverage'])} on {found['rows']} rows"
        )
    return "; ".join(parts) or "no day could be scored"


def category_codes(labels: pd.Series[Any]) -> Integers:
    """Each row's label as a number from 0, in the order of the labels."""
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


def _words(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
