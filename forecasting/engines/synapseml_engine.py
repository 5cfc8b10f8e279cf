"""The `synapseml` engine: LightGBM on Spark. Feature rows stay in Spark, persisted once in a fixed
layout, so that a second run gives the same bits.

Needs SynapseML's Scala 2.12 jars on the session's class path and an x86_64 machine;
EnvironmentNotReady says how to go on without them.
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
from py4j.protocol import Py4JJavaError
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from common.errors import EnvironmentNotReady, one_sentence
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

ESTIMATOR_CLASS = "com.microsoft.azure.synapse.ml.lightgbm.LightGBMRegressor"
VECTOR = "features_vector"
FORECAST = "forecast"
PARTITIONS = 8
"""Partitions of the rows, whatever the session has: a model follows their order, and a laptop and a
cluster must make the same one.
"""

NEXT_STEP = "take `--engine lightgbm`, which needs no jars"


def check_runtime(spark: SparkSession) -> None:
    """Raises: EnvironmentNotReady on a machine without SynapseML's natives, or in a session without
    its jars.
    """
    machine = platform.machine()
    if machine not in ("x86_64", "AMD64"):
        raise EnvironmentNotReady(
            f"SynapseML's LightGBM has native code for x86_64 only, and this machine is {machine}:"
            f" {NEXT_STEP}"
        )
    try:
        spark.sparkContext._jvm.java.lang.Class.forName(  # type: ignore[union-attr]
            ESTIMATOR_CLASS,
            False,
            spark.sparkContext._jvm.java.lang.Thread.currentThread().getContextClassLoader(),  # type: ignore[union-attr]
        )
    except Exception as error:
        raise EnvironmentNotReady(
            f"the Spark session has no SynapseML jars ({ESTIMATOR_CLASS} is not on its class path):"
            f" `doctor` says how to get them, or {NEXT_STEP}"
        ) from error


def estimator(parameters: ModelParameters, objective: Objective, features: Sequence[str]) -> Any:
    """A fresh regressor with the shared settings: one that was fitted before keeps state of its
    former target.

    One task, because two workers have crashed natively. Sampling over all rows and a deterministic
    learner, because bins and sums must not depend on timing. Early stopping is off by having no
    validation column. Bulk transfer gave the same model as streaming in four fifths of the time.
    """
    from synapse.ml.lightgbm import LightGBMRegressor

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
        numTasks=1,
        dataTransferMode="bulk",
        samplingMode="global",
        matrixType="dense",
        deterministic=True,
        passThroughArgs="force_row_wise=true",
        verbosity=-1,
    )


@dataclass(frozen=True)
class SynapsemlRows:
    """Rows as a persisted Spark frame, partitioned by pool and sorted by KEY; the features stand in
    one vector.
    """

    frame: DataFrame
    features: tuple[str, ...]
    counts: LabelCounts
    parameters: ModelParameters

    def labelled_rows(self, label: str, days: DaySpan) -> int:
        return count_labels(self.counts, label, days)

    def fit(self, objectives: Sequence[Objective], days: DaySpan) -> list[FittedModel]:
        labels = sorted({objective.label for objective in objectives})
        known = self.frame.where(_within(days) & F.col(labels[0]).isNotNull())
        rows = known.select(VECTOR, *(F.col(label).cast("float").alias(label) for label in labels))
        models = []
        with adaptive_execution_disabled(self.frame.sparkSession):
            for objective in objectives:
                model = estimator(self.parameters, objective, self.features).fit(rows)
                models.append(
                    FittedModel(without_threads(model.getNativeModel()), self.features, model)
                )
        return models

    def with_feature(self, name: str, parts: Sequence[ModelSpan]) -> SynapsemlRows:
        with adaptive_execution_disabled(self.frame.sparkSession):
            named = (
                self._forecasts(self.frame, parts)
                .withColumn(name, F.col(FORECAST).cast("float"))
                .drop(FORECAST)
            )
            extended = _assembled(named.withColumnRenamed(VECTOR, "known"), ["known", name]).drop(
                "known"
            )
            return replace(self, frame=_persisted(extended), features=(*self.features, name))

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
            # by name and not by chance: another layout of the rows gives the same part
            found = collect(rows.where(F.pmod(F.xxhash64("pool_id"), F.lit(parts)) == 0))
        vectors = found.pop(VECTOR)
        return found, (
            np.stack(vectors.to_list())
            if len(vectors)
            else np.empty((0, len(self.features)), np.float32)
        )

    def release(self) -> None:
        self.frame.unpersist()

    def _forecasts(self, rows: DataFrame, parts: Sequence[ModelSpan]) -> DataFrame:
        uncovered = reduce(
            lambda rest, part: rest.where(~_within(part[1])), parts, rows
        ).withColumn(FORECAST, F.lit(None).cast("double"))
        covered = (model.native.transform(rows.where(_within(days))) for model, days in parts)
        return reduce(DataFrame.unionByName, covered, uncovered)


@dataclass(frozen=True)
class SynapsemlEngine:
    parameters: ModelParameters
    name: str = "synapseml"

    def prepare(
        self, rows: DataFrame, features: Sequence[str], labels: Sequence[str]
    ) -> SynapsemlRows:
        check_runtime(rows.sparkSession)
        with adaptive_execution_disabled(rows.sparkSession):
            kept = _persisted(
                _assembled(rows, features).drop(*(name for name in features if name not in labels))
            )
            by_day = (
                kept.groupBy("date")
                .agg(*(F.count(label).alias(label) for label in labels))
                .collect()
            )
        counts = {label: {row["date"]: int(row[label]) for row in by_day} for label in labels}
        return SynapsemlRows(kept, tuple(features), counts, self.parameters)

    def load(self, text: str, features: Sequence[str]) -> FittedModel:
        from synapse.ml.lightgbm import LightGBMRegressionModel

        native = LightGBMRegressionModel.loadNativeModelFromString(text)
        try:
            # the text is parsed when it is first used
            native.getBoosterNumTotalModel()
        except Py4JJavaError as error:
            raise ValueError(f"no LightGBM model: {one_sentence(error)}") from error
        return FittedModel(
            text, tuple(features), native.setFeaturesCol(VECTOR).setPredictionCol(FORECAST)
        )


@contextmanager
def adaptive_execution_disabled(spark: SparkSession) -> Iterator[None]:
    """Adaptive execution off: it merges partitions by their size, and the order of rows would
    follow.
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
