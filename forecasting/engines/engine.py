"""What every forecasting engine is: a holder of feature rows that fits LightGBM on spans of days
and forecasts others.

In: feature rows (one per pool and as-of day) as a Spark frame. Out: models and pandas rows of the
few days that are scored or published. An engine knows nothing of APY or TVL: features and labels
are column names. Both engines are LightGBM with one set of parameters, but of two native versions,
so their scores agree and their forecasts need not.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import DataFrame

from forecasting.engines.folds import DaySpan

KEY = ("pool_id", "date")
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Objective:
    """What one model is fitted for: the median of a label (mean absolute error), or its quantile
    `alpha` (pinball loss). `draw` varies the seed.
    """

    label: str
    alpha: float | None = None
    seed_offset: int = 0


@dataclass(frozen=True)
class FittedModel:
    """A model's native LightGBM text, which any LightGBM can read, the features in the order it was
    fitted with, and the engine's own object.
    """

    text: str
    features: tuple[str, ...]
    native: Any

    @property
    def fingerprint(self) -> str:
        """First 8 hexadecimal digits of the text's SHA-256: equal data, settings and engine give an
        equal model version.
        """
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]


def without_threads(text: str) -> str:
    """A model's text with the number of threads it was fitted with taken out: it changes the
    seconds of a fit and nothing else, and a version's fingerprint must not depend on the machine.
    """
    return re.sub(r"(?m)^\[num_threads: \d+\]$", "[num_threads: 0]", text)


class FeatureRows(Protocol):
    """Feature rows in the engine's own memory, made once a run. Immutable: a new feature gives a
    new object.
    """

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features, in the order of a model's."""

    def labelled_rows(self, label: str, days: DaySpan) -> int:
        """Rows of these as-of days whose label is known."""

    def fit(self, objectives: Sequence[Objective], days: DaySpan) -> list[FittedModel]:
        """A model for each objective, fitted on the rows of these as-of days whose label is known;
        there must be at least one, and all labels must be known on the same rows. Null and NaN
        features are missing values.
        """

    def with_feature(self, name: str, parts: Sequence[ModelSpan]) -> FeatureRows:
        """Add the feature `name`: each model's forecast on its span, null elsewhere."""

    def forecast(
        self, days: DaySpan, models: Sequence[FittedModel], columns: Sequence[str]
    ) -> pd.DataFrame:
        """KEY, `columns`, and a column "0", "1", .. for each model's forecasts, of these as-of
        days, sorted by KEY; NaN for null numbers.
        """

    def feature_matrix(
        self, days: DaySpan, columns: Sequence[str], *, at_most: int | None = None
    ) -> tuple[pd.DataFrame, Features]:
        """KEY and `columns` of the rows of these as-of days, sorted by KEY, and their features
        (rows x features, NaN where unknown) in this process. Of more than `at_most` rows, all days
        of a part of the pools, of about that size and the same at every call.
        """

    def release(self) -> None:
        """Give back what was kept in memory."""


class Engine(Protocol):
    """`synapseml` (LightGBM on Spark) or `lightgbm` (native, in this process)."""

    @property
    def name(self) -> str: ...

    def prepare(
        self, rows: DataFrame, features: Sequence[str], labels: Sequence[str]
    ) -> FeatureRows:
        """Compute the frame once and keep it. Raises: EnvironmentNotReady where the engine's
        runtime is missing.
        """

    def load(self, text: str, features: Sequence[str]) -> FittedModel:
        """A model from its native text and the features it was fitted with. Raises: ValueError for
        a text that is no model.
        """


ModelSpan = tuple[FittedModel, DaySpan]
"""A model and the as-of days it forecasts; the spans of one list do not overlap."""

LabelCounts = Mapping[str, Mapping[dt.date, int]]


def count_labels(counts: LabelCounts, label: str, days: DaySpan) -> int:
    return sum(rows for day, rows in counts[label].items() if day in days)


def collect(rows: DataFrame) -> pd.DataFrame:
    """The rows in this process, sorted by KEY, `date` as a UTC midnight."""
    frame = rows.toPandas()
    frame["date"] = pd.to_datetime(frame["date"])
    return frame.sort_values(list(KEY), ignore_index=True)
