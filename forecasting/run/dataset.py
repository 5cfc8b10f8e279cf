"""The dataset of a run: feature rows of the plan's days in an engine's memory.

Reads the metrics at a snapshot of the database. Used by forecasts, backtests, comparisons and the
parameter search; fits nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
from sqlalchemy import Connection, text

from config_spark import Settings
from database.connections.snapshots import at_snapshot
from database.ledger.runs import Run
from database.schema.merge_sql import qualified
from database.schema.metrics_table import metrics_table
from forecasting.engines.engine import Engine, FeatureRows
from forecasting.engines.folds import FoldPlan
from forecasting.executors.executor import Executor, FeatureSource
from forecasting.features.feature_names import MARKET_SERIES, feature_names
from forecasting.features.labelled_features import FeatureSpec
from forecasting.features.market_features import PRICES_SCHEMA, market_changes
from forecasting.features.source_queries import (
    POOL_COLUMNS,
    active_pools_query,
    market_query,
    metrics_query,
)
from forecasting.features.transfer_rows import transfer_rows
from forecasting.run.as_of_day import first_read_day
from forecasting.run.run_inputs import MetricsDigest, metrics_digest


@dataclass(frozen=True)
class DatasetSummary:
    """Identifies the metrics that were read.

    Attributes:
        first_day: first UTC day.
        metrics: number of pool-days, and the digest of all values.
    """

    first_day: dt.date
    metrics: MetricsDigest


@contextmanager
def cached_dataset(
    executor: Executor,
    settings: Settings,
    engine: Engine,
    folds: FoldPlan,
    run: Run,
    snapshot: str,
    *,
    first_day: dt.date | None = None,
    transfer: bool = False,
) -> Iterator[tuple[FeatureRows, DatasetSummary]]:
    """Yields the feature rows of the plan's days; the block's end releases them.

    Args:
        snapshot: id of an exported snapshot. It must outlive the block: partitions of a lost
            executor are read again.
        first_day: first day of metrics that is read; default: look-back of the plan's first day.
        transfer: whether fits learn from the transfer panel too.

    Raises:
        EnvironmentNotReady: the engine's runtime is missing.
        DatabaseError: the database does not answer or refuses a statement.
    """
    with run.stage("features"):
        dataset, summary = _prepare(
            executor,
            settings,
            engine,
            folds,
            run,
            snapshot,
            first_day or first_read_day(folds),
            transfer=transfer,
        )
    try:
        yield dataset, summary
    finally:
        dataset.release()


def active_pools(settings: Settings, as_of: dt.date, snapshot: str) -> pd.DataFrame:
    """Returns POOL_COLUMNS of every active pool on the as-of day."""
    query = active_pools_query(_metrics(settings))
    with at_snapshot(settings, snapshot) as connection:
        mappings = connection.execute(text(query), {"as_of": as_of}).mappings()
        rows = [dict(row) for row in mappings]
    return pd.DataFrame(rows, columns=list(POOL_COLUMNS))


def _metrics(settings: Settings) -> str:
    return qualified(metrics_table(settings.metrics_table))


def _prepare(
    executor: Executor,
    settings: Settings,
    engine: Engine,
    folds: FoldPlan,
    run: Run,
    snapshot: str,
    first_day: dt.date,
    *,
    transfer: bool,
) -> tuple[FeatureRows, DatasetSummary]:
    query = metrics_query(_metrics(settings), first_day, folds.as_of)
    # the same statement at the same snapshot: it counts and hashes the rows that are read
    with at_snapshot(settings, snapshot) as connection:
        digest = metrics_digest(connection, first_day, folds.as_of)
        market = (
            _market(connection, settings, first_day, folds.as_of)
            if settings.market_features
            else None
        )
    run.rows["read"] += digest.rows
    spec = FeatureSpec(
        folds.first_day,
        folds.as_of,
        folds.horizon,
        settings.interval_level,
        settings.min_history_days,
    )
    features = feature_names(market=settings.market_features)
    panel = transfer_rows(spec) if transfer else None
    source = FeatureSource(query, snapshot, spec, market, features, panel)
    return executor.prepare(engine, source), DatasetSummary(first_day, digest)


def _market(
    connection: Connection, settings: Settings, first_day: dt.date, last_day: dt.date
) -> pa.Table:
    """The features of prices: MARKET_SCHEMA."""
    query = market_query(_metrics(settings), first_day, last_day)
    days = connection.execute(text(query)).mappings().all()
    prices = {"date": [day["date"] for day in days]}
    for name in MARKET_SERIES:
        # the owner's columns may be numeric
        prices[name] = [None if day[name] is None else float(day[name]) for day in days]
    return market_changes(pa.table(prices, PRICES_SCHEMA))
