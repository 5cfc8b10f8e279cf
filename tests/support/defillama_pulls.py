"""Pools, charts and stored rows for the tests of an ingest from DefiLlama."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text

from config_spark import Settings, load_settings
from data_processing.ingest.defillama.client import RetryPolicy
from tests.support.current_day import today
from tests.support.defillama_server import DefiLlamaServer


def at(llama: DefiLlamaServer) -> Settings:
    return load_settings(
        _env_file=None, defillama_yields_url=llama.url, defillama_coins_url=llama.url
    )


class Pauses(list[float]):
    """Records the requested pauses without pausing."""

    def retry_policy(self, **options: Any) -> RetryPolicy:
        return RetryPolicy(sleep=self.append, **options)


def pool_entry(pool_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "pool": pool_id,
        "chain": "Ethereum",
        "project": "aave-v3",
        "symbol": "USDC",
        "tvlUsd": 1e6,
        "apy": 4.25,
        "stablecoin": True,
        "poolMeta": None,
        "underlyingTokens": ["0xA0b8", "0xdAC1"],
    } | changes


def point(day: date, apy: object = 5.0, **changes: Any) -> dict[str, Any]:
    values = {
        "tvlUsd": 1000,
        "apy": apy,
        "apyBase": 3.5,
        "apyReward": None,
        "il7d": None,
        "apyBase7d": 0.1,
    }
    return {"timestamp": f"{day.isoformat()}T23:01:07.123Z"} | values | changes


def days_ago(days: int) -> date:
    return today() - timedelta(days=days)


def fill(llama: DefiLlamaServer, *pool_ids: str, days: int = 3) -> None:
    llama.pools += [pool_entry(pool_id) for pool_id in pool_ids]
    for pool_id in pool_ids:
        llama.charts[pool_id] = [point(days_ago(ago), apy=ago) for ago in range(days, 0, -1)]


def rows(engine: Engine, statement: str) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def stored(engine: Engine) -> list[Any]:
    return rows(
        engine, "SELECT pool_id, count(*) FROM raw_defillama_pool_history GROUP BY 1 ORDER BY 1"
    )


def midnight(day: date) -> int:
    return int(datetime.combine(day, datetime.min.time(), UTC).timestamp())
