"""Peer of the metrics benchmark: plain Spark with one unpartitioned JDBC read, windows, JDBC
overwrite to staging, and an upsert of every row into `bench.spark`. Has the product's limits and
bounded carry; no plan, snapshot, checks or ledger. Run with DB_* set: `python -m
benchmarks.peer_spark`.
"""

from __future__ import annotations

import os

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from benchmarks.peer_rules import MARKET, MAX_APY, MAX_FILL, MAX_TVL, NUMBER, PEERS_SCHEMA, RAW
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.schema.owner_tables import METRIC_COLUMNS
from local_runtime.java import find_java
from spark.jar_sets import JDBC, jar_files

STAGING = f"{PEERS_SCHEMA}.staging_spark"
MEMORY = "4g"
WINDOW_DAYS = (7, 30)


def by_plain_spark(settings: Settings) -> None:
    os.environ["JAVA_HOME"] = str(find_java())
    spark = _session(settings)
    url = f"jdbc:postgresql://{settings.db_host}:{settings.db_port}/{settings.db_name}"
    # without fetchsize the driver holds the whole result in memory
    properties = {"user": settings.db_user, "driver": "org.postgresql.Driver", "fetchsize": "10000"}
    if settings.db_password:
        properties["password"] = settings.db_password.get_secret_value()
    try:
        raw, market = (
            spark.read.jdbc(url, f"({query}) AS source", properties=properties)
            for query in (RAW, MARKET)
        )
        metrics(raw, market).write.jdbc(url, STAGING, mode="overwrite", properties=properties)
    finally:
        spark.stop()
    names = ", ".join(("pool_id", "date", *METRIC_COLUMNS))
    updates = ", ".join(f"{name} = excluded.{name}" for name in METRIC_COLUMNS)
    with make_engine(settings).begin() as connection:
        connection.exec_driver_sql(
            f"""
            INSERT INTO {PEERS_SCHEMA}.spark ({names})
            SELECT {names}
            FROM {STAGING}
            ON CONFLICT (pool_id, date) DO UPDATE SET {updates}
            """
        )
        connection.exec_driver_sql(f"DROP TABLE {STAGING}")


def _session(settings: Settings) -> SparkSession:
    """Return a session with Spark's defaults, except a JDBC driver, memory, UTC and no UI."""
    conf = {
        "spark.master": "local[*]",
        "spark.driver.memory": MEMORY,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.sql.session.timeZone": "UTC",
        "spark.jars": ",".join(str(path) for path in jar_files(settings, [JDBC])),
        "spark.ui.enabled": "false",
    }
    builder = SparkSession.builder.appName("plain")
    for key, value in conf.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def metrics(raw: DataFrame, market: DataFrame) -> DataFrame:
    """Compute pool_id, date, METRIC_COLUMNS from id, pool_id, timestamp, apy and tvl (text)."""
    by_day = Window.partitionBy("pool_id").orderBy("date")
    carried = by_day.rowsBetween(-MAX_FILL, Window.currentRow)
    days = _calendar(_daily(raw)).withColumns(
        {f"actual_{name}": F.last(name, ignorenulls=True).over(carried) for name in ("apy", "tvl")}
    )
    apy = F.col("actual_apy")
    for n in WINDOW_DAYS:
        window = by_day.rowsBetween(1 - n, Window.currentRow)
        days = days.withColumns(
            {
                f"rolling_apy_{n}d": F.avg(apy).over(window),
                f"stddev_apy_{n}d": F.stddev_samp(apy).over(window),
            }
        )
        days = days.withColumn(
            f"stddev_apy_{n}d_delta",
            F.col(f"stddev_apy_{n}d") - F.lag(f"stddev_apy_{n}d").over(by_day),
        )
    days = days.withColumn("apy_delta_today_yesterday", apy - F.lag(apy).over(by_day))
    return days.join(market, on="date", how="left").select("pool_id", "date", *METRIC_COLUMNS)


def _daily(raw: DataFrame) -> DataFrame:
    """Return the last valid snapshot of each day."""
    for name in ("apy", "tvl"):
        raw = raw.withColumn(name, F.when(F.lower(name) != "nan", F.col(name)))
        raw = raw.withColumn(
            f"{name}_value", F.when(F.col(name).rlike(NUMBER), F.col(name).cast("double"))
        )
    is_valid = (
        (F.col("apy").isNotNull() | F.col("tvl").isNotNull())
        & (F.col("apy").isNull() | F.coalesce(F.abs("apy_value") <= MAX_APY, F.lit(False)))
        & (F.col("tvl").isNull() | F.coalesce(F.col("tvl_value").between(0, MAX_TVL), F.lit(False)))
    )
    newest_first = Window.partitionBy("pool_id", "date").orderBy(F.desc("timestamp"), F.desc("id"))
    dated = (
        raw.where(is_valid)
        .withColumn("date", F.to_date("timestamp"))
        .withColumn("place", F.row_number().over(newest_first))
    )
    return dated.where("place = 1").select(
        "pool_id", "date", F.col("apy_value").alias("apy"), F.col("tvl_value").alias("tvl")
    )


def _calendar(daily: DataFrame) -> DataFrame:
    """Return each pool's days from its first to the newest of all."""
    newest = daily.agg(F.max("date").alias("last"))
    first = daily.groupBy("pool_id").agg(F.min("date").alias("first")).crossJoin(newest)
    days = first.select("pool_id", F.explode(F.sequence("first", "last")).alias("date"))
    return days.join(daily, on=["pool_id", "date"], how="left")


if __name__ == "__main__":
    by_plain_spark(load_settings())
