"""The job's rows as staging takes them: a Spark frame with its schema, and the targets it is merged
into.

In: pandas rows of `rules` and `backtest`. Out: (frame, merge targets). NaN becomes null here. A run
id is provenance: it is written with a new or changed row and is no change by itself, so a second
run on the same data changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T
from sqlalchemy import Table

from database.schema.merge_sql import MergeTarget, qualified
from database.schema.tables import FORECAST_COLUMNS, forecast_evaluation, forecasts
from forecasting.evaluation.backtest import DESCRIBED
from forecasting.publishing.forecast_history import PRODUCTION

TEXT, DAY, NUMBER, COUNT = T.StringType(), T.DateType(), T.DoubleType(), T.IntegerType()

FORECAST_SCHEMA: dict[str, T.DataType] = {
    "pool_id": TEXT,
    "target_date": DAY,
    "horizon_days": COUNT,
    "as_of": DAY,
    "apy": NUMBER,
    "apy_low": NUMBER,
    "apy_high": NUMBER,
    "tvl": NUMBER,
    "tvl_low": NUMBER,
    "tvl_high": NUMBER,
    "interval_level": NUMBER,
    "engine": TEXT,
    "model_version": TEXT,
    "apy_fallback_reason": TEXT,
    "tvl_fallback_reason": TEXT,
    "explanation": TEXT,
    "run_id": TEXT,
}
EVALUATION_SCHEMA: dict[str, T.DataType] = {
    **dict.fromkeys(("pool_id", "target", "engine", "source", "model_version", "run_id"), TEXT),
    **dict.fromkeys(("target_date", "as_of"), DAY),
    "horizon_days": COUNT,
    **dict.fromkeys(("actual", "forecast", "low", "high", "persistence", "interval_level"), NUMBER),
    **dict.fromkeys(
        (
            "volatility_scale",
            "model_change",
            "model_change_low",
            "model_change_high",
            "gate_weight",
            *DESCRIBED,
        ),
        NUMBER,
    ),
}


def forecast_staging(
    spark: SparkSession, rows: pd.DataFrame, *, horizon: int, metrics: Table
) -> tuple[DataFrame, Sequence[MergeTarget]]:
    """Rows of `yieldspark.forecasts`; those one day ahead go to the forecast columns of the
    metrics table too.
    """
    targets = [_own_target(forecasts)]
    if horizon == 1:
        columns = dict(zip(FORECAST_COLUMNS, ("apy", "tvl"), strict=True))
        key = {"pool_id": "pool_id", "date": "target_date"}
        targets.append(MergeTarget(metrics, key, columns))
    return _frame(spark, rows, FORECAST_SCHEMA), targets


def evaluation_staging(
    spark: SparkSession, rows: pd.DataFrame, source: str
) -> tuple[DataFrame, Sequence[MergeTarget]]:
    """Rows of `yieldspark.forecast_evaluation` from one source.

    Tonight's leave `actual` alone: whoever runs a past day again knows less than the ledger. A
    backtest leaves alone what a night has published.
    """
    target = _own_target(forecast_evaluation)
    if source == PRODUCTION:
        return _frame(spark, rows, EVALUATION_SCHEMA), [
            replace(target, columns={name: name for name in target.columns if name != "actual"})
        ]
    key = " AND ".join(f"e.{name} = s.{name}" for name in target.key)
    others = (
        f"NOT EXISTS (SELECT FROM {qualified(forecast_evaluation)} AS e WHERE {key} AND e.source ="
        f" '{PRODUCTION}')"
    )
    return _frame(spark, rows, EVALUATION_SCHEMA), [replace(target, rows=others)]


def _own_target(table: Table) -> MergeTarget:
    keys = {column.name: column.name for column in table.primary_key}
    columns = {
        column.name: column.name
        for column in table.columns
        if column.name not in keys and column.name != "run_id"
    }
    return MergeTarget(table, keys, columns, provenance={"run_id": "run_id"})


def _frame(spark: SparkSession, rows: pd.DataFrame, schema: dict[str, T.DataType]) -> DataFrame:
    """By Arrow, which makes NaN null; should a number stay NaN, the check of staging refuses it."""
    plain = rows[list(schema)].astype(
        {name: "float64" for name, kind in schema.items() if kind == NUMBER}
    )
    return spark.createDataFrame(
        plain, T.StructType([T.StructField(name, kind) for name, kind in schema.items()])
    )
