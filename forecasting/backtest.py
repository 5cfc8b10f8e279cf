"""Rolling origin: what would have been published on each of the last days, and the as-of day's forecast by the very same steps.

In: out-of-sample moves of the stacked model. Out: `Forecasts`: values with intervals (percent, USD) for the scored days and for the as-of day.
On every day the weight and the interval come from targets that had come true by then, so scores and coverage are out of sample.
Rows here are pools with enough history; what is published for the others is decided in `rules`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecasting.folds import FoldPlan
from forecasting.intervals import residual_quantiles
from forecasting.persistence_gate import blend_weight
from forecasting.stacked_model import OutOfSample
from forecasting.targets import Target, Values

PUBLISHED = ("pool_id", "date", "now", "next", "forecast", "low", "high", "median_7d", "tvl_usd", "apy_percent", "modelled")


@dataclass(frozen=True)
class TargetForecasts:
    """`rows` has PUBLISHED for scored days and the as-of day.

    `weights` are the blend by origin; `relative_residuals` are persistence's outer residuals in relative scales, for pools without one of their own.
    """

    target: Target
    rows: pd.DataFrame
    weights: dict[dt.date, float]
    relative_residuals: tuple[float, float]


def forecast_target(sample: OutOfSample, plan: FoldPlan, target: Target, level: float) -> TargetForecasts:
    """Blend, interval and values of one target for each scored day and the as-of day; one pass over the days."""
    rows = _in_scales(sample.rows, target)
    known = (rows["date"] + pd.Timedelta(days=plan.horizon)).to_numpy()
    published, weights = [], {}
    window = (plan.calibration.end - plan.calibration.start).days
    for fold in plan.apy:
        if fold.origin in plan.calibration:
            continue
        past = _past(rows, known, fold.origin, window)
        weights[fold.origin] = blend_weight(past["came_true"].to_numpy(), past["move"].to_numpy())
        for day in pd.date_range(fold.forecast.start, fold.forecast.end, inclusive="left"):
            past = _past(rows, known, day.date(), window)
            published.append(_publish(rows[rows["date"] == day], past, weights[fold.origin], target, level))
    past = _past(rows, known, plan.as_of, window)
    relative = (past["came_true"] * past["scale"] / target.relative_scale(past["now"].to_numpy())).to_numpy()
    return TargetForecasts(target, pd.concat(published, ignore_index=True), weights, residual_quantiles(relative, level))


def evaluation_rows(forecasts: TargetForecasts, sample: OutOfSample, plan: FoldPlan, *, engine: str, level: float, run_id: str) -> pd.DataFrame:
    """Scored rows as `yieldspark.forecast_evaluation` keeps them: both days observed, forecast by the model."""
    rows = forecasts.rows
    scored = rows[(rows["date"] < pd.Timestamp(plan.scored.end)) & rows["next"].notna() & rows["modelled"]]
    versions = {day: sample.version(forecasts.target.name, day.date()) for day in scored["date"].unique()}
    return pd.DataFrame(
        {
            "pool_id": scored["pool_id"],
            "target_date": (scored["date"] + pd.Timedelta(days=plan.horizon)).dt.date,
            "horizon_days": plan.horizon,
            "target": forecasts.target.name,
            "engine": engine,
            "as_of": scored["date"].dt.date,
            "actual": scored["next"],
            "forecast": scored["forecast"],
            "low": scored["low"],
            "high": scored["high"],
            "persistence": scored["now"],
            "median_7d": scored["median_7d"],
            "tvl_usd": scored["tvl_usd"],
            "apy_percent": scored["apy_percent"],
            "interval_level": level,
            "model_version": scored["date"].map(versions),
            "run_id": run_id,
        }
    )


def _in_scales(sample: pd.DataFrame, target: Target) -> pd.DataFrame:
    """The sample under one target's names; `came_true` is the move that followed, in scales and not clipped."""
    name = target.name
    now, after, scale = (sample[column].to_numpy(float) for column in (name, f"{name}_next", f"{name}_scale"))
    return pd.DataFrame(
        {
            "pool_id": sample["pool_id"],
            "date": sample["date"],
            "now": now,
            "next": after,
            "scale": scale,
            "move": sample[f"{name}_move_forecast"].to_numpy(float),
            "came_true": (target.level(after) - target.level(now)) / scale,
            "lowest": np.zeros(len(sample)) if target.logarithmic else np.minimum(sample["apy_lowest_30"].to_numpy(float), 0.0),
            "median_7d": sample[f"{name}_median_7"].to_numpy(float),
            "tvl_usd": sample["tvl"].to_numpy(float),
            "apy_percent": sample["apy"].to_numpy(float),
        }
    )


def _past(rows: pd.DataFrame, known: npt.NDArray[np.datetime64], day: dt.date, window: int) -> pd.DataFrame:
    """Rows whose target day is on or before `day`, of the last `window` target days."""
    end = np.datetime64(day)
    return rows[(known <= end) & (known > end - np.timedelta64(window, "D"))]


def _publish(today: pd.DataFrame, past: pd.DataFrame, weight: float, target: Target, level: float) -> pd.DataFrame:
    """One day's values: level + scale * (weight * move), and the same with the past residuals' quantiles added."""
    low, high = residual_quantiles(_blended_residuals(past, weight), level)
    now, scale, lowest = (today[column].to_numpy(float) for column in ("now", "scale", "lowest"))
    move = weight * np.nan_to_num(today["move"].to_numpy(float))
    values = {name: target.moved(now, scale * (move + added), lowest) for name, added in (("forecast", 0.0), ("low", low), ("high", high))}
    return today.assign(**values, modelled=today["move"].notna())[list(PUBLISHED)]


def _blended_residuals(past: pd.DataFrame, weight: float) -> Values:
    came_true = past["came_true"].to_numpy(float)
    return came_true - weight * past["move"].to_numpy(float) if weight else came_true
