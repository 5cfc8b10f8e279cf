"""Rows that a forecast run writes, with their types and merge targets.

Reads pandas rows of `fallbacks` and `publish`; writes nothing.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pyarrow as pa
from sqlalchemy import Table

from common.horizons import NEXT_DAY
from database.schema.merge_sql import MergeTarget, qualified
from database.schema.own_tables import forecast_evaluation, forecasts
from database.schema.owner_tables import FORECAST_COLUMNS
from forecasting.executors.executor import RowsToStage
from forecasting.publishing.forecast_history import PRODUCTION
from forecasting.publishing.publish import DESCRIPTIVE_COLUMNS

TEXT, DAY, NUMBER, COUNT = pa.string(), pa.date32(), pa.float64(), pa.int32()

FORECAST_TYPES: dict[str, pa.DataType] = {
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
EVALUATION_TYPES: dict[str, pa.DataType] = {
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
            *DESCRIPTIVE_COLUMNS,
        ),
        NUMBER,
    ),
}


def forecasts_to_stage(rows: pd.DataFrame, *, metrics: Table) -> RowsToStage:
    """Returns the rows of `yieldspark.forecasts`.

    Args:
        rows: the table's columns. Rows one day ahead go to the forecast columns of the metrics
            table too.
        metrics: the metrics table.
    """
    columns = dict(zip(FORECAST_COLUMNS, ("apy", "tvl"), strict=True))
    key = {"pool_id": "pool_id", "date": "target_date"}
    next_day = MergeTarget(metrics, key, columns, rows=f"s.horizon_days = {NEXT_DAY}")
    return RowsToStage(rows, pa.schema(FORECAST_TYPES), [_own_target(forecasts), next_day])


def evaluation_to_stage(rows: pd.DataFrame, source: str) -> RowsToStage:
    """Returns the rows of `yieldspark.forecast_evaluation`.

    Args:
        rows: rows of `evaluation_rows`.
        source: PRODUCTION or BACKTEST.
    """
    target, schema = _own_target(forecast_evaluation), pa.schema(EVALUATION_TYPES)
    if source == PRODUCTION:
        # a repeated run of a past day has no actual values: it must not erase the stored ones
        columns = {name: name for name in target.columns if name != "actual"}
        return RowsToStage(rows, schema, [replace(target, columns=columns)])
    key = " AND ".join(f"e.{name} = s.{name}" for name in target.key)
    # a backtest never replaces a row that was published
    not_published = f"""
NOT EXISTS (
    SELECT FROM {qualified(forecast_evaluation)} AS e
    WHERE {key}
        AND e.source = '{PRODUCTION}'
)
"""
    return RowsToStage(rows, schema, [replace(target, rows=not_published)])


def _own_target(table: Table) -> MergeTarget:
    keys = {column.name: column.name for column in table.primary_key}
    columns = {
        column.name: column.name
        for column in table.columns
        if column.name not in keys and column.name != "run_id"
    }
    # the run id is written with a new or changed row and is no change by itself: a second run on
    # the same data changes nothing
    return MergeTarget(table, keys, columns, provenance={"run_id": "run_id"})
