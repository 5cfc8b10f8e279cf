"""The stacked model: TVL first, by a forward chain of fits; its out-of-fold forecast is a feature of APY.

In: feature rows held by an engine and a plan of folds. Out: the out-of-sample rows of the calibration and scored days and of the as-of day, with each
target's forecast move in scales (NaN where no fold had rows enough to fit), and which model forecast which days.
It does not turn moves into values, and it knows neither weight nor interval.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pandas as pd

from forecasting.engines.engine import FeatureRows, Part
from forecasting.folds import DaySpan, Fold, FoldPlan

TVL_MOVE, APY_MOVE = "tvl_move_forecast", "apy_move_forecast"
MIN_TRAINING_ROWS = 300
"""Fewer labelled rows than this are not fitted: five leaves of the smallest size are no model."""

READ_COLUMNS = ("apy", "tvl", "apy_next", "tvl_next", "apy_scale", "tvl_scale", "apy_median_7", "tvl_median_7", "apy_lowest_30")
NO_MODEL = "none"

Stage = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class OutOfSample:
    """`rows` has KEY, READ_COLUMNS, TVL_MOVE and APY_MOVE; `parts` the fitted models of each target by the days they forecast."""

    rows: pd.DataFrame
    parts: dict[str, list[Part]]

    def version(self, target: str, day: dt.date) -> str:
        """Origin and fingerprint of the model that forecast from this as-of day, `none` without one."""
        return next((f"{days.start:%Y%m%d}-{model.fingerprint}" for model, days in self.parts[target] if day in days), NO_MODEL)


def fit_stacked(held: FeatureRows, plan: FoldPlan, stage: Stage) -> OutOfSample:
    """Fit every fold of both targets and forecast the out-of-sample days. Args: stage times what it is wrapped around."""
    with stage("fit_tvl"):
        tvl = fit_chain(held, "tvl_label", plan.tvl)
    with stage("forecast_tvl"):
        stacked = held.with_forecasts(TVL_MOVE, tvl)
    with stage("fit_apy"):
        apy = fit_chain(stacked, "apy_label", plan.apy)
    with stage("forecast_apy"):
        days = DaySpan(plan.calibration.start, plan.as_of + dt.timedelta(days=1))
        rows = stacked.forecast(days, apy, (*READ_COLUMNS, TVL_MOVE)).rename(columns={"forecast": APY_MOVE})
    stacked.release()
    return OutOfSample(rows, {"apy": apy, "tvl": tvl})


def fit_chain(held: FeatureRows, label: str, folds: Sequence[Fold]) -> list[Part]:
    """One model for each fold that has rows enough; a fold without one forecasts nothing."""
    return [(held.fit(label, fold.train), fold.forecast) for fold in folds if held.labelled(label, fold.train) >= MIN_TRAINING_ROWS]
