"""The stacked model: a TVL model, and APY models that have its out-of-fold forecast as a feature.

Reads a dataset and a plan of folds; returns out-of-sample rows with each target's move and outer
quantiles in scales (NaN where a fold had too few rows), and the fitted models. Gate, intervals and
values are left to `publishing`.
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
# with fewer labelled rows no model is fitted: five leaves of the smallest size are no model
MIN_TRAINING_ROWS = 300
# of which own ones: the pools of the transfer panel alone say little about those of a user
MIN_OWN_ROWS = 100

# Fits of the same rows with other seeds: their mean is slightly better than each, and more stable
# from day to day.
SCALED_SEEDS, ASINH_SEEDS = 5, 3

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
    """Models fitted at one origin.

    Attributes:
        origin: last UTC day of the training data.
        days: as-of days that the models forecast.
        apy: models in the order of `apy_objectives`; empty if there were too few rows.
        tvl: models in the order of `tvl_objectives`; empty if there were too few rows.
    """

    origin: dt.date
    days: DaySpan
    apy: tuple[FittedModel, ...]
    tvl: tuple[FittedModel, ...]

    @property
    def version(self) -> str:
        """Origin and a fingerprint of all models; NO_VERSION without any."""
        fingerprints = "".join(model.fingerprint for model in (*self.apy, *self.tvl))
        if not fingerprints:
            return NO_VERSION
        return f"{self.origin:%Y%m%d}-{hashlib.sha256(fingerprints.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class OutOfSample:
    """Forecasts of days that the models were not fitted on.

    Attributes:
        rows: KEY, READ_COLUMNS and {target}_move, _move_low, _move_high in scales.
        models: the models that made them, one for each origin.
    """

    rows: pd.DataFrame
    models: tuple[StackedModel, ...]

    def version(self, day: dt.date) -> str:
        """Returns the version that forecasts from this as-of day, or NO_VERSION."""
        return next((model.version for model in self.models if day in model.days), NO_VERSION)


def apy_objectives(level: float) -> list[Objective]:
    """Returns medians of both spaces and the outer quantiles of an interval.

    Args:
        level: nominal coverage of the interval, 0 to 1.
    """
    tail = (1.0 - level) / 2.0
    scaled = [Objective("apy_label", seed_offset=offset) for offset in range(SCALED_SEEDS)]
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
    """Returns the median and the outer quantiles of an interval with coverage `level`."""
    tail = (1.0 - level) / 2.0
    return [
        Objective("tvl_label"),
        Objective("tvl_label", alpha=tail),
        Objective("tvl_label", alpha=1.0 - tail),
    ]


def fit_stacked(dataset: FeatureRows, plan: FoldPlan, level: float, stage: Stage) -> OutOfSample:
    """Fits every fold of both targets and forecasts the out-of-sample days.

    Args:
        dataset: feature rows in the engine.
        plan: the folds.
        level: nominal coverage of the interval, 0 to 1.
        stage: context manager that times a stage of the run.
    """
    # TVL is nearly a random walk: rows of other pools made its models no better (docs/accuracy.md)
    own = dataset.without_transfer()
    with stage("fit_tvl"):
        coarse = [fold for fold in plan.tvl if fold.origin < plan.forecast.start]
        chain = [
            (own.fit([Objective("tvl_label")], fold.train)[0], fold.forecast)
            for fold in coarse
            if can_fit(own, "tvl_label", fold.train)
        ]
        tvl = [
            _fit(own, "tvl_label", fold, tvl_objectives(level)) for fold in plan.tvl[len(coarse) :]
        ]
        # the TVL folds after the coarse ones have the origins of the APY folds
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


def can_fit(dataset: FeatureRows, label: str, days: DaySpan) -> bool:
    """Returns whether these as-of days have enough rows with the label to fit a model."""
    own = dataset.labelled_rows(label, days)
    return own >= MIN_OWN_ROWS and own + dataset.transfer_rows(label, days) >= MIN_TRAINING_ROWS


def forecast_by(dataset: FeatureRows, model: StackedModel) -> OutOfSample:
    """Forecasts a model's days by the model."""
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
    moves_by_target = {
        "apy": [_apy_moves(stacked, model) for model in models if model.apy],
        "tvl": [_tvl_moves(dataset, model) for model in models if model.tvl],
    }
    for target, moves in moves_by_target.items():
        if moves:
            all_moves = pd.concat(moves)
        else:
            # a merge needs keys of the same types
            all_moves = pd.DataFrame(columns=[*KEY, *_names(target)])
            all_moves = all_moves.astype(rows.dtypes[list(KEY)].to_dict())
        rows = rows.merge(all_moves, on=list(KEY), how="left")
    return rows


def _fit(
    dataset: FeatureRows, label: str, fold: Fold, objectives: Sequence[Objective]
) -> tuple[FittedModel, ...]:
    return tuple(dataset.fit(objectives, fold.train)) if can_fit(dataset, label, fold.train) else ()


def _names(target: str) -> tuple[str, str, str]:
    return (f"{target}_move", f"{target}_move_low", f"{target}_move_high")


def _apy_moves(dataset: FeatureRows, model: StackedModel) -> pd.DataFrame:
    # columns "0", "1", .. are forecasts in the order of `apy_objectives`
    rows = dataset.forecast(model.days, model.apy, ("apy", "apy_scale"))
    scaled = [str(number) for number in range(SCALED_SEEDS)]
    asinh = [str(SCALED_SEEDS + number) for number in range(ASINH_SEEDS)]
    move = mean_of_spaces(
        rows["apy"].to_numpy(float),
        rows["apy_scale"].to_numpy(float),
        rows[scaled].mean(axis=1).to_numpy(float),
        rows[asinh].mean(axis=1).to_numpy(float),
    )
    low, high = (rows[str(SCALED_SEEDS + ASINH_SEEDS + number)] for number in (0, 1))
    return _moves("apy", rows, move, low, high)


def _tvl_moves(dataset: FeatureRows, model: StackedModel) -> pd.DataFrame:
    rows = dataset.forecast(model.days, model.tvl, ())
    return _moves("tvl", rows, rows["0"], rows["1"], rows["2"])


def _moves(target: str, rows: pd.DataFrame, *columns: Values | pd.Series[float]) -> pd.DataFrame:
    moves = rows[list(KEY)].copy()
    moves[list(_names(target))] = np.column_stack(columns)
    return moves
