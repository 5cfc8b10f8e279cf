"""The stacked model: TVL first, by a forward chain of fits; its out-of-fold forecast is a feature
of APY, whose move is the mean of eight models.

In: feature rows dataset by an engine and a plan of folds. Out: out-of-sample rows of the days that the
plan forecasts, with each target's move and outer quantiles in scales (NaN where no fold had rows
enough), and which models forecast which days. It does not turn moves into values, and it knows
neither gate nor published interval.
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
from forecasting.engines.folds import DaySpan, Fold, FoldPlan
from forecasting.features.pool_features import BASELINES, LEVELS, SCALES
from forecasting.features.targets import Values, mean_of_spaces

TVL_FORECAST = "tvl_forecast_move"
MIN_TRAINING_ROWS = 300
"""Fewer labelled_rows rows than this are not fitted: five leaves of the smallest size are no model."""

SCALED_SEEDS, ASINH_SEEDS = 5, 3
"""Fits of the same rows with other seeds: their mean is a little better than each, and steadier
from day to day.
"""

READ_COLUMNS = (
    "apy",
    "tvl",
    "apy_observed",
    "tvl_observed",
    "apy_next",
    "tvl_next",
    *SCALES,
    *LEVELS,
    *BASELINES,
)
NO_VERSION = "none"

Stage = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class StackedModel:
    """The models fitted at one origin, to forecast as-of days of `days`; a target's in the order of
    its objectives, none where rows were too few.
    """

    origin: dt.date
    days: DaySpan
    apy: tuple[FittedModel, ...]
    tvl: tuple[FittedModel, ...]

    @property
    def version(self) -> str:
        """Origin, and a fingerprint of all models; `none` without any."""
        prints = "".join(model.fingerprint for model in (*self.apy, *self.tvl))
        return (
            f"{self.origin:%Y%m%d}-{hashlib.sha256(prints.encode()).hexdigest()[:8]}"
            if prints
            else NO_VERSION
        )


@dataclass(frozen=True)
class OutOfSample:
    """`rows` has KEY, READ_COLUMNS, and {target}_move, _move_low, _move_high; `models` made them,
    an origin each.
    """

    rows: pd.DataFrame
    models: tuple[StackedModel, ...]

    def version(self, day: dt.date) -> str:
        """The models that forecast from this as-of day, `none` without any."""
        return next((model.version for model in self.models if day in model.days), NO_VERSION)


def apy_objectives(level: float) -> list[Objective]:
    """Medians of both spaces, and the outer quantiles of an interval with coverage `level`."""
    tail = (1.0 - level) / 2.0
    scaled = [Objective("apy_label", seed_offset=draw) for draw in range(SCALED_SEEDS)]
    asinh = [
        Objective("apy_asinh_label", seed_offset=SCALED_SEEDS + draw) for draw in range(ASINH_SEEDS)
    ]
    return [
        *scaled,
        *asinh,
        Objective("apy_label", alpha=tail),
        Objective("apy_label", alpha=1.0 - tail),
    ]


def tvl_objectives(level: float) -> list[Objective]:
    tail = (1.0 - level) / 2.0
    return [
        Objective("tvl_label"),
        Objective("tvl_label", alpha=tail),
        Objective("tvl_label", alpha=1.0 - tail),
    ]


def fit_stacked(dataset: FeatureRows, plan: FoldPlan, level: float, stage: Stage) -> OutOfSample:
    """Fit every fold of both targets and forecast the out-of-sample days. Args: stage times what it
    is wrapped around.
    """
    with stage("fit_tvl"):
        coarse = [fold for fold in plan.tvl if fold.origin < plan.forecast.start]
        chain = [
            (dataset.fit([Objective("tvl_label")], fold.train)[0], fold.forecast)
            for fold in coarse
            if _can_fit(dataset, "tvl_label", fold.train)
        ]
        tvl = [
            _fit(dataset, "tvl_label", fold, tvl_objectives(level))
            for fold in plan.tvl[len(coarse) :]
        ]
        fitted = [
            (models[0], fold.forecast) for models, fold in zip(tvl, plan.apy, strict=True) if models
        ]
        stacked = dataset.with_feature(TVL_FORECAST, [*chain, *fitted])
    try:
        with stage("fit_apy"):
            apy = [_fit(stacked, "apy_label", fold, apy_objectives(level)) for fold in plan.apy]
        models = tuple(
            StackedModel(fold.origin, fold.forecast, *both)
            for fold, *both in zip(plan.apy, apy, tvl, strict=True)
        )
        with stage("predict"):
            return OutOfSample(
                _with_moves(
                    stacked.forecast(plan.forecast, [], READ_COLUMNS), dataset, stacked, models
                ),
                models,
            )
    finally:
        stacked.release()


def forecast_by(dataset: FeatureRows, model: StackedModel) -> OutOfSample:
    """What a model that was fitted before says of its days."""
    stacked = dataset.with_feature(TVL_FORECAST, [(model.tvl[0], model.days)] if model.tvl else [])
    try:
        return OutOfSample(
            _with_moves(stacked.forecast(model.days, [], READ_COLUMNS), dataset, stacked, [model]),
            (model,),
        )
    finally:
        stacked.release()


def _with_moves(
    rows: pd.DataFrame, dataset: FeatureRows, stacked: FeatureRows, models: Sequence[StackedModel]
) -> pd.DataFrame:
    found = {
        "apy": [_apy_moves(stacked, model) for model in models if model.apy],
        "tvl": [_tvl_moves(dataset, model) for model in models if model.tvl],
    }
    for target, moves in found.items():
        known = (
            pd.concat(moves)
            if moves
            else pd.DataFrame(columns=[*KEY, *_names(target)]).astype(
                rows.dtypes[list(KEY)].to_dict()
            )
        )
        rows = rows.merge(known, on=list(KEY), how="left")
    return rows


def _fit(
    dataset: FeatureRows, label: str, fold: Fold, objectives: Sequence[Objective]
) -> tuple[FittedModel, ...]:
    return (
        tuple(dataset.fit(objectives, fold.train)) if _can_fit(dataset, label, fold.train) else ()
    )


def _can_fit(dataset: FeatureRows, label: str, days: DaySpan) -> bool:
    return dataset.labelled_rows(label, days) >= MIN_TRAINING_ROWS


def _names(target: str) -> tuple[str, str, str]:
    return (f"{target}_move", f"{target}_move_low", f"{target}_move_high")


def _apy_moves(dataset: FeatureRows, model: StackedModel) -> pd.DataFrame:
    found = dataset.forecast(model.days, model.apy, ("apy", "apy_scale"))
    scaled = [str(number) for number in range(SCALED_SEEDS)]
    asinh = [str(SCALED_SEEDS + number) for number in range(ASINH_SEEDS)]
    known = (
        found["apy"],
        found["apy_scale"],
        found[scaled].mean(axis=1),
        found[asinh].mean(axis=1),
    )
    move = mean_of_spaces(*(values.to_numpy(float) for values in known))
    low, high = (found[str(SCALED_SEEDS + ASINH_SEEDS + number)] for number in (0, 1))
    return _moves("apy", found, move, low, high)


def _tvl_moves(dataset: FeatureRows, model: StackedModel) -> pd.DataFrame:
    found = dataset.forecast(model.days, model.tvl, ())
    return _moves("tvl", found, found["0"], found["1"], found["2"])


def _moves(target: str, found: pd.DataFrame, *columns: Values | pd.Series[float]) -> pd.DataFrame:
    rows = found[list(KEY)].copy()
    rows[list(_names(target))] = np.column_stack(columns)
    return rows
