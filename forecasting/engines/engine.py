"""The interface of a forecasting engine: LightGBM fitted on spans of days of a dataset.

An engine knows columns only, neither APY nor TVL. Both engines have the same parameters and
different native versions of LightGBM: their scores agree, their forecasts differ.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from forecasting.engines.folds import DaySpan

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

KEY = ("pool_id", "date")
Features = npt.NDArray[np.float32]

TRANSFER_WEIGHT = 0.1
"""Weight of a training row of the transfer panel; an own row has 1."""


@dataclass(frozen=True)
class Objective:
    """The label and the loss of one model.

    Attributes:
        label: column of the label.
        alpha: quantile (pinball loss); None for the median (absolute loss).
        seed_offset: added to the seed of the parameters.
    """

    label: str
    alpha: float | None = None
    seed_offset: int = 0


@dataclass(frozen=True)
class FittedModel:
    """A fitted model.

    Attributes:
        text: native LightGBM text, readable by any LightGBM.
        features: names in the order of the matrix.
        native: the engine's own object.
    """

    text: str
    features: tuple[str, ...]
    native: Any

    @property
    def fingerprint(self) -> str:
        """First 8 hexadecimal digits of the text's SHA-256: equal for equal data, settings and
        engine.
        """
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]


def without_threads(text: str) -> str:
    """Returns a model's text with the number of threads set to 0.

    The number changes the duration of a fit only; a version's fingerprint must not depend on it.
    """
    return re.sub(r"(?m)^\[num_threads: \d+\]$", "[num_threads: 0]", text)


class FeatureRows(Protocol):
    """Feature rows in an engine's memory, one for each pool and as-of day; immutable."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features, in the order of a model's matrix."""

    def labelled_rows(self, label: str, days: DaySpan) -> int:
        """Counts the rows of these as-of days that have the label."""

    def transfer_rows(self, label: str, days: DaySpan) -> int:
        """Counts the rows of the transfer panel that a fit on these as-of days learns from."""

    def without_transfer(self) -> FeatureRows:
        """Returns the same rows without those of the transfer panel."""

    def fit(self, objectives: Sequence[Objective], days: DaySpan) -> list[FittedModel]:
        """Fits a model for each objective on the rows of these as-of days that have a label.

        Rows of the transfer panel have TRANSFER_WEIGHT. All of them before the end of the days are
        learned from, however old they are, and none from it on.

        Args:
            objectives: their labels must be known on the same rows, and on one row at least.
            days: as-of days. Null and NaN features are missing values.
        """

    def with_feature(self, name: str, spans: Sequence[ModelSpan]) -> FeatureRows:
        """Adds the feature `name`: each model's forecast on its span, null elsewhere.

        Args:
            spans: models and as-of days that do not overlap.
        """

    def forecast(
        self, days: DaySpan, models: Sequence[FittedModel], columns: Sequence[str]
    ) -> pd.DataFrame:
        """Forecasts these as-of days.

        Returns:
            KEY, `columns` and a column "0", "1", .. for each model, sorted by KEY; NaN for null.
        """

    def feature_matrix(
        self, days: DaySpan, columns: Sequence[str], *, at_most: int | None = None
    ) -> tuple[pd.DataFrame, Features]:
        """Returns the features of these as-of days in this process.

        Args:
            at_most: approximate number of rows. With more, all days of a part of the pools are
                returned, the same part at every call.

        Returns:
            KEY and `columns`, sorted by KEY, and their features, shape (rows, features), NaN where
            unknown.
        """

    def release(self) -> None:
        """Frees the memory of the rows."""


class Engine(Protocol):
    """`synapseml` (LightGBM on Spark) or `lightgbm` (native, in this process)."""

    @property
    def name(self) -> str: ...

    def prepare(
        self,
        rows: DataFrame | pa.Table,
        features: Sequence[str],
        labels: Sequence[str],
        transfer: pa.Table | None = None,
    ) -> FeatureRows:
        """Computes the frame once and keeps it in memory.

        Args:
            rows: feature rows: a frame of Spark or, for an engine without Spark, an Arrow table.
            features: columns of the model's matrix.
            labels: columns of the labels.
            transfer: feature rows of the transfer panel, which are learned from and never
                forecast; None without it.

        Raises:
            EnvironmentNotReady: the engine's runtime is missing.
        """

    def load(self, text: str, features: Sequence[str]) -> FittedModel:
        """Loads a model from its native text.

        Raises:
            ValueError: the text is no LightGBM model.
        """


# a model and the as-of days that it forecasts
ModelSpan = tuple[FittedModel, DaySpan]

LabelCounts = Mapping[str, Mapping[dt.date, int]]


def count_labels(counts: LabelCounts, label: str, days: DaySpan) -> int:
    """Returns the number of rows of these days that have the label."""
    return sum(rows for day, rows in counts[label].items() if day in days)


# not date.min, which Spark cannot read
_BEFORE_ALL_DAYS = dt.date(1970, 1, 1)


def until_end(days: DaySpan) -> DaySpan:
    """Returns all days before the end of these: those of the transfer panel's training rows."""
    return DaySpan(_BEFORE_ALL_DAYS, days.end)


def collect(rows: DataFrame | pa.Table) -> pd.DataFrame:
    """Returns the rows in this process, sorted by KEY, with `date` as a UTC midnight."""
    frame = rows.to_pandas() if isinstance(rows, pa.Table) else rows.toPandas()
    frame["date"] = pd.to_datetime(frame["date"])
    return frame.sort_values(list(KEY), ignore_index=True)
