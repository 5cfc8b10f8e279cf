"""The interface of an executor: what computes the feature rows of a run and loads its results.

Both executors read the same rows by the same functions, so a run publishes the same bits by either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd
import pyarrow as pa

from database.schema.merge_sql import MergeTarget
from database.staging import StagedRows
from forecasting.engines.engine import Engine, FeatureRows
from forecasting.features.labelled_features import FeatureSpec


@dataclass(frozen=True)
class FeatureSource:
    """What the feature rows of a run are computed from.

    Attributes:
        metrics: SELECT of `metrics_query`.
        snapshot: id of the exported snapshot that is read.
        spec: as-of days and how their rows are computed.
        market: `market_changes`; None without the features of prices.
        features: names of the features, in the order of a model's matrix.
        transfer: feature rows of the transfer panel; None without it.
    """

    metrics: str
    snapshot: str
    spec: FeatureSpec
    market: pa.Table | None
    features: Sequence[str]
    transfer: pa.Table | None = None


@dataclass(frozen=True)
class RowsToStage:
    """Rows of this process that a run writes.

    Attributes:
        rows: has the columns of the schema; NaN becomes null.
        schema: types of staging.
        targets: tables that the rows are merged into.
    """

    rows: pd.DataFrame
    schema: pa.Schema
    targets: Sequence[MergeTarget]

    def numbers_as_doubles(self) -> pd.DataFrame:
        """Returns the schema's columns; a column of numbers without any value has a type too."""
        numbers = [field.name for field in self.schema if field.type == pa.float64()]
        columns: pd.DataFrame = self.rows[self.schema.names]
        return columns.astype(dict.fromkeys(numbers, "float64"))


class Executor(Protocol):
    """Spark (`spark_executor`), or this process (`InProcessExecutor`)."""

    def engine(self, name: str) -> Engine:
        """Returns the named engine with the parameters of the settings.

        Raises:
            ConfigurationError: there is no such engine.
            EnvironmentNotReady: the engine's runtime is missing.
        """

    def prepare(self, engine: Engine, source: FeatureSource) -> FeatureRows:
        """Computes the feature rows and keeps them in the engine's memory.

        Raises:
            DatabaseError: the database does not answer or refuses a statement.
        """

    def staged(self, rows: RowsToStage) -> StagedRows:
        """Returns the rows for `commit_run`."""

    def on_loaded(self) -> None:
        """Raises KeyboardInterrupt for a signal that arrived while the last rows were loaded."""
