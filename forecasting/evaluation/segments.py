"""The same scores by group of pools: where the model helps, and where it does not.

In: evaluation rows (columns of `yieldspark.forecast_evaluation`, with `chain` and `project` where
the caller joined them). Out: flat dicts of plain numbers, None where a score has no value; errors
in APY points or USD, shares and ratios between 0 and 1. Groups are of the as-of day.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from forecasting.evaluation.day_bootstrap import mean_ratio_interval
from forecasting.evaluation.error_measures import interval_scores, mean, median, ratio, values
from forecasting.evaluation.scores import numbered
from forecasting.features.targets import Values, apy_size

INSTABILITY_LIMITS = {"apy": (0.01, 0.05), "tvl": (0.005, 0.02)}
"""Calm below the first, wild from the second: the pool's usual step as a share of its size. Fixed,
so that a group means the same on every panel.
"""
INSTABILITY = ("calm", "medium", "wild")
TVL_LIMITS_USD = (100_000.0, 1_000_000.0, 10_000_000.0)
TVL_CLASSES = ("<100k", "100k-1M", "1M-10M", "10M+")
AGE_LIMITS_DAYS = (30.0, 90.0, 365.0)
AGE_CLASSES = ("<30", "30-90", "90-365", "365+")
LARGEST = 10
"""Chains and projects shown by name."""

SCORED = (
    "pool_id",
    "as_of",
    "actual",
    "forecast",
    "persistence",
    "low",
    "high",
    "naive_low",
    "naive_high",
)


def score_groups(rows: pd.DataFrame, level: float) -> list[dict[str, Any]]:
    """One dict for each target and group that has rows.

    by: instability (INSTABILITY), tvl_class, age_class (days), chain or project; group: its name;
    then rows, pools, mae, persistence_mae, mae_ratio and the bootstrap's interval of it,
    mae_ratio_low, mae_ratio_high, median_ae_ratio, coverage and pinball_ratio. A class is left out
    where the rows have not its column; in it, rows without a value are `unknown`.
    """
    scores = []
    for target, of_target in rows.groupby("target"):
        scored = of_target[[column for column in SCORED if column in rows]]
        for by, groups in groups_of(of_target, str(target)):
            members = {str(group): scored[groups == group] for group in groups.categories}
            scores += [
                {"target": str(target), "by": by, "group": group, **_group_score(of, level)}
                for group, of in members.items()
                if len(of)
            ]
    return scores


def groups_of(rows: pd.DataFrame, target: str) -> Iterator[tuple[str, pd.Categorical]]:
    """Name of the class and each row's group in it, in the order in which groups are shown, of rows
    with tvl_usd, apy_percent and what else is known: volatility_scale, age_days, chain, project.
    """
    if "volatility_scale" in rows:
        size = apy_size(values(rows, "apy_percent")) if target == "apy" else 1.0
        yield (
            "instability",
            _classes(
                values(rows, "volatility_scale") / size, INSTABILITY_LIMITS[target], INSTABILITY
            ),
        )
    yield "tvl_class", _classes(values(rows, "tvl_usd"), TVL_LIMITS_USD, TVL_CLASSES)
    if "age_days" in rows:
        yield "age_class", _classes(values(rows, "age_days"), AGE_LIMITS_DAYS, AGE_CLASSES)
    for column in ("chain", "project"):
        if column in rows:
            yield column, _largest(rows[column])


def _classes(measured: Values, limits: tuple[float, ...], names: tuple[str, ...]) -> pd.Categorical:
    """A value at a limit is of the class above it."""
    shown = np.array([*names, "unknown"])
    return pd.Categorical(
        shown[
            np.where(
                np.isnan(measured), len(names), np.searchsorted(limits, measured, side="right")
            )
        ],
        shown,
    )


def _largest(labels: pd.Series[str]) -> pd.Categorical:
    """Labels with the most rows, the first of the alphabet among equals; then `other`."""
    known = labels.fillna("unknown")
    largest = (
        known.value_counts()
        .sort_index()
        .sort_values(ascending=False, kind="stable")
        .index[:LARGEST]
    )
    order = [*(name for name in largest if name != "other"), "other"]
    return pd.Categorical(known.where(known.isin(order), "other"), order)


def _group_score(rows: pd.DataFrame, level: float) -> dict[str, Any]:
    model, persistence = (
        np.abs(values(rows, "actual") - values(rows, name)) for name in ("forecast", "persistence")
    )
    low, high = mean_ratio_interval(model, persistence, numbered(rows["as_of"]))
    interval = interval_scores(rows, level)
    return {
        "rows": len(rows),
        "pools": int(rows["pool_id"].nunique()),
        "mae": mean(model),
        "persistence_mae": mean(persistence),
        "mae_ratio": ratio(mean(model), mean(persistence)),
        "mae_ratio_low": low,
        "mae_ratio_high": high,
        "median_ae_ratio": ratio(median(model), median(persistence)),
        "coverage": interval["coverage"],
        "pinball_ratio": interval["pinball_ratio"],
    }
