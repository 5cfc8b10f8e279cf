"""The `synapseml` engine: LightGBM on Spark, on rows that stay in Spark in a fixed layout.

Needs SynapseML's Scala 2.12 jars on the session's class path and an x86_64 machine. A second run on
the same data gives the same bits.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from common.errors import EnvironmentNotReady, summarize_error
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

ESTIMATOR_CLASS = "com.microsoft.azure.synapse.ml.lightgbm.LightGBMRegressor"
VECTOR = "features_vector"
FORECAST = "forecast"
WEIGHT = "weight"
# the same in every session: a model follows the order of its rows, and a laptop and a cluster must
# fit the same model
PARTITIONS = 8

ALTERNATIVE = "use `--engine lightgbm`, which needs no jars"


def check_runtime(spark: SparkSession) -> None:
    """Checks that SynapseML can run in this session.

    Raises:
        EnvironmentNotReady: the machine is not x86_64, or the session has no SynapseML jars.
    """
    machine = platform.machine()
    if machine not in ("x86_64", "AMD64"):
        raise EnvironmentNotReady(
            f"SynapseML's LightGBM has native code for x86_64 only, and this machine is {machine}:"
            f" {ALTERNATIVE}"
        )
    try:
        java = spark.sparkContext._jvm.java.lang  # type: ignore[union-attr]
        loader = java.Thread.currentThread().getContextClassLoader()
        java.Class.forName(ESTIMATOR_CLASS, False, loader)
    except Exception as error:
        raise EnvironmentNotReady(
            f"the Spark session has no SynapseML jars ({ESTIMATOR_CLASS} is not on its class path):"
            f" `doctor` says how to get them, or {ALTERNATIVE}"
        ) from error


def estimator(
    parameters: ModelParameters,
    objective: Objective,
    features: Sequence[str],
    *,
    is_weighted: bool = False,
) -> Any:
    """Returns a new regressor with the shared parameters; a weighted one reads WEIGHT."""
    from synapse.ml.lightgbm import LightGBMRegressor

    # Always a new object: a fitted one keeps state of its former target. Without a validation
    # column there is no early stopping.
    return LightGBMRegressor(
        **(
            {"objective": "regression_l1"}
            if objective.alpha is None
            else {"objective": "quantile", "alpha": objective.alpha}
        ),
        featuresCol=VECTOR,
        labelCol=objective.label,
        predictionCol=FORECAST,
        slotNames=list(features),
        numIterations=parameters.rounds,
        learningRate=parameters.learning_rate,
        numLeaves=parameters.leaves,
        minDataInLeaf=parameters.min_data_in_leaf,
        featureFraction=parameters.feature_fraction,
        baggingFraction=parameters.bagging_fraction,
        baggingFreq=1,
        lambdaL2=parameters.lambda_l2,
        maxBin=parameters.max_bin,
        seed=parameters.seed + objective.seed_offset,
        numThreads=parameters.threads,
        numTasks=1,  # two workers have crashed natively
        dataTransferMode="bulk",  # the same model as by streaming, in four fifths of the time
        samplingMode="global",  # bins must not depend on timing
        matrixType="dense",
        deterministic=True,
        passThroughArgs="force_row_wise=true",
        verbosity=-1,
        **({"weightCol": WEIGHT} if is_weighted else {}),
    )


@dataclass(frozen=True)
class SynapsemlRows:
    """Feature rows as a persisted Spark frame, partitioned by pool and sorted by KEY; see
    `FeatureRows`.

    The features are one vector column. `transfer` has the rows of the transfer panel.
    """

    frame: DataFrame
    features: tuple[str, ...]
    counts: LabelCounts
    parameters: ModelParameters
    transfer: SynapsemlRows | None = None

    def labelled_rows(self, label: str, days: DaySpan) -> int:
        return count_labels(self.counts, label, days)

    def transfer_rows(self, label: str, days: DaySpan) -> int:
        return self.transfer.labelled_rows(label, until_end(days)) if self.transfer else 0

    def without_transfer(self) -> SynapsemlRows:
        return replace(self, transfer=None)

    def fit(self, objectives: Sequence[Objective], days: DaySpan) -> list[FittedModel]:
        labels = sorted({objective.label for objective in objectives})
        rows = self._labelled(labels, days)
        # without a row to transfer the fit is the one of own rows alone, to the last bit
        is_weighted = self.transfer_rows(labels[0], days) > 0
        if self.transfer and is_weighted:
            panel = self.transfer._labelled(labels, until_end(days))
            rows = rows.withColumn(WEIGHT, F.lit(1.0)).unionByName(
                panel.withColumn(WEIGHT, F.lit(TRANSFER_WEIGHT))
            )
        models = []
        with adaptive_execution_disabled(self.frame.sparkSession):
            for objective in objectives:
                model = estimator(
                    self.parameters, objective, self.features, is_weighted=is_weighted
                ).fit(rows)
                models.append(
                    FittedModel(without_threads(model.getNativeModel()), self.features, model)
                )
        return models

    def _labelled(self, labels: Sequence[str], days: DaySpan) -> DataFrame:
        labelled = self.frame.where(_within(days) & F.col(labels[0]).isNotNull())
        return labelled.select(
            VECTOR, *(F.col(label).cast("float").alias(label) for label in labels)
        )

    def with_feature(self, name: str, spans: Sequence[ModelSpan]) -> SynapsemlRows:
        with adaptive_execution_disabled(self.frame.sparkSession):
            forecasts = (
                self._forecasts(self.frame, spans)
                .withColumn(name, F.col(FORECAST).cast("float"))
                .drop(FORECAST)
            )
            renamed = forecasts.withColumnRenamed(VECTOR, "former_features")
            extended = _assembled(renamed, ["former_features", name]).drop("former_features")
            return replace(
                self,
                frame=_persisted(extended),
                features=(*self.features, name),
                transfer=self.transfer.with_feature(name, spans) if self.transfer else None,
            )

    def forecast(
        self, days: DaySpan, models: Sequence[FittedModel], columns: Sequence[str]
    ) -> pd.DataFrame:
        rows = self.frame.where(_within(days)).select(*KEY, *columns, VECTOR)
        with adaptive_execution_disabled(self.frame.sparkSession):
            for number, model in enumerate(models):
                rows = model.native.transform(rows).withColumnRenamed(FORECAST, str(number))
            return collect(rows.drop(VECTOR))

    def feature_matrix(
        self, days: DaySpan, columns: Sequence[str], *, at_most: int | None = None
    ) -> tuple[pd.DataFrame, Features]:
        rows = self.frame.where(_within(days)).select(
            *KEY, *columns, vector_to_array(F.col(VECTOR), "float32").alias(VECTOR)
        )
        with adaptive_execution_disabled(self.frame.sparkSession):
            parts = max(1, -(-rows.count() // at_most)) if at_most else 1
            # by a hash of the pool and not at random: every layout of the rows gives the same part
            selected = collect(rows.where(F.pmod(F.xxhash64("pool_id"), F.lit(parts)) == 0))
        vectors = selected.pop(VECTOR)
        if not len(vectors):
            return selected, np.empty((0, len(self.features)), np.float32)
        return selected, np.stack(vectors.to_list())

    def release(self) -> None:
        self.frame.unpersist()
        if self.transfer:
            self.transfer.release()

    def _forecasts(self, rows: DataFrame, spans: Sequence[ModelSpan]) -> DataFrame:
        uncovered = reduce(
            lambda rest, span: rest.where(~_within(span[1])), spans, rows
        ).withColumn(FORECAST, F.lit(None).cast("double"))
        covered = (model.native.transform(rows.where(_within(days))) for model, days in spans)
        return reduce(DataFrame.unionByName, covered, uncovered)


@dataclass(frozen=True)
class SynapsemlEngine:
    """LightGBM on Spark; see `Engine`."""

    parameters: ModelParameters
    name: str = "synapseml"

    def prepare(
        self,
        rows: DataFrame,
        features: Sequence[str],
        labels: Sequence[str],
        transfer: pa.Table | None = None,
    ) -> SynapsemlRows:
        check_runtime(rows.sparkSession)
        with adaptive_execution_disabled(rows.sparkSession):
            unused = [name for name in features if name not in labels]
            frame = _persisted(_assembled(rows, features).drop(*unused))
            by_day = (
                frame.groupBy("date")
                .agg(*(F.count(label).alias(label) for label in labels))
                .collect()
            )
        counts = {}
        for label in labels:
            counts[label] = {row["date"]: int(row[label]) for row in by_day}
        panel = None
        if transfer is not None:
            columns = transfer.select([*KEY, *dict.fromkeys([*features, *labels])])
            panel = self.prepare(
                rows.sparkSession.createDataFrame(
                    columns.to_pandas(), from_arrow_schema(columns.schema)
                ),
                features,
                labels,
            )
        return SynapsemlRows(frame, tuple(features), counts, self.parameters, panel)

    def load(self, text: str, features: Sequence[str]) -> FittedModel:
        from synapse.ml.lightgbm import LightGBMRegressionModel

        native = LightGBMRegressionModel.loadNativeModelFromString(text)
        try:
            # the text is parsed on first use
            native.getBoosterNumTotalModel()
        except Py4JJavaError as error:
            raise ValueError(f"no LightGBM model: {summarize_error(error)}") from error
        return FittedModel(
            text, tuple(features), native.setFeaturesCol(VECTOR).setPredictionCol(FORECAST)
        )


@contextmanager
def adaptive_execution_disabled(spark: SparkSession) -> Iterator[None]:
    """Disables adaptive execution inside the block.

    It merges partitions by their size, which would change the order of the rows.
    """
    key = "spark.sql.adaptive.enabled"
    before = spark.conf.get(key)
    spark.conf.set(key, "false")
    try:
        yield
    finally:
        spark.conf.set(key, str(before))


def _persisted(rows: DataFrame) -> DataFrame:
    return rows.repartition(PARTITIONS, "pool_id").sortWithinPartitions(*KEY).persist()


def _assembled(rows: DataFrame, columns: Sequence[str]) -> DataFrame:
    return VectorAssembler(
        inputCols=list(columns), outputCol=VECTOR, handleInvalid="keep"
    ).transform(rows)


def _within(days: DaySpan) -> Column:
    return (F.col("date") >= F.lit(days.start)) & (F.col("date") < F.lit(days.end))
