"""The forecast's panel: one row per pool and UTC day, dense, up to the as-of day.

In: the rows of `pool_daily_metrics` joined with `yieldspark.observation_age` (`METRICS_QUERY`), and the as-of day.
Out: `PANEL_COLUMNS`; APY in percent, TVL and prices in USD, gas in gwei. Every pool has each day from its first known value to the as-of day.
A value is `observed` when its age is 0; a carried value stays in the panel as a level, but nothing is trained on it or scored against it.
It does not read raw tables, and it fills nothing: gaps stay null.
"""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

METRICS_QUERY = """
SELECT m.pool_id, m.date, m.actual_apy, m.actual_tvl, m.eth_open,
       m.btc_open, m.gas_price_gwei, m.pool_group, a.apy_age_days, a.tvl_age_days
FROM pool_daily_metrics m LEFT JOIN yieldspark.observation_age a ON a.pool_id = m.pool_id AND a.date = m.date
WHERE m.date BETWEEN DATE '{first_day}' AND DATE '{as_of}' AND (m.actual_apy IS NOT NULL OR m.actual_tvl IS NOT NULL)
"""

PANEL_COLUMNS = ("pool_id", "date", "pool_group", "apy", "tvl", "apy_observed", "tvl_observed", "observed_days", "eth", "btc", "gas")
ALL_POOLS = "all"


def metrics_query(first_day: dt.date, as_of: dt.date) -> str:
    """SQL for the metrics of `[first_day, as_of]`; rows that hold nothing but a forecast (the day after an as-of day) stay out."""
    return METRICS_QUERY.format(first_day=first_day.isoformat(), as_of=as_of.isoformat())


def build_panel(metrics: DataFrame, as_of: dt.date) -> DataFrame:
    """Dense panel of `[first known day of the pool, as_of]`.

    A metrics row without an age (written by another system) counts as observed where it has a value. A pool's group is the row's own, or `all`.
    `observed_days` counts the days so far with an observed APY or TVL. Rows after `as_of` are dropped before anything else is computed.
    """
    known = metrics.where(F.col("date") <= F.lit(as_of))
    market = known.groupBy("date").agg(*(F.max(source).alias(name) for name, source in _MARKET.items()))
    rows = _dense(known.drop(*_MARKET.values()), as_of).join(F.broadcast(market), on="date", how="left")
    pool = Window.partitionBy("pool_id").orderBy("date")
    group = F.last("pool_group", ignorenulls=True).over(pool.rowsBetween(-30, 0))
    levels = rows.select(
        "pool_id",
        "date",
        F.coalesce(group, F.lit(ALL_POOLS)).alias("pool_group"),
        F.col("actual_apy").cast("double").alias("apy"),
        F.col("actual_tvl").cast("double").alias("tvl"),
        _observed("actual_apy", "apy_age_days").alias("apy_observed"),
        _observed("actual_tvl", "tvl_age_days").alias("tvl_observed"),
        *(F.col(name).cast("double").alias(name) for name in _MARKET),
    )
    seen = F.sum((F.col("apy_observed") | F.col("tvl_observed")).cast("int")).over(pool.rowsBetween(Window.unboundedPreceding, 0))
    return levels.withColumn("observed_days", seen).select(*PANEL_COLUMNS)


def _dense(known: DataFrame, as_of: dt.date) -> DataFrame:
    """Each known row is followed by the days up to the pool's next one, or to the as-of day, with nulls for values: no grid has to be joined."""
    values = [name for name in known.columns if name not in ("pool_id", "date")]
    following = F.coalesce(F.lead("date").over(Window.partitionBy("pool_id").orderBy("date")), F.lit(as_of + dt.timedelta(days=1)))
    last_days = known.withColumn("last_day", F.date_sub(following, 1))
    days = last_days.select("*", F.explode(F.sequence("date", "last_day")).alias("day"))
    return days.select("pool_id", F.col("day").alias("date"), *(F.when(F.col("day") == F.col("date"), F.col(name)).alias(name) for name in values))


_MARKET = {"eth": "eth_open", "btc": "btc_open", "gas": "gas_price_gwei"}


def _observed(value: str, age: str) -> Column:
    return F.col(value).isNotNull() & (F.coalesce(F.col(age), F.lit(0)) == 0)
