"""SQL of everything that a forecast reads from the metrics table and `pools`.

Returns SELECT statements and runs none. Imports neither Spark nor pandas: a run without changes
reads digests of these rows only.
"""

from __future__ import annotations

import datetime as dt

from database.schema.metrics_table import finite
from forecasting.features.observed_values import is_observed, staleness_column, staleness_join

# days before the first feature row: a month before the longest window of a feature, after which
# the exponential means have faded
LOOK_BACK_DAYS = 120

_METRICS = f"""
SELECT m.pool_id, m.date, {finite("m.actual_apy")} AS apy, {finite("m.actual_tvl")} AS tvl,
    m.pool_group::text AS pool_group, a.{staleness_column("apy")}, a.{staleness_column("tvl")}
FROM {{metrics}} m
{staleness_join()}
WHERE m.date BETWEEN DATE '{{first_day}}' AND DATE '{{as_of}}'
    AND (m.actual_apy IS NOT NULL OR m.actual_tvl IS NOT NULL)
"""

# all rows of a day have the day's prices; max() takes one that is not null
_MARKET = """
SELECT date, max(eth_open) AS eth, max(btc_open) AS btc, max(gas_price_gwei) AS gas
FROM {metrics}
WHERE date BETWEEN DATE '{first_day}' AND DATE '{as_of}'
GROUP BY date
"""

# A pool that is missing in `pools`, or has no is_active there, counts as active. The newest values
# are joined by their days: an aggregate that sorts the rows of each pool takes three times as long.
_ACTIVE_POOLS = f"""
SELECT n.pool_id,
    {finite("a.actual_apy")} AS apy,
    {finite("t.actual_tvl")} AS tvl,
    n.first_day,
    n.apy_day,
    n.tvl_day
FROM (
    SELECT m.pool_id,
        max(m.date) FILTER (WHERE {finite("m.actual_apy")} IS NOT NULL) AS newest_apy,
        max(m.date) FILTER (WHERE {finite("m.actual_tvl")} IS NOT NULL) AS newest_tvl,
        min(m.date) FILTER (
            WHERE {finite("m.actual_apy")} IS NOT NULL OR {finite("m.actual_tvl")} IS NOT NULL
        ) AS first_day,
        max(m.date) FILTER (WHERE {is_observed("apy")}) AS apy_day,
        max(m.date) FILTER (WHERE {is_observed("tvl")}) AS tvl_day
    FROM {{metrics}} AS m
    {staleness_join()}
    WHERE m.date <= :as_of
    GROUP BY m.pool_id
) AS n
LEFT JOIN pools AS p ON p.pool_id = n.pool_id
LEFT JOIN {{metrics}} AS a ON a.pool_id = n.pool_id AND a.date = n.newest_apy
LEFT JOIN {{metrics}} AS t ON t.pool_id = n.pool_id AND t.date = n.newest_tvl
WHERE p.is_active IS NOT FALSE
    AND n.first_day IS NOT NULL
ORDER BY n.pool_id
"""
# the pool's newest values, its first day, and the newest days with an observed value
POOL_COLUMNS = ("pool_id", "apy", "tvl", "first_day", "apy_day", "tvl_day")


def metrics_query(metrics: str, first_day: dt.date, as_of: dt.date) -> str:
    """Returns SQL for the metrics of `[first_day, as_of]`.

    Rows with nothing but a forecast (the day after an as-of day) are left out.

    Args:
        metrics: quoted name of the metrics table.
    """
    return _METRICS.format(
        metrics=metrics, first_day=first_day.isoformat(), as_of=as_of.isoformat()
    )


def market_query(metrics: str, first_day: dt.date, as_of: dt.date) -> str:
    """Returns SQL for the daily prices of `[first_day, as_of]`: date, eth, btc (USD), gas (gwei).

    Args:
        metrics: quoted name of the metrics table.
    """
    return _MARKET.format(metrics=metrics, first_day=first_day.isoformat(), as_of=as_of.isoformat())


def active_pools_query(metrics: str) -> str:
    """Returns SQL for POOL_COLUMNS of each active pool, up to the day `:as_of`.

    Args:
        metrics: quoted name of the metrics table.
    """
    return _ACTIVE_POOLS.format(metrics=metrics)
