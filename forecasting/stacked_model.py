"""The stacked model: TVL first, by a forward chain of fits; its out-of-fold forecast is a feature of APY, whose move is the mean of eight models.

In: feature rows held by an engine and a plan of folds. Out: out-of-sample rows of the days that the plan forecasts, with each target's move and outer
quantiles in scales (NaN where no fold had rows enough), and which models forecast which days.
It does not turn moves into values, and it knows neither gate nor published interval.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pandas as pd

from forecasting.engines.engine import KEY, FeatureRows, FittedModel, Objective
from forecasting.folds import DaySpan, Fold, FoldPlan
from forecasting.pool_features import BASELINES, LEVELS, SCALES
from forecasting.targets import Values, mean_of_spaces

TVL_FORECAST = "tvl_forecast_move"
MIN_TRAINING_ROWS = 300
"""Fewer labelled rows than this are not fitted: five leaves of the smallest size are no model."""

SCALED_DRAWS, ASINH_DRAWS = 5, 3
"""Fits of the same rows with other seeds: their mean is a little better than each, and steadier from day to day."""

READ_COLUMNS = ("apy", "tvl", "apy_observed", "tvl_observed", "apy_next", "tvl_next", *SCALES, *LEVELS, *BASELINES)
NO_VERSION = "none"

Stage = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class FittedFold:
    """The models of one target that forecast these as-of days, in the order of their objectives."""

    days: DaySpan
    models: tuple[FittedModel, ...]

    @property
    def version(self) -> str:
        """Origin, and a fingerprint of all models."""
        prints = "".join(model.fingerprint for model in self.models)
        return f"{self.days.start:%Y%m%d}-{hashlib.sha256(prints.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class OutOfSample:
    """`rows` has KEY, READ_COLUMNS, and {target}_move, _move_low, _move_high; `folds` the fitted models of each target."""

    rows: pd.DataFrame
    folds: dict[str, list[FittedFold]]

    def version(self, target: str, day: dt.date) -> str:
        """The models that forecast from this as-of day, `none` without any."""
        return next((fold.version for fold in self.folds[target] if day in fold.days), NO_VERSION)


def apy_objectives(level: float) -> list[Objective]:
    """Medians of both spaces, and the outer quantiles of an interval with coverage `level`."""
    tail = (1.0 - level) / 2.0
    scaled = [Objective("apy_label", draw=draw) for draw in range(SCALED_DRAWS)]
    asinh = [Objective("apy_asinh_label", draw=SCALED_DRAWS + draw) for draw in range(ASINH_DRAWS)]
    return [*scaled, *asinh, Objective("apy_label", alpha=tail), Objective("apy_label", alpha=1.0 - tail)]


def tvl_objectives(level: float) -> list[Objective]:
    tail = (1.0 - level) / 2.0
    return [Objective("tvl_label"), Objective("tvl_label", alpha=tail), Objective("tvl_label", alpha=1.0 - tail)]


def fit_stacked(held: FeatureRows, plan: FoldPlan, level: float, stage: Stage) -> OutOfSample:
    """Fit every fold of both targets and forecast the out-of-sample days. Args: stage times what it is wrapped around."""
    with stage("fit_tvl"):
        coarse = [fold for fold in plan.tvl if fold.origin < plan.forecast.start]
        chain = [(held.fit([Objective("tvl_label")], fold.train)[0], fold.forecast) for fold in coarse if _can_fit(held, "tvl_label", fold.train)]
        tvl = _fit(held, "tvl_label", plan.tvl[len(coarse) :], tvl_objectives(level))
        stacked = held.with_forecasts(TVL_FORECAST, [*chain, *((fold.models[0], fold.days) for fold in tvl)])
    with stage("fit_apy"):
        apy = _fit(stacked, "apy_label", plan.apy, apy_objectives(level))
    with stage("predict"):
        rows = stacked.forecast(plan.forecast, [], READ_COLUMNS)
        moves = {"apy": [_apy_moves(stacked, fold) for fold in apy], "tvl": [_tvl_moves(held, fold) for fold in tvl]}
    stacked.release()
    for target, found in moves.items():
        known = pd.concat(found) if found else pd.DataFrame(columns=[*KEY, *_names(target)]).astype(rows.dtypes[list(KEY)].to_dict())
        rows = rows.merge(known, on=list(KEY), how="left")
    return OutOfSample(rows, {"apy": apy, "tvl": tvl})


def _fit(held: FeatureRows, label: str, folds: Sequence[Fold], objectives: Sequence[Objective]) -> list[FittedFold]:
    """The folds that have rows enough; a fold without them forecasts nothing."""
    return [FittedFold(fold.forecast, tuple(held.fit(objectives, fold.train))) for fold in folds if _can_fit(held, label, fold.train)]


def _can_fit(held: FeatureRows, label: str, days: DaySpan) -> bool:
    return held.labelled(label, days) >= MIN_TRAINING_ROWS


def _names(target: str) -> tuple[str, str, str]:
    return (f"{target}_move", f"{target}_move_low", f"{target}_move_high")


def _apy_moves(held: FeatureRows, fold: FittedFold) -> pd.DataFrame:
    found = held.forecast(fold.days, fold.models, ("apy", "apy_scale"))
    scaled = [str(number) for number in range(SCALED_DRAWS)]
    asinh = [str(SCALED_DRAWS + number) for number in range(ASINH_DRAWS)]
    known = (found["apy"], found["apy_scale"], found[scaled].mean(axis=1), found[asinh].mean(axis=1))
    move = mean_of_spaces(*(values.to_numpy(float) for values in known))
    low, high = (found[str(SCALED_DRAWS + ASINH_DRAWS + number)] for number in (0, 1))
    return _moves("apy", found, move, low, high)


def _tvl_moves(held: FeatureRows, fold: FittedFold) -> pd.DataFrame:
    found = held.forecast(fold.days, fold.models, ())
    return _moves("tvl", found, found["0"], found["1"], found["2"])


def _moves(target: str, found: pd.DataFrame, *columns: Values | pd.Series[float]) -> pd.DataFrame:
    rows = found[list(KEY)].copy()
    rows[list(_names(target))] = np.column_stack(columns)
    return rows
