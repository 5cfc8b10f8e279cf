"""From metrics in the database to feature rows dataset by an engine: what a night and a backtest have
in common.

In: a plan of folds, and a snapshot of the database. Out: `FeatureRows` as long as they are needed,
what data they were made of, and what is known of each pool. It fits nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from sqlalchemy import text

from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from database.db_utils_spark import read_table_spark
from database.ledger.runs import Run
from database.schema.merge_sql import qualified
from database.schema.metrics_table import metrics_table
from forecasting.engines.engine import Engine, FeatureRows
from forecasting.engines.folds import FoldPlan
from forecasting.features.feature_frame import (
    LABELS,
    FeatureSpec,
    feature_names,
    feature_rows,
    metrics_query,
)
from forecasting.features.market_features import market_query
from forecasting.publishing.fallbacks import POOL_COLUMNS, active_pools_query
from forecasting.run.plan import first_read_day

DATA_FACTS = (
    "SELECT count(*) AS rows, sum(hashtextextended(metrics::text, 0)) AS hash FROM ({query}) AS"
    " metrics"
)


@dataclass(frozen=True)
class DatasetSummary:
    """The metrics that were read: their first day, how many, and a hash of all their values that
    their order does not change.
    """

    first_day: dt.date
    rows: int
    hash: str


@contextmanager
def cached_dataset(
    spark: SparkSession,
    settings: Settings,
    engine: Engine,
    folds: FoldPlan,
    run: Run,
    snapshot: str,
    *,
    first_day: dt.date | None = None,
) -> Iterator[tuple[FeatureRows, DatasetSummary]]:
    """Feature rows of the plan's days. The snapshot must outlast the block: a lost executor's
    partitions are read again.

    Args: first_day is the first day of metrics that is read (default: what the plan's first day
    looks back to). Exponential means never quite forget: a night that fits nothing reads as far
    back as one that does, so that both see the same features.
    """
    with run.stage("features"):
        dataset, facts = _hold(
            spark, settings, engine, folds, run, snapshot, first_day or first_read_day(folds)
        )
    try:
        yield dataset, facts
    finally:
        dataset.release()


def active_pools(settings: Settings, as_of: dt.date, snapshot: str) -> pd.DataFrame:
    """POOL_COLUMNS of every active pool on the as-of day."""
    rows = _at_snapshot(
        settings, snapshot, active_pools_query(_metrics(settings)), {"as_of": as_of}
    )
    return pd.DataFrame(rows, columns=list(POOL_COLUMNS))


def _metrics(settings: Settings) -> str:
    return qualified(metrics_table(settings.metrics_table))


def _hold(
    spark: SparkSession,
    settings: Settings,
    engine: Engine,
    folds: FoldPlan,
    run: Run,
    snapshot: str,
    first_day: dt.date,
) -> tuple[FeatureRows, DatasetSummary]:
    query = metrics_query(_metrics(settings), first_day, folds.known)
    # the same statement at the same snapshot: these are the rows that Spark reads
    found = _at_snapshot(settings, snapshot, DATA_FACTS.format(query=query), {})[0]
    run.rows["read"] += found["rows"]
    metrics = read_table_spark(spark, settings, query, partition_by="pool_id", snapshot=snapshot)
    market = (
        _market(spark, settings, first_day, folds.known, snapshot)
        if settings.market_features
        else None
    )
    spec = FeatureSpec(
        folds.first_day,
        folds.known,
        folds.horizon,
        settings.interval_level,
        settings.min_history_days,
    )
    with feature_rows(metrics, spec, market) as rows:
        dataset = engine.prepare(rows, feature_names(market=settings.market_features), LABELS)
    return dataset, DatasetSummary(
        first_day, found["rows"], f"{int(found['hash'] or 0) % 2**64:016x}"
    )


def _market(
    spark: SparkSession, settings: Settings, first_day: dt.date, last_day: dt.date, snapshot: str
) -> DataFrame:
    query = market_query(_metrics(settings), first_day, last_day)
    return read_table_spark(spark, settings, query, snapshot=snapshot)


def _at_snapshot(
    settings: Settings, snapshot: str, statement: str, parameters: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Rows of a statement in the state of the database that Spark's reads see."""
    with checked_connection(
        make_engine(settings).execution_options(isolation_level="REPEATABLE READ")
    ) as connection:
        connection.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        return [dict(row) for row in connection.execute(text(statement), parameters).mappings()]
