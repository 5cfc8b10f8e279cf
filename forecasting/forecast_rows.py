"""The job's rows as staging takes them: a Spark frame with its schema, and the targets it is merged into.

In: pandas rows of `rules` and `backtest`. Out: (frame, merge targets). NaN becomes null here. A run id is provenance: it is written with a new or
changed row and is no change by itself, so a second run on the same data changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T
from sqlalchemy import Table

from database.merge_sql import MergeTarget
from database.tables import FORECAST_COLUMNS, forecast_evaluation, forecasts, pool_daily_metrics

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
    "rule": TEXT,
    "run_id": TEXT,
}
EVALUATION_SCHEMA: dict[str, T.DataType] = {
    "pool_id": TEXT,
    "target_date": DAY,
    "horizon_days": COUNT,
    "target": TEXT,
    "engine": TEXT,
    "as_of": DAY,
    "actual": NUMBER,
    "forecast": NUMBER,
    "low": NUMBER,
    "high": NUMBER,
    "persistence": NUMBER,
    "median_7d": NUMBER,
    "tvl_usd": NUMBER,
    "apy_percent": NUMBER,
    "interval_level": NUMBER,
    "model_version": TEXT,
    "run_id": TEXT,
}


def forecast_staging(spark: SparkSession, rows: pd.DataFrame, *, horizon: int) -> tuple[DataFrame, Sequence[MergeTarget]]:
    """Rows of `yieldspark.forecasts`; those one day ahead go to the forecast columns of `pool_daily_metrics` too."""
    targets = [_own_target(forecasts)]
    if horizon == 1:
        columns = dict(zip(FORECAST_COLUMNS, ("apy", "tvl"), strict=True))
        targets.append(MergeTarget(pool_daily_metrics, {"pool_id": "pool_id", "date": "target_date"}, columns))
    return _frame(spark, rows, FORECAST_SCHEMA), targets


def evaluation_staging(spark: SparkSession, rows: pd.DataFrame) -> tuple[DataFrame, Sequence[MergeTarget]]:
    """Rows of `yieldspark.forecast_evaluation`."""
    return _frame(spark, rows, EVALUATION_SCHEMA), [_own_target(forecast_evaluation)]


def _own_target(table: Table) -> MergeTarget:
    keys = {column.name: column.name for column in table.primary_key}
    columns = {column.name: column.name for column in table.columns if column.name not in keys and column.name != "run_id"}
    return MergeTarget(table, keys, columns, provenance={"run_id": "run_id"})


def _frame(spark: SparkSession, rows: pd.DataFrame, schema: dict[str, T.DataType]) -> DataFrame:
    """Python rows with None for NaN: through pandas, a NaN in a number column could reach the database as NaN."""
    plain = rows[list(schema)].astype(object).where(rows[list(schema)].notna(), None)
    return spark.createDataFrame(plain.values.tolist(), T.StructType([T.StructField(name, kind) for name, kind in schema.items()]))
