"""Peer of the metrics benchmark: reads by ADBC, computes in polars, writes by ADBC to unlogged
staging, and merges into `bench.polars` with the product's merge. Has the product's limits and
bounded carry; no plan, checks or ledger. Run with DB_* set: `python -m benchmarks.peer_polars`.
"""

from __future__ import annotations

import adbc_driver_postgresql.dbapi as adbc
import polars as pl
import pyarrow as pa
from sqlalchemy import MetaData

from benchmarks.peer_rules import MARKET, MAX_APY, MAX_FILL, MAX_TVL, NUMBER, PEERS_SCHEMA, RAW
from benchmarks.peer_staging import copy_to_staging, create_staging
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.connections.parameters import connection_parameters
from database.schema import merge_sql
from database.schema.merge_sql import MergeTarget
from database.schema.owner_tables import METRIC_COLUMNS, pool_daily_metrics

NAME = "polars"
STAGING = "staging_polars"


def by_polars(settings: Settings) -> None:
    days = metrics(
        pl.DataFrame(_read(settings, RAW)).lazy(), pl.DataFrame(_read(settings, MARKET)).lazy()
    )
    _merge(settings, days.to_arrow(compat_level=pl.CompatLevel.oldest()))


def _read(settings: Settings, query: str) -> pa.Table:
    with (
        adbc.connect(connection_parameters(settings).conninfo) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(query)
        return cursor.fetch_arrow_table()


def metrics(rows: pl.LazyFrame, market: pl.LazyFrame) -> pl.DataFrame:
    """Compute pool_id, date, METRIC_COLUMNS from id, pool_id, timestamp, apy and tvl (text)."""
    daily = _last_of_day(rows)
    last = pl.lit(daily["date"].max())
    calendar = (
        daily.lazy()
        .group_by("pool_id")
        .agg(pl.date_ranges(pl.col("date").min(), last).first().alias("date"))
        .explode("date")
    )
    days = (
        calendar.join(daily.lazy(), on=["pool_id", "date"], how="left")
        .sort("pool_id", "date")
        .with_columns(pl.col("actual_apy", "actual_tvl").forward_fill(MAX_FILL).over("pool_id"))
    )
    return (
        _with_windows(days)
        .join(market, on="date", how="left")
        .select("pool_id", "date", *METRIC_COLUMNS)
        .collect()
    )


def _last_of_day(rows: pl.LazyFrame) -> pl.DataFrame:
    """Return the last valid snapshot of each pool and day."""
    numbers = [
        pl.when(pl.col(name).str.to_lowercase() != "nan").then(pl.col(name)).alias(name)
        for name in ("apy", "tvl")
    ]
    values = [
        pl.when(pl.col(name).str.contains(NUMBER))
        .then(pl.col(name))
        .cast(pl.Float64, strict=False)
        .alias(f"{name}_value")
        for name in ("apy", "tvl")
    ]
    is_valid = (
        (pl.col("apy").is_not_null() | pl.col("tvl").is_not_null())
        & (pl.col("apy").is_null() | (pl.col("apy_value").abs() <= MAX_APY).fill_null(False))
        & (pl.col("tvl").is_null() | pl.col("tvl_value").is_between(0, MAX_TVL).fill_null(False))
    )
    date = pl.col("timestamp").dt.convert_time_zone("UTC").dt.date().alias("date")
    snapshots = rows.with_columns(numbers).with_columns(values).filter(is_valid).with_columns(date)
    return (
        snapshots.sort("timestamp", "id")
        .group_by("pool_id", "date")
        .agg(
            pl.col("apy_value").last().alias("actual_apy"),
            pl.col("tvl_value").last().alias("actual_tvl"),
        )
        .collect()
    )


def _with_windows(days: pl.LazyFrame) -> pl.LazyFrame:
    apy, pool = pl.col("actual_apy"), "pool_id"
    return days.with_columns(
        *(
            apy.rolling_mean(n, min_samples=1).over(pool).alias(f"rolling_apy_{n}d")
            for n in (7, 30)
        ),
        *(apy.rolling_std(n, min_samples=2).over(pool).alias(f"stddev_apy_{n}d") for n in (7, 30)),
        apy.diff().over(pool).alias("apy_delta_today_yesterday"),
    ).with_columns(
        *(
            pl.col(f"stddev_apy_{n}d").diff().over(pool).alias(f"stddev_apy_{n}d_delta")
            for n in (7, 30)
        )
    )


def _merge(settings: Settings, days: pa.Table) -> None:
    metrics_table = pool_daily_metrics.to_metadata(MetaData(), schema=PEERS_SCHEMA, name=NAME)
    target = MergeTarget(
        metrics_table,
        {"pool_id": "pool_id", "date": "date"},
        {column: column for column in METRIC_COLUMNS},
    )
    with (
        adbc.connect(connection_parameters(settings).conninfo) as connection,
        connection.cursor() as cursor,
    ):
        staging = create_staging(cursor, STAGING)
        copy_to_staging(connection, cursor, STAGING, days)
    with make_engine(settings).begin() as connection:
        connection.exec_driver_sql(f"ANALYZE {staging}")
        connection.exec_driver_sql(merge_sql.merge(target, staging))
        connection.exec_driver_sql(f"DROP TABLE {staging}")


if __name__ == "__main__":
    by_polars(load_settings())
