"""`load` and `ingest` if `pools` requires name, chain, protocol and symbol: known pools are
updated, new ones get the fields of the source and placeholders for the others.
"""

from __future__ import annotations

from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.ingest.defillama.sql import upsert_pool
from data_processing.ingest.loading.load_files import load_files
from data_processing.ingest.pool_descriptions import required_descriptions
from tests.support.metrics_store import execute, rows_of
from tests.support.owner_columns import DESCRIPTIONS, require_descriptions

KNOWN = ("Lido stETH", "Ethereum", "lido", "STETH")


@pytest.fixture(autouse=True)
def _described_pool(engine: Engine) -> None:
    require_descriptions(engine)
    execute(
        engine,
        f"INSERT INTO pools (pool_id, {', '.join(DESCRIPTIONS)}) VALUES ('known', :name, :chain,"
        " :protocol, :symbol)",
        **dict(zip(DESCRIPTIONS, KNOWN, strict=True)),
    )


def described(engine: Engine) -> dict[str, tuple[Any, ...]]:
    rows = rows_of(engine, "SELECT * FROM pools")
    return {row["pool_id"]: itemgetter(*DESCRIPTIONS)(row) for row in rows}


def load(database: Settings, path: Path, content: str) -> tuple[dict[str, Any], str]:
    path.write_text(content)
    messages: list[str] = []
    (entry,) = load_files(database, [path], progress=messages.append)["files"]
    return entry, messages[-1]


def test_history_adds_new_pools_with_placeholders(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    content = "timestamp,pool_id,tvl_usd,apy\n" + "".join(
        f"2025-03-0{day}T12:00:00Z,{pool},1000,5\n"
        for day, pool in product((1, 2), ("known", "new", "newer"))
    )
    entry, message = load(database, tmp_path / "history.csv", content)
    assert (entry["rows_inserted"], entry["pools_undescribed"]) == (6, 2)
    assert "2 new pools are not described in it: name and symbol are the pool id" in message
    assert described(engine) == {
        "known": KNOWN,
        "new": ("new", "unknown", "unknown", "new"),
        "newer": ("newer", "unknown", "unknown", "newer"),
    }
    entry, message = load(database, tmp_path / "history.csv", content)
    assert (entry["rows_already_there"], entry["pools_undescribed"]) == (6, 0)
    assert "described" not in message


def test_pool_file_updates_its_fields_and_fills_the_others(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    content = (
        "pool_id,chain,symbol,tvl\nknown,Base,,5\nwhole,Base,USDC,6\nbare,,,7\nknown,Base,,8\n"
    )
    entry, message = load(database, tmp_path / "pools.csv", content)
    assert (entry["rows_inserted"], entry["rows_updated"], entry["pools_undescribed"]) == (2, 1, 2)
    assert "2 new pools are not described in it" in message
    assert described(engine) == {
        "known": ("Lido stETH", "Base", "lido", "STETH"),
        "whole": ("whole", "Base", "unknown", "USDC"),
        "bare": ("bare", "unknown", "unknown", "bare"),
    }
    entry, _ = load(database, tmp_path / "pools.csv", content)
    assert (entry["rows_inserted"], entry["rows_updated"], entry["pools_undescribed"]) == (0, 0, 0)


def test_complete_description_needs_no_placeholder(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    content = "pool_id,name,chain,protocol,symbol\nnew,Aave USDC,Base,aave,USDC\n"
    entry, _ = load(database, tmp_path / "pools.csv", content)
    assert (entry["rows_inserted"], entry["pools_undescribed"]) == (1, 0)
    assert described(engine)["new"] == ("Aave USDC", "Base", "aave", "USDC")


def test_ingest_describes_listed_pools_and_fills_unlisted_ones(engine: Engine) -> None:
    entry = {"name": None, "chain": "Base", "protocol": None, "symbol": "USDC"}
    with engine.begin() as connection:
        required = required_descriptions(connection)
        assert sorted(required) == sorted(DESCRIPTIONS)
        for pool, description in (
            ("known", entry),
            ("new", entry),
            ("known", None),
            ("gone", None),
        ):
            connection.execute(upsert_pool(pool, description, required))
    assert described(engine) == {
        "known": ("Lido stETH", "Base", "lido", "USDC"),
        "new": ("new", "Base", "unknown", "USDC"),
        "gone": ("gone", "unknown", "unknown", "gone"),
    }
