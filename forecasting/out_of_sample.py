"""From metrics in the database to out-of-sample moves: read, make feature rows, fit, forecast. What a night and a backtest have in common.

In: a plan of folds, and a snapshot of the database. Out: `OutOfSample`, and what is known of each pool.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from sqlalchemy import text

from config_spark import Settings
from database.connection import checked_connection, make_engine
from database.db_utils_spark import read_table_spark
from database.run_ledger import Run
from forecasting.engines.choose import choose_engine
from forecasting.engines.engine import FeatureRows
from forecasting.features import LABELS, FeatureSpec, feature_names, feature_rows, metrics_query
from forecasting.folds import FoldPlan
from forecasting.forecast_plan import first_read_day
from forecasting.market_features import market_query
from forecasting.rules import KNOWN_COLUMNS, KNOWN_QUERY
from forecasting.stacked_model import OutOfSample, fit_stacked


def fit_out_of_sample(spark: SparkSession, settings: Settings, engine: str, folds: FoldPlan, run: Run, snapshot: str) -> OutOfSample:
    """The moves of every day that the plan forecasts. The snapshot must outlast the call: a lost executor's partitions are read again."""
    with run.stage("features"):
        held = _hold(spark, settings, engine, folds, run, snapshot)
    try:
        return fit_stacked(held, folds, settings.interval_level, run.stage)
    finally:
        held.release()


def known_pools(settings: Settings, as_of: dt.date, snapshot: str) -> pd.DataFrame:
    """KNOWN_COLUMNS of every active pool on the as-of day."""
    return pd.DataFrame(_at_snapshot(settings, snapshot, KNOWN_QUERY, {"as_of": as_of}), columns=list(KNOWN_COLUMNS))


def _hold(spark: SparkSession, settings: Settings, name: str, folds: FoldPlan, run: Run, snapshot: str) -> FeatureRows:
    engine = choose_engine(name, settings, spark)
    query = metrics_query(first_read_day(folds), folds.known)
    # the same statement at the same snapshot: these are the rows that Spark reads
    run.rows["read"] += _at_snapshot(settings, snapshot, f"SELECT count(*) AS rows FROM ({query}) AS metrics", {})[0]["rows"]
    metrics = read_table_spark(spark, settings, query, partition_by="pool_id", snapshot=snapshot)
    market = _market(spark, settings, folds, snapshot) if settings.market_features else None
    spec = FeatureSpec(folds.first_day, folds.known, folds.horizon, settings.interval_level, settings.min_history_days)
    with feature_rows(metrics, spec, market) as rows:
        return engine.hold(rows, feature_names(market=settings.market_features), LABELS)


def _market(spark: SparkSession, settings: Settings, folds: FoldPlan, snapshot: str) -> DataFrame:
    return read_table_spark(spark, settings, market_query(first_read_day(folds), folds.known), snapshot=snapshot)


def _at_snapshot(settings: Settings, snapshot: str, statement: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a statement in the state of the database that Spark's reads see."""
    with checked_connection(make_engine(settings).execution_options(isolation_level="REPEATABLE READ")) as connection:
        connection.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        return [dict(row) for row in connection.execute(text(statement), parameters).mappings()]
