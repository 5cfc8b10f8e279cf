"""The `lightgbm` engine: feature rows are collected once through Arrow into this process, and
native LightGBM fits and forecasts there.

The supported alternative where SynapseML's runtime can't be had. Memory: 4 bytes for each feature
of each row, on the driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import DataFrame

from forecasting.engines.engine import (
    KEY,
    Features,
    FittedModel,
    LabelCounts,
    ModelSpan,
    Objective,
    collect,
    count_labels,
    without_threads,
)
from forecasting.engines.folds import DaySpan
from forecasting.engines.model_parameters import ModelParameters
from forecasting.engines.native import lightgbm

MAX_PARALLEL_FITS = 4
"""Fits side by side with few threads each end sooner than one after another with all: a tree of a
small model is too little work to share. Each takes a copy of the binned rows, a byte for each
value.
"""


def native_parameters(parameters: ModelParameters, objective: Objective) -> Mapping[str, object]:
    """The shared settings under native LightGBM's names."""
    return {
        **(
            {"objective": "regression_l1"}
            if objective.alpha is None
            else {"objective": "quantile", "alpha": objective.alpha}
        ),
        "learning_rate": parameters.learning_rate,
        "num_leaves": parameters.leaves,
        "min_data_in_leaf": parameters.min_data_in_leaf,
        "feature_fraction": parameters.feature_fraction,
        "bagging_fraction": parameters.bagging_fraction,
        "bagging_freq": 1,
        "lambda_l2": parameters.lambda_l2,
        "max_bin": parameters.max_bin,
        "seed": parameters.seed + objective.seed_offset,
        "num_threads": parameters.threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


@dataclass(frozen=True)
class LightgbmRows:
    """Rows as one pandas frame sorted by KEY, and their features as one float32 matrix."""

    frame: pd.DataFrame
    matrix: Features
    features: tuple[str, ...]
    counts: LabelCounts
    parameters: ModelParameters

    def labelled_rows(self, label: str, days: DaySpan) -> int:
        return count_labels(self.counts, label, days)

    def fit(self, objectives: Sequence[Objective], days: DaySpan) -> list[FittedModel]:
        rows = self._within(days) & self.frame[objectives[0].label].notna().to_numpy()
        at_once = max(1, min(self.parameters.threads, len(objectives), MAX_PARALLEL_FITS))
        parameters = replace(self.parameters, threads=self.parameters.threads // at_once)
        free: SimpleQueue[lightgbm.Dataset] = SimpleQueue()
        for data in self._binned(
            self.matrix[rows], at_once, native_parameters(parameters, objectives[0])
        ):
            free.put(data)

        def fit_one(objective: Objective) -> FittedModel:
            data = free.get()
            data.set_label(self.frame.loc[rows, objective.label].to_numpy(np.float32))
            booster = lightgbm.train(
                dict(native_parameters(parameters, objective)), data, parameters.rounds
            )
            free.put(data)
            return FittedModel(without_threads(booster.model_to_string()), self.features, booster)

        pool = ThreadPoolExecutor(at_once)
        try:
            return list(pool.map(fit_one, objectives))
        finally:
            # after Ctrl-C the run closes its ledger row while the last fits still compute
            pool.shutdown(wait=False, cancel_futures=True)

    def _binned(
        self, matrix: Features, copies: int, parameters: Mapping[str, object]
    ) -> list[lightgbm.Dataset]:
        """What bins depend on is the same for all objectives: they are found once, and each of
        those fitted at once has a copy for its label.
        """
        first = lightgbm.Dataset(
            matrix, feature_name=list(self.features), params=dict(parameters)
        ).construct()
        return [
            first,
            *(
                lightgbm.Dataset(matrix, reference=first, params=dict(parameters))
                for _ in range(copies - 1)
            ),
        ]

    def with_feature(self, name: str, parts: Sequence[ModelSpan]) -> LightgbmRows:
        forecasts = np.full(len(self.frame), np.nan, dtype=np.float32)
        for model, days in parts:
            within = self._within(days)
            forecasts[within] = self._forecast(model, within)
        return replace(
            self,
            frame=self.frame.assign(**{name: forecasts}),
            matrix=np.column_stack([self.matrix, forecasts]),
            features=(*self.features, name),
        )

    def forecast(
        self, days: DaySpan, models: Sequence[FittedModel], columns: Sequence[str]
    ) -> pd.DataFrame:
        within = self._within(days)
        forecasts = {number: self._forecast(model, within) for number, model in enumerate(models)}
        return (
            self.frame.loc[within, [*KEY, *columns]]
            .assign(**{str(number): found for number, found in forecasts.items()})
            .reset_index(drop=True)
        )

    def feature_matrix(
        self, days: DaySpan, columns: Sequence[str], *, at_most: int | None = None
    ) -> tuple[pd.DataFrame, Features]:
        within = self._within(days)
        parts = max(1, -(-int(within.sum()) // at_most)) if at_most else 1
        chosen = within & (pd.factorize(self.frame["pool_id"])[0] % parts == 0)
        return self.frame.loc[chosen, [*KEY, *columns]].reset_index(drop=True), self.matrix[chosen]

    def release(self) -> None:
        """Nothing is kept outside this object."""

    def _forecast(
        self, model: FittedModel, within: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        if not within.any():
            return np.zeros(0)
        found: npt.NDArray[np.float64] = model.native.predict(
            self.matrix[within, : len(model.features)], num_threads=self.parameters.threads
        )
        return found

    def _within(self, days: DaySpan) -> npt.NDArray[np.bool_]:
        date = self.frame["date"]
        return ((date >= pd.Timestamp(days.start)) & (date < pd.Timestamp(days.end))).to_numpy()


@dataclass(frozen=True)
class LightgbmEngine:
    parameters: ModelParameters
    name: str = "lightgbm"

    def prepare(
        self, rows: DataFrame, features: Sequence[str], labels: Sequence[str]
    ) -> LightgbmRows:
        collected = collect(rows)
        matrix = collected[list(features)].to_numpy(np.float32)
        frame = collected.drop(columns=[name for name in features if name not in labels])
        by_day = frame.groupby("date")[list(labels)].count()
        days = [day.date() for day in pd.DatetimeIndex(by_day.index)]
        counts = {
            label: dict(zip(days, by_day[label].astype(int), strict=True)) for label in labels
        }
        return LightgbmRows(frame, matrix, tuple(features), counts, self.parameters)

    def load(self, text: str, features: Sequence[str]) -> FittedModel:
        try:
            booster = lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(f"no LightGBM model: {error}") from error
        return FittedModel(text, tuple(features), booster)
