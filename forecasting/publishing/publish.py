"""Published forecasts of the model: gated moves and calibrated intervals as values.

Reads out-of-sample moves of the stacked model and the history of earlier forecasts; returns
PUBLISHED_COLUMNS in percent (APY) and USD (TVL). The forecast job and the backtest use the same
functions. Pools that were not observed on the as-of day are left to `fallbacks`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecasting.features.targets import Target, Values
from forecasting.models.stacked_model import OutOfSample
from forecasting.publishing.intervals import (
    cold_start_quantiles,
    half_widths,
    relative_quantiles,
    tail_factors,
)
from forecasting.publishing.past_forecasts import PAST_COLUMNS, PastForecasts, forecast_history
from forecasting.publishing.persistence_gate import GATE, gate_weights, gated_steps, refusal

DESCRIPTIVE_COLUMNS = (
    "median_7d",
    "mean_reversion",
    "naive_low",
    "naive_high",
    "mean_abs_change",
    "tvl_usd",
    "apy_percent",
)
# `fallback_reason` is the reason why a forecast equals the as-of day's value: cold_start, no_model,
# no_ledger, few_pools, no_champion or gate; None if the model's forecast is published
PUBLISHED_COLUMNS = (
    *PAST_COLUMNS,
    "date",
    "forecast",
    "low",
    "high",
    "gate_weight",
    "fallback_reason",
    *DESCRIPTIVE_COLUMNS,
)
INPUT_COLUMNS = (
    "now",
    "volatility_scale",
    "lowest",
    "model_change",
    "model_change_low",
    "model_change_high",
)

COLD_START, NO_MODEL, NO_CHAMPION = "cold_start", "no_model", "no_champion"


def publish_days(
    sample: pd.DataFrame,
    target: Target,
    days: Sequence[dt.date],
    *,
    horizon: int,
    level: float,
    history: pd.DataFrame,
    is_shadow: bool = False,
) -> pd.DataFrame:
    """Computes what is published of one target on these as-of days.

    On every day, gate and interval learn from target days up to it only, so scores and coverage
    are out of sample (rolling origin, Tashman 2000).

    Args:
        sample: rows of `OutOfSample.rows`.
        days: as-of days, in time order.
        horizon: days from an as-of day to its target day.
        level: nominal coverage of the interval, 0 to 1.
        history: PAST_COLUMNS of earlier forecasts of this target, none of them of `days`.
        is_shadow: publish persistence, with the model's interval around it.

    Returns:
        PUBLISHED_COLUMNS, in the order of `days`.
    """
    rows, sizes = _in_day_order(_target_rows(sample, target, horizon), days)
    past = pd.concat([history, rows[list(PAST_COLUMNS)]], ignore_index=True)
    pools, pool_ids = pd.factorize(past["pool_id"])
    # rows of all days are in it: `observed_by` hides from a day all target days after it
    forecasts, row_pools = forecast_history(target, past, pools), pools[len(history) :]
    inputs = {name: rows[name].to_numpy(float) for name in INPUT_COLUMNS}
    gates, published, end = np.empty(len(rows), dtype=object), np.empty((4, len(rows))), 0
    for day, size in sizes:
        begin, end = end, end + size
        today = {name: values[begin:end] for name, values in inputs.items()}
        past_of_day = forecasts.observed_by(day)
        reason = refusal(past_of_day) or (NO_CHAMPION if is_shadow else None)
        weights = (
            np.zeros(pool_ids.size)
            if reason
            else gate_weights(past_of_day, np.arange(pool_ids.size), target.panel_days)
        )
        past_steps = gated_steps(weights[past_of_day.pool_id], past_of_day.move, target.least_step)
        published[:, begin:end] = _publish(
            today,
            target,
            weights[row_pools[begin:end]],
            tail_factors(past_of_day, past_steps, level),
            _relative_ends(today, past_of_day, level),
        )
        gates[begin:end] = reason or GATE
    columns = dict(zip(("gate_weight", "forecast", "low", "high"), published, strict=True))
    complete = _with_reasons(rows.assign(**columns), gates)
    return complete[list(PUBLISHED_COLUMNS)].reset_index(drop=True)


def evaluation_rows(
    published: pd.DataFrame,
    sample: OutOfSample,
    target: Target,
    *,
    horizon: int,
    engine: str,
    level: float,
    source: str,
    run_id: str,
) -> pd.DataFrame:
    """Converts published rows of one target into rows of `yieldspark.forecast_evaluation`.

    Args:
        published: rows of `publish_days`.
        sample: the out-of-sample run they were made from; gives the model versions.
        source: PRODUCTION or BACKTEST of `forecast_history`.

    Returns:
        The table's columns; `actual` is NaN before the target day was observed.
    """
    versions = {day: sample.version(day.date()) for day in published["date"].unique()}
    return pd.DataFrame(
        {
            "pool_id": published["pool_id"],
            "target_date": published["target_day"].dt.date,
            "horizon_days": horizon,
            "target": target.name,
            "engine": engine,
            "source": source,
            "as_of": published["date"].dt.date,
            "actual": published["next"],
            "forecast": published["forecast"],
            "low": published["low"],
            "high": published["high"],
            "persistence": published["now"],
            **{
                name: published[name]
                for name in (
                    "volatility_scale",
                    "model_change",
                    "model_change_low",
                    "model_change_high",
                    "gate_weight",
                    *DESCRIPTIVE_COLUMNS,
                )
            },
            "interval_level": level,
            "model_version": published["date"].map(versions),
            "run_id": run_id,
        }
    )


def _in_day_order(
    rows: pd.DataFrame, days: Sequence[dt.date]
) -> tuple[pd.DataFrame, list[tuple[dt.date, int]]]:
    """The rows of these days, day by day, and the rows of each day that has any."""
    indices = rows.groupby("date").indices
    of_day = {day: indices[stamp] for day in days if (stamp := pd.Timestamp(day)) in indices}
    order = np.concatenate([np.empty(0, dtype=np.intp), *of_day.values()])
    return rows.iloc[order], [(day, len(positions)) for day, positions in of_day.items()]


def _target_rows(sample: pd.DataFrame, target: Target, horizon: int) -> pd.DataFrame:
    """The sample under one target's names, of pools that were observed on the as-of day."""
    name = target.name
    rows = sample[sample[f"{name}_observed"]]
    sources = {
        "now": name,
        "next": f"{name}_next",
        "volatility_scale": f"{name}_scale",
        "model_change": f"{name}_move",
        "model_change_low": f"{name}_move_low",
        "model_change_high": f"{name}_move_high",
        "median_7d": f"{name}_median_7",
        "mean_reversion": f"{name}_reverted",
        "naive_low": f"{name}_naive_low",
        "naive_high": f"{name}_naive_high",
        "mean_abs_change": f"{name}_mean_abs_change",
        "tvl_usd": "tvl",
        "apy_percent": "apy",
        "lowest_30": "apy_lowest_30",
    }
    renamed = pd.DataFrame(
        {
            "pool_id": rows["pool_id"],
            "date": rows["date"],
            **{column: rows[source].astype(float) for column, source in sources.items()},
        }
    )
    lowest = 0.0 if target.logarithmic else np.minimum(renamed["lowest_30"], 0.0)
    # a move without a scale has no unit
    moves = {
        column: renamed[column].where(renamed["volatility_scale"].notna())
        for column in ("model_change", "model_change_low", "model_change_high")
    }
    return renamed.assign(
        **moves, target_day=renamed["date"] + pd.Timedelta(days=horizon), lowest=lowest
    )


def _relative_ends(
    today: Mapping[str, Values], past: PastForecasts, level: float
) -> tuple[Values, Values]:
    """Each row's interval ends without a model, relative to its size."""
    is_cold = np.isnan(today["volatility_scale"])
    panel = relative_quantiles(past, level)
    # pools without a scale move more than the panel: their ends come from earlier cold starts
    cold = cold_start_quantiles(past, level) if is_cold.any() else panel
    return np.where(is_cold, cold[0], panel[0]), np.where(is_cold, cold[1], panel[1])


def _publish(
    today: Mapping[str, Values],
    target: Target,
    weights: Values,
    factors: tuple[float, float],
    relative: tuple[Values, Values],
) -> Values:
    """One day's weight, forecast, low and high, shape (4, rows)."""
    now, scale, lowest, move = (
        today[name] for name in ("now", "volatility_scale", "lowest", "model_change")
    )
    is_modelled, steps = np.isfinite(move), gated_steps(weights, move, target.least_step)
    forecast = target.moved(now, np.where(is_modelled, np.nan_to_num(scale) * steps, 0.0), lowest)
    below, above = half_widths(steps, today["model_change_low"], today["model_change_high"])
    ends = (
        (scale * (steps - factors[0] * below), relative[0]),
        (scale * (steps + factors[1] * above), relative[1]),
    )
    low, high = (
        target.moved(now, np.where(is_modelled, modelled, target.size(now) * other), lowest)
        for modelled, other in ends
    )
    weight = np.where(is_modelled, weights, np.nan)
    # limits, and the logarithm and back, may move an end to the other side of the forecast
    return np.stack([weight, forecast, np.minimum(low, forecast), np.maximum(high, forecast)])


def _with_reasons(rows: pd.DataFrame, gates: npt.NDArray[np.object_]) -> pd.DataFrame:
    """Adds `fallback_reason`; `gates` are the reasons of rows with a model's move."""
    # the first reason that applies wins
    reasons = np.select(
        [
            rows["volatility_scale"].isna(),
            rows["model_change"].isna(),
            rows["forecast"] == rows["now"],
        ],
        [COLD_START, NO_MODEL, gates],
        np.array(None),
    )
    return rows.assign(fallback_reason=reasons)
