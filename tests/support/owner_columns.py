"""Adds constraints of the owner's tables to the product's tables in a test database."""

from __future__ import annotations

from sqlalchemy import Engine, text

DESCRIPTIONS = ("name", "chain", "protocol", "symbol")
"""Columns of `pools` that are NOT NULL in the owner's table."""


def refer_to_pools(engine: Engine) -> None:
    """Add the foreign key of `pool_daily_metrics`."""
    _alter(engine, "pool_daily_metrics", "ADD FOREIGN KEY (pool_id) REFERENCES pools (pool_id)")


def require_descriptions(engine: Engine) -> None:
    """Make the description columns NOT NULL."""
    _alter(engine, "pools", *(f"ALTER COLUMN {name} SET NOT NULL" for name in DESCRIPTIONS))


def allow_nulls(engine: Engine) -> None:
    """Allow nulls in keys and JSON of the raw tables."""
    _alter(
        engine, "raw_defillama_pool_history", *_nullable("pool_id", "timestamp", "raw_json_data")
    )
    _alter(
        engine,
        "raw_coinmarketcap_ohlcv",
        "DROP CONSTRAINT raw_coinmarketcap_ohlcv_pkey",
        "ADD UNIQUE (data_timestamp, symbol)",
        *_nullable("data_timestamp", "symbol", "raw_json_data"),
    )
    _alter(
        engine,
        "gas_fees_daily",
        "DROP CONSTRAINT gas_fees_daily_pkey",
        "ADD UNIQUE (date)",
        *_nullable("date"),
    )


def _nullable(*columns: str) -> list[str]:
    return [f"ALTER COLUMN {name} DROP NOT NULL" for name in columns]


def _alter(engine: Engine, table: str, *changes: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table} {', '.join(changes)}"))
