"""Scores of out-of-sample forecasts, compared with persistence, the 7-day median and mean
reversion.

Reads evaluation rows (columns of `yieldspark.forecast_evaluation`); returns numbers, None where a
score has no value. Errors are in APY points or USD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from common.quantities import count
from forecasting.evaluation.day_bootstrap import LEVEL, mean_ratio_interval, median_ratio_interval
from forecasting.evaluation.error_measures import (
    MAPE_FLOOR,
    Integers,
    IntervalScores,
    PointErrors,
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


@dataclass(frozen=True)
class ErrorRatios:
    """The model's errors relative to persistence's: under 1 is better, None is not defined.

    Attributes:
        mae_low, mae_high: bootstrap interval of the MAE ratio; None with too few days.
        median_ae_low, median_ae_high: bootstrap interval of the median error's ratio.
    """

    mae: float | None = None
    median_ae: float | None = None
    rmse: float | None = None
    mape: float | None = None
    mase: float | None = None
    mae_low: float | None = None
    mae_high: float | None = None
    median_ae_low: float | None = None
    median_ae_high: float | None = None


@dataclass(frozen=True)
class Score:
    """Scores of one target and class of pools.

    Attributes:
        rows: scored forecasts.
        pools: their pools.
        days: their as-of days.
        interval: scores of the published interval.
        mase_pools: pools of MASE, those whose value moved before the forecasts.
        errors: errors of each of FORECASTS; empty without rows.
        ratio: errors of the model relative to persistence's.
    """

    rows: int
    pools: int
    days: int
    interval: IntervalScores
    mase_pools: int = 0
    errors: Mapping[str, PointErrors] = field(default_factory=dict)
    ratio: ErrorRatios = ErrorRatios()

    def to_json(self) -> dict[str, Any]:
        """Returns the score for JSON; without rows only their counts."""
        counts = {"rows": self.rows, "pools": self.pools, "days": self.days}
        if not self.rows:
            return counts
        return {
            **counts,
            "mase_pools": self.mase_pools,
            **{name: asdict(errors) for name, errors in self.errors.items()},
            "ratio": asdict(self.ratio),
            "interval": asdict(self.interval),
        }


# scores by target (apy, tvl) and class (restricted, all)
ScoreTable = Mapping[str, Mapping[str, Score]]


def score_table(rows: pd.DataFrame, level: float) -> ScoreTable:
    """Scores evaluation rows of any targets, large pools and all.

    Args:
        level: nominal coverage of the intervals, 0 to 1.
    """
    masks = {"restricted": investable(rows), "all": pd.Series(True, index=rows.index)}
    table: dict[str, dict[str, Score]] = {}
    for target in sorted(rows["target"].unique()):
        of_target = rows["target"] == target
        table[str(target)] = {
            name: score(rows[mask & of_target], level) for name, mask in masks.items()
        }
    return table


def table_json(table: ScoreTable) -> dict[str, Any]:
    """Returns a score table for JSON."""
    payload: dict[str, Any] = {}
    for target, classes in table.items():
        payload[target] = {name: score.to_json() for name, score in classes.items()}
    return payload


def investable(rows: pd.DataFrame) -> pd.Series[bool]:
    """Returns which rows have a TVL over 1 M USD and an APY under 100 % on the as-of day."""
    large, plausible = (
        values(rows, "tvl_usd") > INVESTABLE_TVL_USD,
        values(rows, "apy_percent") < INVESTABLE_APY_PERCENT,
    )
    return pd.Series(large & plausible, index=rows.index)


def score(rows: pd.DataFrame, level: float) -> Score:
    """Scores one target's rows.

    Args:
        level: nominal coverage of the published interval, 0 to 1.
    """
    if rows.empty:
        return Score(rows=0, pools=0, days=0, interval=IntervalScores(level))
    actual, floor = values(rows, "actual"), MAPE_FLOOR[rows["target"].iloc[0]]
    pools, days = category_codes(rows["pool_id"]), category_codes(rows["as_of"])
    changes = mean_changes(values(rows, "mean_abs_change"), pools)
    absolute = {name: np.abs(actual - values(rows, column)) for name, column in FORECASTS.items()}
    errors = {
        name: point_errors(error, actual, floor, mase(error, pools, changes))
        for name, error in absolute.items()
    }
    return Score(
        rows=len(rows),
        pools=int(pools.max()) + 1,
        days=int(days.max()) + 1,
        interval=interval_scores(rows, level),
        mase_pools=int(np.isfinite(changes).sum()),
        errors=errors,
        ratio=ErrorRatios(
            **_ratios(errors["model"], errors["persistence"]),
            **_ratio_intervals(absolute["model"], absolute["persistence"], days),
        ),
    )


def summary_line(table: ScoreTable) -> str:
    """Returns a score table as one line: errors relative to persistence and coverage by target.

    Uses the class `restricted` where it has rows.
    """
    parts = []
    for target, classes in table.items():
        scores = classes["restricted"] if classes["restricted"].rows else classes["all"]
        errors = scores.ratio
        interval = (
            f" ({LEVEL:.0%} interval {_text(errors.mae_low)} to {_text(errors.mae_high)})"
            if errors.mae_low is not None
            else ""
        )
        parts.append(
            f"{target}: MAE {_text(errors.mae)}{interval}, median error"
            f" {_text(errors.median_ae)} of persistence, coverage"
            f" {_text(scores.interval.coverage)} on {count(scores.rows, 'row')}"
        )
    return "; ".join(parts) or "no day could be scored"


def category_codes(labels: pd.Series[Any]) -> Integers:
    """Returns each label as a number from 0, in the sorted order of the labels."""
    return np.asarray(pd.factorize(labels, sort=True)[0], dtype=np.int64)


def _ratios(model: PointErrors, persistence: PointErrors) -> dict[str, float | None]:
    reference = asdict(persistence)
    return {name: ratio(value, reference[name]) for name, value in asdict(model).items()}


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
