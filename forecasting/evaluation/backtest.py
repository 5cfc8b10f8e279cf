"""What would have been published on each of these days, by the very steps that publish tonight's
forecast.

In: out-of-sample moves of the stacked model, and the ledger of earlier forecasts. Out: published
rows, PUBLISHED, values in percent and USD. On every day gate and interval learn only from targets
that had come true by then, so scores and coverage are out of sample (rolling origin, Tashman 2000).
A pool with too short a history keeps its value, and says so. Rows here are pools observed on the
as-of day; `rules` has the others.
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

DESCRIBED = (
    "median_7d",
    "mean_reversion",
    "naive_low",
    "naive_high",
    "mean_abs_change",
    "tvl_usd",
    "apy_percent",
)
PUBLISHED = (
    *PAST_COLUMNS,
    "date",
    "forecast",
    "low",
    "high",
    "gate_weight",
    "fallback_reason",
    *DESCRIBED,
)
"""`fallback_reason` says why a row's forecast is the value of its as-of day: cold_start, no_model,
no_ledger, few_pools, no_champion or gate; None where it is not.
"""

PUBLISHED_FROM = (
    "now",
    "volatility_scale",
    "lowest",
    "model_change",
    "model_change_low",
    "model_change_high",
)
"""Columns of a day that its published values are made of."""

COLD_START, NO_MODEL, NO_CHAMPION = "cold_start", "no_model", "no_champion"


def publish_days(
    sample: pd.DataFrame,
    target: Target,
    days: Sequence[dt.date],
    *,
    horizon: int,
    level: float,
    ledger: pd.DataFrame,
    serves: bool = True,
) -> pd.DataFrame:
    """Published rows of one target on these as-of days, in their order.

    Args: sample is `OutOfSample.rows`; ledger has PAST_COLUMNS of earlier forecasts of this target,
    none of these days; where no version serves, every value is persistence, and its interval the
    model's around that.
    """
    rows, sizes = _in_order(_named(sample, target, horizon), days)
    past = pd.concat([ledger, rows[list(PAST_COLUMNS)]], ignore_index=True)
    pools, pool_ids = pd.factorize(past["pool_id"])
    # of this history a day sees what has come true by then, and so none of the days after it
    history, todays_pools = forecast_history(target, past, pools), pools[len(ledger) :]
    inputs = {name: rows[name].to_numpy(float) for name in PUBLISHED_FROM}
    gates, published, end = np.empty(len(rows), dtype=object), np.empty((4, len(rows))), 0
    for day, size in sizes:
        begin, end = end, end + size
        today = {name: values[begin:end] for name, values in inputs.items()}
        known = history.come_true(day)
        refused = refusal(known) or (None if serves else NO_CHAMPION)
        weights = (
            np.zeros(pool_ids.size)
            if refused
            else gate_weights(known, np.arange(pool_ids.size), target.panel_days)
        )
        factors = tail_factors(
            known, gated_steps(weights[known.pool_id], known.move, target.least_step), level
        )
        relative = _relative(today, known, level)
        published[:, begin:end] = _publish(
            today, target, weights[todays_pools[begin:end]], factors, relative
        )
        gates[begin:end] = refused or GATE
    columns = dict(zip(("gate_weight", "forecast", "low", "high"), published, strict=True))
    return _with_rules(rows.assign(**columns), gates)[list(PUBLISHED)].reset_index(drop=True)


def _in_order(
    rows: pd.DataFrame, days: Sequence[dt.date]
) -> tuple[pd.DataFrame, list[tuple[dt.date, int]]]:
    """The rows of these days, day by day, and how many each day has; days without one are left
    out.
    """
    places = rows.groupby("date").indices
    found = {day: places[stamp] for day in days if (stamp := pd.Timestamp(day)) in places}
    order = np.concatenate([np.empty(0, dtype=np.intp), *found.values()])
    return rows.iloc[order], [(day, len(places_of_day)) for day, places_of_day in found.items()]


def _named(sample: pd.DataFrame, target: Target, horizon: int) -> pd.DataFrame:
    """The sample under one target's names, of pools whose as-of day was observed."""
    name = target.name
    rows = sample[sample[f"{name}_observed"]]
    copied = {
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
    named = pd.DataFrame(
        {
            "pool_id": rows["pool_id"],
            "date": rows["date"],
            **{new: rows[old].astype(float) for new, old in copied.items()},
        }
    )
    lowest = 0.0 if target.logarithmic else np.minimum(named["lowest_30"], 0.0)
    known = {
        column: named[column].where(named["volatility_scale"].notna())
        for column in ("model_change", "model_change_low", "model_change_high")
    }
    return named.assign(
        **known, target_day=named["date"] + pd.Timedelta(days=horizon), lowest=lowest
    )


def _relative(
    today: Mapping[str, Values], known: PastForecasts, level: float
) -> tuple[Values, Values]:
    """Each row's ends without a model, relative to its size: the panel's, or where it has no scale
    yet those of earlier cold starts.
    """
    is_cold = np.isnan(today["volatility_scale"])
    panel = relative_quantiles(known, level)
    cold = cold_start_quantiles(known, level) if is_cold.any() else panel
    return np.where(is_cold, cold[0], panel[0]), np.where(is_cold, cold[1], panel[1])


def _publish(
    today: Mapping[str, Values],
    target: Target,
    weights: Values,
    factors: tuple[float, float],
    relative: tuple[Values, Values],
) -> Values:
    """One day's weight, forecast, low and high, a row each: today's level plus the gated step, and
    an interval around that; without a model no step and a relative one.
    """
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
        target.moved(now, np.where(is_modelled, own, target.size(now) * other), lowest)
        for own, other in ends
    )
    weight = np.where(is_modelled, weights, np.nan)
    # limits, and the logarithm and back, may put an end on the other side of the value that is
    # published
    return np.stack([weight, forecast, np.minimum(low, forecast), np.maximum(high, forecast)])


def _with_rules(rows: pd.DataFrame, gates: npt.NDArray[np.object_]) -> pd.DataFrame:
    """Args: gates are the reasons of rows whose model says nothing against today's value."""
    # the first of these reasons stands
    rules = np.select(
        [
            rows["volatility_scale"].isna(),
            rows["model_change"].isna(),
            rows["forecast"] == rows["now"],
        ],
        [COLD_START, NO_MODEL, gates],
        np.array(None),
    )
    return rows.assign(fallback_reason=rules)


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
    """Published rows as `yieldspark.forecast_evaluation` keeps them; `actual` is NaN where it has
    not come true.
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
                    *DESCRIBED,
                )
            },
            "interval_level": level,
            "model_version": published["date"].map(versions),
            "run_id": run_id,
        }
    )
