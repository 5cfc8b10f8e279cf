"""The same metrics by other means, each a whole process: polars, pandas and one SQL statement. Peers of a benchmark, no part of the product.

All take the database from the environment (DB_*), keep the limits and the bounded carry of design section 4, and merge into a table of their own in
the schema `bench`, as the product merges. Prices and gas come from `yieldspark.market_series`, as the product's last run stored them.
Run: `python -m benchmarks.metrics_peers polars|pandas|sql`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import adbc_driver_postgresql.dbapi as adbc
import pandas as pd
import polars as pl
import pyarrow as pa
from sqlalchemy import MetaData, Table

from config_spark import Settings, load_settings
from database import merge_sql
from database.connection import libpq_uri, make_engine
from database.merge_sql import MergeTarget
from database.tables import METRIC_COLUMNS, pool_daily_metrics

MAX_FILL, MAX_APY, MAX_TVL = 7, 1e6, 1e12
RAW = "SELECT id, pool_id, timestamp, raw_json_data ->> 'apy' AS apy, raw_json_data ->> 'tvlUsd' AS tvl FROM raw_defillama_pool_history"
MARKET = "SELECT date, eth_open::float8, btc_open::float8, gas_price_gwei::float8 FROM yieldspark.market_series"
NUMBER = r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})?$"


def own_table(name: str) -> Table:
    return pool_daily_metrics.to_metadata(MetaData(), schema="bench", name=name)


def read(settings: Settings, query: str) -> pa.Table:
    with adbc.connect(libpq_uri(settings)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetch_arrow_table()


def merge(settings: Settings, name: str, days: pa.Table) -> None:
    staging = f"staging_{name}"
    with adbc.connect(libpq_uri(settings)) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest(staging, days, mode="replace", db_schema_name="bench")
        connection.commit()
    target = MergeTarget(own_table(name), {"pool_id": "pool_id", "date": "date"}, {column: column for column in METRIC_COLUMNS})
    with make_engine(settings).begin() as connection:
        connection.exec_driver_sql(merge_sql.merge(target, f"bench.{staging}"))
        connection.exec_driver_sql(f"DROP TABLE bench.{staging}")


def by_polars(settings: Settings) -> None:
    market = pl.DataFrame(read(settings, MARKET))
    rows = pl.DataFrame(read(settings, RAW)).lazy()
    numbers = [pl.when(pl.col(name).str.to_lowercase() != "nan").then(pl.col(name)).alias(name) for name in ("apy", "tvl")]
    values = [
        pl.when(pl.col(name).str.contains(NUMBER)).then(pl.col(name)).cast(pl.Float64, strict=False).alias(f"{name}_value") for name in ("apy", "tvl")
    ]
    good = (
        (pl.col("apy").is_not_null() | pl.col("tvl").is_not_null())
        & (pl.col("apy").is_null() | (pl.col("apy_value").abs() <= MAX_APY).fill_null(False))
        & (pl.col("tvl").is_null() | pl.col("tvl_value").is_between(0, MAX_TVL).fill_null(False))
    )
    date = pl.col("timestamp").dt.convert_time_zone("UTC").dt.date().alias("date")
    snapshots = rows.with_columns(numbers).with_columns(values).filter(good).with_columns(date)
    daily = (
        snapshots.sort("timestamp", "id")
        .group_by("pool_id", "date")
        .agg(pl.col("apy_value").last().alias("actual_apy"), pl.col("tvl_value").last().alias("actual_tvl"))
        .collect()
    )
    last = pl.lit(daily["date"].max())
    calendar = daily.lazy().group_by("pool_id").agg(pl.date_ranges(pl.col("date").min(), last).first().alias("date")).explode("date")
    apy, pool = pl.col("actual_apy"), "pool_id"
    days = (
        calendar.join(daily.lazy(), on=["pool_id", "date"], how="left")
        .sort("pool_id", "date")
        .with_columns(pl.col("actual_apy", "actual_tvl").forward_fill(MAX_FILL).over(pool))
        .with_columns(
            *(apy.rolling_mean(n, min_samples=1).over(pool).alias(f"rolling_apy_{n}d") for n in (7, 30)),
            *(apy.rolling_std(n, min_samples=2).over(pool).alias(f"stddev_apy_{n}d") for n in (7, 30)),
            apy.diff().over(pool).alias("apy_delta_today_yesterday"),
        )
        .with_columns(*(pl.col(f"stddev_apy_{n}d").diff().over(pool).alias(f"stddev_apy_{n}d_delta") for n in (7, 30)))
        .join(market.lazy(), on="date", how="left")
        .select("pool_id", "date", *METRIC_COLUMNS)
    )
    merge(settings, "polars", days.collect().to_arrow(compat_level=pl.CompatLevel.oldest()))


def by_pandas(settings: Settings) -> None:
    market = read(settings, MARKET).to_pandas()
    rows = read(settings, RAW).to_pandas()
    for name in ("apy", "tvl"):
        rows[name] = rows[name].where(rows[name].str.lower() != "nan")
        rows[f"{name}_value"] = pd.to_numeric(rows[name].where(rows[name].str.match(NUMBER, na=False)), errors="coerce")
    good = rows["apy"].notna() | rows["tvl"].notna()
    good &= rows["apy"].isna() | (rows["apy_value"].abs() <= MAX_APY)
    good &= rows["tvl"].isna() | rows["tvl_value"].between(0, MAX_TVL)
    rows = rows[good].assign(date=lambda frame: frame["timestamp"].dt.tz_convert("UTC").dt.tz_localize(None).dt.normalize())
    rows = rows.sort_values(["timestamp", "id"])
    done = [_pandas_pool(pool, frame, rows["date"].max()) for pool, frame in rows.groupby("pool_id")]
    market["date"] = pd.to_datetime(market["date"])
    days = pd.concat(done).merge(market, on="date", how="left")
    days["date"] = days["date"].dt.date
    merge(settings, "pandas", pa.Table.from_pandas(days[["pool_id", "date", *METRIC_COLUMNS]], preserve_index=False))


def _pandas_pool(pool: str, rows: pd.DataFrame, last: pd.Timestamp) -> pd.DataFrame:
    daily = rows.drop_duplicates("date", keep="last").set_index("date")
    days = pd.date_range(daily.index.min(), last, name="date")
    frame = (
        daily[["apy_value", "tvl_value"]].reindex(days).ffill(limit=MAX_FILL).rename(columns={"apy_value": "actual_apy", "tvl_value": "actual_tvl"})
    )
    apy = frame["actual_apy"]
    for n in (7, 30):
        frame[f"rolling_apy_{n}d"] = apy.rolling(n, min_periods=1).mean()
        frame[f"stddev_apy_{n}d"] = apy.rolling(n, min_periods=2).std()
        frame[f"stddev_apy_{n}d_delta"] = frame[f"stddev_apy_{n}d"].diff()
    frame["apy_delta_today_yesterday"] = apy.diff()
    return frame.assign(pool_id=pool).reset_index()


SQL = f"""
WITH parsed AS (
    SELECT id, pool_id, timestamp, (timestamp AT TIME ZONE 'UTC')::date AS date, apy, tvl,
        CASE WHEN apy ~ '{NUMBER}' THEN apy::float8 END AS apy_value, CASE WHEN tvl ~ '{NUMBER}' THEN tvl::float8 END AS tvl_value
    FROM (
        SELECT id, pool_id, timestamp, CASE WHEN lower(apy) <> 'nan' THEN apy END AS apy, CASE WHEN lower(tvl) <> 'nan' THEN tvl END AS tvl
        FROM ({RAW}) AS r
    ) AS r
), daily AS (
    SELECT DISTINCT ON (pool_id, date) pool_id, date, apy_value AS apy, tvl_value AS tvl FROM parsed
    WHERE (apy IS NOT NULL OR tvl IS NOT NULL) AND (apy IS NULL OR abs(apy_value) <= {MAX_APY}) AND (tvl IS NULL OR tvl_value BETWEEN 0 AND {MAX_TVL})
    ORDER BY pool_id, date, timestamp DESC, id DESC
), calendar AS (
    SELECT pool_id, d::date AS date FROM (SELECT pool_id, min(date) AS first FROM daily GROUP BY pool_id) AS p,
        generate_series(first, (SELECT max(date) FROM daily), interval '1 day') AS d
), numbered AS (
    SELECT pool_id, date, apy, tvl, count(apy) OVER w AS apy_group, count(tvl) OVER w AS tvl_group
    FROM calendar LEFT JOIN daily USING (pool_id, date)
    WINDOW w AS (PARTITION BY pool_id ORDER BY date)
), aged AS (
    SELECT pool_id, date, max(apy) OVER a AS apy, date - min(date) OVER a AS apy_age, max(tvl) OVER t AS tvl, date - min(date) OVER t AS tvl_age
    FROM numbered
    WINDOW a AS (PARTITION BY pool_id, apy_group), t AS (PARTITION BY pool_id, tvl_group)
), filled AS (
    SELECT pool_id, date, CASE WHEN apy_age <= {MAX_FILL} THEN apy END AS apy, CASE WHEN tvl_age <= {MAX_FILL} THEN tvl END AS tvl FROM aged
), rolled AS (
    SELECT *, avg(apy) OVER w7 AS mean7, avg(apy) OVER w30 AS mean30, apy - lag(apy) OVER w AS delta,
        stddev_samp(apy) OVER w7 AS std7, stddev_samp(apy) OVER w30 AS std30
    FROM filled WINDOW w AS (PARTITION BY pool_id ORDER BY date), w7 AS (w ROWS 6 PRECEDING), w30 AS (w ROWS 29 PRECEDING)
)
INSERT INTO bench.sql AS t (pool_id, date, {", ".join(METRIC_COLUMNS)})
SELECT pool_id, date, apy, tvl, eth_open, btc_open, gas_price_gwei, mean7, mean30, delta, std7, std30,
    std7 - lag(std7) OVER w, std30 - lag(std30) OVER w
FROM rolled LEFT JOIN yieldspark.market_series USING (date) WINDOW w AS (PARTITION BY pool_id ORDER BY date)
ON CONFLICT (pool_id, date) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in METRIC_COLUMNS)}
WHERE ({", ".join(f"t.{name}" for name in METRIC_COLUMNS)}) IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in METRIC_COLUMNS)})
"""


def by_sql(settings: Settings) -> None:
    with make_engine(settings).begin() as connection:
        connection.exec_driver_sql(SQL)


PEERS: dict[str, Callable[[Settings], None]] = {"polars": by_polars, "pandas": by_pandas, "sql": by_sql}

if __name__ == "__main__":
    PEERS[sys.argv[1]](load_settings())
