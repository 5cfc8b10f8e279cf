"""The `lightgbm` engine: native LightGBM on rows that are collected once into this process.

The supported alternative where SynapseML's runtime is not available. Needs 4 bytes of driver memory
for each feature of each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from forecasting.engines.engine import (
    KEY,
    TRANSFER_WEIGHT,
    Features,
    FittedModel,
    LabelCounts,
    ModelSpan,
    Objective,
    collect,
    count_labels,
    until_end,
    without_threads,
)
from forecasting.engines.folds import DaySpan
from forecasting.engines.model_parameters import ModelParameters
from forecasting.engines.native import lightgbm

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# A tree of a small model has too little work to share among threads: parallel fits with few threads
# end sooner than a sequence of fits with all. Each needs a copy of the binned rows, a byte for each
# value.
MAX_PARALLEL_FITS = 4


def native_parameters(parameters: ModelParameters, objective: Objective) -> Mapping[str, object]:
    """Returns the shared parameters under native LightGBM's names."""
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
        # LightGBM ignores bagging_fraction while this is 0, its default
        "bagging_freq": 1,
        "lambda_l2": parameters.lambda_l2,
        "max_bin": parameters.max_bin,
        "seed": parameters.seed + objective.seed_offset,
        "num_threads": parameters.threads,
        "deterministic": True,
        # otherwise LightGBM measures whether rows or columns are faster, and sums in that order
        "force_row_wise": True,
        "verbosity": -1,
    }


@dataclass(frozen=True)
class _TrainingRows:
    """Rows of one fit; `labels` by name, `weights` None where every row has 1."""

    matrix: Features
    labels: Mapping[str, Features]
    weights: Features | None = None


@dataclass(frozen=True)
class LightgbmRows:
    """Feature rows as a pandas frame sorted by KEY and a float32 matrix; see `FeatureRows`.

    `transfer` has the rows of the transfer panel.
    """

    frame: pd.DataFrame
    matrix: Features
    features: tuple[str, ...]
    counts: LabelCounts
    parameters: ModelParameters
    transfer: LightgbmRows | None = None

    def labelled_rows(self, label: str, days: DaySpan) -> int:
        return count_labels(self.counts, label, days)

    def transfer_rows(self, label: str, days: DaySpan) -> int:
        return self.transfer.labelled_rows(label, until_end(days)) if self.transfer else 0

    def without_transfer(self) -> LightgbmRows:
        return replace(self, transfer=None)

    def fit(self, objectives: Sequence[Objective], days: DaySpan) -> list[FittedModel]:
        rows = self._training_rows(objectives, days)
        parallel_fits = max(1, min(self.parameters.threads, len(objectives), MAX_PARALLEL_FITS))
        parameters = replace(self.parameters, threads=self.parameters.threads // parallel_fits)
        free: SimpleQueue[lightgbm.Dataset] = SimpleQueue()
        for data in self._binned(rows, parallel_fits, native_parameters(parameters, objectives[0])):
            free.put(data)

        def fit_one(objective: Objective) -> FittedModel:
            # one fit at a time: it replaces the label of its copy
            data = free.get()
            try:
                data.set_label(rows.labels[objective.label])
                booster = lightgbm.train(
                    dict(native_parameters(parameters, objective)), data, parameters.rounds
                )
            finally:
                # after an error too: a fit that waits for a copy would keep the process from ending
                free.put(data)
            return FittedModel(without_threads(booster.model_to_string()), self.features, booster)

        pool = ThreadPoolExecutor(parallel_fits)
        try:
            return list(pool.map(fit_one, objectives))
        finally:
            # no waiting: after Ctrl-C the run closes its ledger row while the last fits still run
            pool.shutdown(wait=False, cancel_futures=True)

    def _training_rows(self, objectives: Sequence[Objective], days: DaySpan) -> _TrainingRows:
        own = self._labelled(objectives, days)
        # without a row to transfer the fit is the one of own rows alone, to the last bit
        if not self.transfer or not self.transfer_rows(objectives[0].label, days):
            return own
        panel = self.transfer._labelled(objectives, until_end(days))
        weights = np.ones(len(own.matrix) + len(panel.matrix), np.float32)
        weights[len(own.matrix) :] = TRANSFER_WEIGHT
        labels = {
            name: np.concatenate([values, panel.labels[name]])
            for name, values in own.labels.items()
        }
        return _TrainingRows(np.concatenate([own.matrix, panel.matrix]), labels, weights)

    def _labelled(self, objectives: Sequence[Objective], days: DaySpan) -> _TrainingRows:
        rows = self._within(days) & self.frame[objectives[0].label].notna().to_numpy()
        names = sorted({objective.label for objective in objectives})
        return _TrainingRows(
            self.matrix[rows],
            {name: self.frame.loc[rows, name].to_numpy(np.float32) for name in names},
        )

    def _binned(
        self, rows: _TrainingRows, copies: int, parameters: Mapping[str, object]
    ) -> list[lightgbm.Dataset]:
        """Binned rows, one copy for each parallel fit; bins are the same for all objectives."""
        first = lightgbm.Dataset(
            rows.matrix,
            weight=rows.weights,
            feature_name=list(self.features),
            params=dict(parameters),
        ).construct()
        return [
            first,
            *(
                lightgbm.Dataset(
                    rows.matrix, weight=rows.weights, reference=first, params=dict(parameters)
                )
                for _ in range(copies - 1)
            ),
        ]

    def with_feature(self, name: str, spans: Sequence[ModelSpan]) -> LightgbmRows:
        forecasts = np.full(len(self.frame), np.nan, dtype=np.float32)
        for model, days in spans:
            within = self._within(days)
            forecasts[within] = self._forecast(model, within)
        return replace(
            self,
            frame=self.frame.assign(**{name: forecasts}),
            matrix=np.column_stack([self.matrix, forecasts]),
            features=(*self.features, name),
            transfer=self.transfer.with_feature(name, spans) if self.transfer else None,
        )

    def forecast(
        self, days: DaySpan, models: Sequence[FittedModel], columns: Sequence[str]
    ) -> pd.DataFrame:
        within = self._within(days)
        forecasts = {number: self._forecast(model, within) for number, model in enumerate(models)}
        return (
            self.frame.loc[within, [*KEY, *columns]]
            .assign(**{str(number): values for number, values in forecasts.items()})
            .reset_index(drop=True)
        )

    def feature_matrix(
        self, days: DaySpan, columns: Sequence[str], *, at_most: int | None = None
    ) -> tuple[pd.DataFrame, Features]:
        within = self._within(days)
        # rounded up, so that a part has about `at_most` rows and not twice as many
        parts = max(1, -(-int(within.sum()) // at_most)) if at_most else 1
        selected = within & (pd.factorize(self.frame["pool_id"])[0] % parts == 0)
        rows = self.frame.loc[selected, [*KEY, *columns]].reset_index(drop=True)
        return rows, self.matrix[selected]

    def release(self) -> None:
        """Does nothing: the rows are in this object only."""

    def _forecast(
        self, model: FittedModel, within: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        if not within.any():
            return np.zeros(0)
        # a model that was fitted before `with_feature` has the first columns only
        forecasts: npt.NDArray[np.float64] = model.native.predict(
            self.matrix[within, : len(model.features)], num_threads=self.parameters.threads
        )
        return forecasts

    def _within(self, days: DaySpan) -> npt.NDArray[np.bool_]:
        date = self.frame["date"]
        return ((date >= pd.Timestamp(days.start)) & (date < pd.Timestamp(days.end))).to_numpy()


@dataclass(frozen=True)
class LightgbmEngine:
    """Native LightGBM in this process; see `Engine`."""

    parameters: ModelParameters
    name: str = "lightgbm"

    def prepare(
        self,
        rows: DataFrame | pa.Table,
        features: Sequence[str],
        labels: Sequence[str],
        transfer: pa.Table | None = None,
    ) -> LightgbmRows:
        collected = collect(rows)
        matrix = collected[list(features)].to_numpy(np.float32)
        frame = collected.drop(columns=[name for name in features if name not in labels])
        by_day = frame.groupby("date")[list(labels)].count()
        days = [day.date() for day in pd.DatetimeIndex(by_day.index)]
        counts = {
            label: dict(zip(days, by_day[label].astype(int), strict=True)) for label in labels
        }
        panel = self.prepare(transfer, features, labels) if transfer is not None else None
        return LightgbmRows(frame, matrix, tuple(features), counts, self.parameters, panel)

    def load(self, text: str, features: Sequence[str]) -> FittedModel:
        try:
            booster = lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(f"no LightGBM model: {error}") from error
        return FittedModel(text, tuple(features), booster)
