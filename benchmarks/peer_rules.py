"""Limits and queries that the peers of the metrics benchmark share. They repeat the product's
defaults on purpose, so that an error of the product does not reach a peer. APY percent, TVL and
prices USD, gas gwei.
"""

from __future__ import annotations

PEERS = ("floor", "polars", "sql", "spark", "pandas")
"""Each is the module `benchmarks.peer_<name>`, a whole process, and the table `bench.<name>`."""

PEERS_SCHEMA = "bench"

MAX_FILL, MAX_APY, MAX_TVL = 7, 1e6, 1e12

NUMBER = r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})?$"

RAW = (
    "SELECT id, pool_id, timestamp, raw_json_data ->> 'apy' AS apy, raw_json_data ->> 'tvlUsd' AS"
    " tvl FROM raw_defillama_pool_history"
)


def _latest_close(symbol: str) -> str:
    return f"""
    LEFT JOIN LATERAL (
        SELECT (raw_json_data -> 'USD' ->> 'close')::float8 AS close
        FROM raw_coinmarketcap_ohlcv
        WHERE symbol = '{symbol}'
            AND data_timestamp < d
        ORDER BY data_timestamp DESC
        LIMIT 1
    ) AS {symbol.lower()} ON true"""


MARKET = f"""
SELECT d::date AS date, eth.close AS eth_open, btc.close AS btc_open, gas.gwei AS gas_price_gwei
FROM generate_series(
    (SELECT date_trunc('day', min(timestamp)) FROM raw_defillama_pool_history),
    date_trunc('day', now()),
    interval '1 day'
) AS d
{_latest_close("ETH")} {_latest_close("BTC")}
LEFT JOIN LATERAL (
    SELECT actual_avg_gas_gwei::float8 AS gwei
    FROM gas_fees_daily
    WHERE date <= d::date
        AND actual_avg_gas_gwei IS NOT NULL
    ORDER BY date DESC
    LIMIT 1
) AS gas ON true"""
"""Latest close before each day and latest gas price up to it; the generated market has no invalid
rows.
"""
