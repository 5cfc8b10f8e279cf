"""Tables of the database's owner, as SQLAlchemy Core: created if they are missing, never altered.

APY in percent (5.0 = 5 %), TVL and prices in USD, gas in gwei; dates are UTC days. Only the columns
of `table_use` must exist. YieldSpark's own tables are in `own_tables`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Identity,
    Index,
    MetaData,
    Numeric,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

owner_metadata = MetaData()

# the types of the owner's existing columns: another scale would round their values
APY = Numeric(20, 4)
TVL = Numeric(20, 2)
PRICE = Numeric(20, 8)
NOW = text("now()")

pools = Table(
    "pools",
    owner_metadata,
    Column("pool_id", Text, primary_key=True, doc="id of the pool, as in the raw history"),
    Column("name", Text),
    Column("chain", Text),
    Column("protocol", Text),
    Column("symbol", Text),
    Column("tvl", TVL, doc="USD"),
    Column("apy", APY, doc="percent"),
    Column("last_updated", DateTime(timezone=True)),
    Column("is_active", Boolean, server_default=text("true")),
    Column("currently_filtered_out", Boolean, server_default=text("false")),
    Column("pool_address", Text),
    Column("underlying_tokens", ARRAY(Text)),
    Column("underlying_token_addresses", ARRAY(Text)),
    Column("poolmeta", Text),
    info={"description": "pools, their protocol and chain"},
)

raw_pool_history = Table(
    "raw_defillama_pool_history",
    owner_metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("pool_id", Text, nullable=False),
    Column("timestamp", DateTime(timezone=True), nullable=False, doc="time of the snapshot"),
    Column("raw_json_data", JSONB, nullable=False, doc="the snapshot as DefiLlama returns it"),
    Column(
        "insertion_timestamp",
        DateTime(timezone=True),
        nullable=False,
        server_default=NOW,
        doc="time at which the row was inserted; it selects what a run reads",
    ),
    # every run searches by both; `check` reports them if the owner lacks them
    Index("raw_defillama_pool_history_pool_id_timestamp_idx", "pool_id", "timestamp"),
    Index("raw_defillama_pool_history_insertion_timestamp_idx", "insertion_timestamp"),
    info={"description": "raw snapshots of pools, several a day"},
)

raw_prices = Table(
    "raw_coinmarketcap_ohlcv",
    owner_metadata,
    Column("data_timestamp", DateTime(timezone=True), primary_key=True, doc="start of the day"),
    Column("symbol", Text, primary_key=True, doc="ETH or BTC"),
    Column("raw_json_data", JSONB, nullable=False, doc="daily open, high, low, close in USD"),
    Column("insertion_timestamp", DateTime(timezone=True), nullable=False, server_default=NOW),
    info={"description": "raw daily prices of ETH and BTC"},
)

gas_fees_daily = Table(
    "gas_fees_daily",
    owner_metadata,
    Column("date", Date, primary_key=True),
    Column("actual_avg_gas_gwei", PRICE, doc="average gas price of the day, gwei"),
    Column("forecasted_avg_gas_gwei", PRICE, doc="not used"),
    info={"description": "daily gas prices of Ethereum"},
)

pool_daily_metrics = Table(
    "pool_daily_metrics",
    owner_metadata,
    Column("pool_id", Text, primary_key=True),
    Column("date", Date, primary_key=True, doc="UTC day"),
    Column("actual_apy", APY, doc="percent, last snapshot of the day"),
    Column("forecasted_apy", APY, doc="percent, forecast made for this day"),
    Column("actual_tvl", TVL, doc="USD, last snapshot of the day"),
    Column("forecasted_tvl", TVL, doc="USD, forecast made for this day"),
    Column("eth_open", PRICE, doc="USD"),
    Column("btc_open", PRICE, doc="USD"),
    Column("gas_price_gwei", PRICE, doc="average of the day, gwei"),
    Column("is_filtered_out", Boolean, server_default=text("false")),
    Column("filter_reason", Text),
    Column("rolling_apy_7d", APY, doc="mean APY of 7 days, percent"),
    Column("rolling_apy_30d", APY, doc="mean APY of 30 days, percent"),
    Column(
        "apy_delta_today_yesterday",
        APY,
        doc="change of APY against the previous day, percentage points",
    ),
    Column(
        "stddev_apy_7d", APY, doc="sample standard deviation of APY over 7 days, percentage points"
    ),
    Column(
        "stddev_apy_30d",
        APY,
        doc="sample standard deviation of APY over 30 days, percentage points",
    ),
    Column("stddev_apy_7d_delta", APY, doc="change of stddev_apy_7d against the previous day"),
    Column("stddev_apy_30d_delta", APY, doc="change of stddev_apy_30d against the previous day"),
    Column("pool_group", Text),
    Index("pool_daily_metrics_date_idx", "date"),
    info={"description": "one row for each pool and day: metrics and forecasts"},
)

OWNER_TABLES = (pools, raw_pool_history, raw_prices, gas_fees_daily, pool_daily_metrics)

METRIC_COLUMNS = (
    "actual_apy",
    "actual_tvl",
    "eth_open",
    "btc_open",
    "gas_price_gwei",
    "rolling_apy_7d",
    "rolling_apy_30d",
    "apy_delta_today_yesterday",
    "stddev_apy_7d",
    "stddev_apy_30d",
    "stddev_apy_7d_delta",
    "stddev_apy_30d_delta",
)
"""What the metrics job writes into `pool_daily_metrics`, and nothing else there."""

FORECAST_COLUMNS = ("forecasted_apy", "forecasted_tvl")
"""What the forecast job writes into `pool_daily_metrics`, and nothing else there."""
