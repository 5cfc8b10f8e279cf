"""Peer of the metrics benchmark: metrics and their merge into `bench.sql` as one SQL statement. Has
the product's limits and bounded carry; no plan, checks or ledger. Run with DB_* set: `python -m
benchmarks.peer_sql`.
"""

from __future__ import annotations

from benchmarks.peer_rules import MARKET, MAX_APY, MAX_FILL, MAX_TVL, NUMBER, PEERS_SCHEMA, RAW
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.schema.owner_tables import METRIC_COLUMNS

SQL = f"""
WITH parsed AS (
    SELECT id, pool_id, timestamp, (timestamp AT TIME ZONE 'UTC')::date AS date, apy, tvl,
        CASE WHEN apy ~ '{NUMBER}' THEN apy::float8 END AS apy_value,
        CASE WHEN tvl ~ '{NUMBER}' THEN tvl::float8 END AS tvl_value
    FROM (
        SELECT id, pool_id, timestamp,
            CASE WHEN lower(apy) <> 'nan' THEN apy END AS apy,
            CASE WHEN lower(tvl) <> 'nan' THEN tvl END AS tvl
        FROM ({RAW}) AS r
    ) AS r
), daily AS (
    SELECT DISTINCT ON (pool_id, date) pool_id, date, apy_value AS apy, tvl_value AS tvl
    FROM parsed
    WHERE (apy IS NOT NULL OR tvl IS NOT NULL)
        AND (apy IS NULL OR abs(apy_value) <= {MAX_APY})
        AND (tvl IS NULL OR tvl_value BETWEEN 0 AND {MAX_TVL})
    ORDER BY pool_id, date, timestamp DESC, id DESC
), calendar AS (
    SELECT pool_id, d::date AS date
    FROM (SELECT pool_id, min(date) AS first FROM daily GROUP BY pool_id) AS p,
        generate_series(first, (SELECT max(date) FROM daily), interval '1 day') AS d
), numbered AS (
    SELECT pool_id, date, apy, tvl,
        count(apy) OVER w AS apy_group,
        count(tvl) OVER w AS tvl_group
    FROM calendar
    LEFT JOIN daily USING (pool_id, date)
    WINDOW w AS (PARTITION BY pool_id ORDER BY date)
), aged AS (
    SELECT pool_id, date,
        max(apy) OVER a AS apy,
        date - min(date) OVER a AS apy_age,
        max(tvl) OVER t AS tvl,
        date - min(date) OVER t AS tvl_age
    FROM numbered
    WINDOW a AS (PARTITION BY pool_id, apy_group), t AS (PARTITION BY pool_id, tvl_group)
), filled AS (
    SELECT pool_id, date,
        CASE WHEN apy_age <= {MAX_FILL} THEN apy END AS apy,
        CASE WHEN tvl_age <= {MAX_FILL} THEN tvl END AS tvl
    FROM aged
), rolled AS (
    SELECT *,
        avg(apy) OVER w7 AS mean7,
        avg(apy) OVER w30 AS mean30,
        apy - lag(apy) OVER w AS delta,
        stddev_samp(apy) OVER w7 AS std7,
        stddev_samp(apy) OVER w30 AS std30
    FROM filled
    WINDOW w AS (PARTITION BY pool_id ORDER BY date),
        w7 AS (w ROWS 6 PRECEDING),
        w30 AS (w ROWS 29 PRECEDING)
)
INSERT INTO {PEERS_SCHEMA}.sql AS t (pool_id, date, {", ".join(METRIC_COLUMNS)})
SELECT pool_id, date, apy, tvl, eth_open, btc_open, gas_price_gwei,
    mean7, mean30, delta, std7, std30,
    std7 - lag(std7) OVER w,
    std30 - lag(std30) OVER w
FROM rolled
LEFT JOIN ({MARKET}) AS market USING (date)
WINDOW w AS (PARTITION BY pool_id ORDER BY date)
ON CONFLICT (pool_id, date) DO UPDATE
SET {", ".join(f"{name} = excluded.{name}" for name in METRIC_COLUMNS)}
WHERE ({", ".join(f"t.{name}" for name in METRIC_COLUMNS)})
    IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in METRIC_COLUMNS)})
"""


def by_sql(settings: Settings) -> None:
    with make_engine(settings).begin() as connection:
        connection.exec_driver_sql(SQL)


if __name__ == "__main__":
    by_sql(load_settings())
