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

# a pool that is missing in `pools`, or has no is_active there, counts as active
_ACTIVE_POOLS = f"""
SELECT m.pool_id,
    (array_agg(m.apy ORDER BY m.date DESC) FILTER (WHERE m.apy IS NOT NULL))[1] AS apy,
    (array_agg(m.tvl ORDER BY m.date DESC) FILTER (WHERE m.tvl IS NOT NULL))[1] AS tvl,
    min(m.date) AS first_day,
    max(m.date) FILTER (WHERE {is_observed("apy")}) AS apy_day,
    max(m.date) FILTER (WHERE {is_observed("tvl")}) AS tvl_day
FROM (
    SELECT pool_id, date, actual_apy, actual_tvl,
        {finite("actual_apy")} AS apy, {finite("actual_tvl")} AS tvl
    FROM {{metrics}}
    WHERE date <= :as_of
) m
{staleness_join()}
LEFT JOIN pools p ON p.pool_id = m.pool_id
WHERE p.is_active IS NOT FALSE
    AND (m.apy IS NOT NULL OR m.tvl IS NOT NULL)
GROUP BY m.pool_id
ORDER BY m.pool_id
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
