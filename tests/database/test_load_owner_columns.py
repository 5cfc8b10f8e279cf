"""`load` and `ingest` on the owner's tables: partitioned ones, and values that are too long or too
large for a column.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.ingest.defillama.pull import ingest
from data_processing.ingest.loading.load_files import load_files
from database.connections.engine import make_engine
from tests.data_processing.test_load_files import counts, quarantined, write_file
from tests.support.defillama_pulls import days_ago, point, pool_entry
from tests.support.defillama_server import running
from tests.support.metrics_store import execute, rows_of

LONG = "x" * 300
"""Longer than the 255 characters of the owner's columns."""


@pytest.fixture
def engine(owner_database: Settings) -> Engine:
    return make_engine(owner_database)


PARTITIONED = {
    "raw_coinmarketcap_ohlcv": "RANGE (data_timestamp)",
    "gas_fees_daily": "RANGE (date)",
    "pools": "HASH (pool_id)",
}


def partition(engine: Engine) -> None:
    """Partition the tables into two parts each; a foreign key refers to `pools`, and a view reads
    it.
    """
    execute(engine, "DROP VIEW pool_metrics_extended")
    keys = {
        "raw_coinmarketcap_ohlcv": "UNIQUE (data_timestamp, symbol)",
        "gas_fees_daily": "UNIQUE (date)",
        "pools": "PRIMARY KEY (pool_id)",
    }
    for table, by in PARTITIONED.items():
        execute(engine, f"ALTER TABLE {table} RENAME TO old_{table}")
        like = f"LIKE old_{table} INCLUDING DEFAULTS, {keys[table]}"
        execute(engine, f"CREATE TABLE {table} ({like}) PARTITION BY {by}")
        parts = (
            ["WITH (MODULUS 2, REMAINDER 0)", "WITH (MODULUS 2, REMAINDER 1)"]
            if by.startswith("HASH")
            else ["FROM (MINVALUE) TO ('2025-03-02')", "FROM ('2025-03-02') TO (MAXVALUE)"]
        )
        for number, bounds in enumerate(parts):
            execute(
                engine, f"CREATE TABLE {table}_{number} PARTITION OF {table} FOR VALUES {bounds}"
            )


FILES = {
    "prices": ("date,symbol,close\n2025-03-01,ETH,{}\n2025-03-02,ETH,3000\n", "2000", "2100"),
    "gas": ("date,value_gwei\n2025-03-01,{}\n2025-03-02,3\n", "2", "4"),
    "pools": ("pool_id,chain,tvl\na,Base,{}\nb,Base,5\n", "1", "2"),
}


@pytest.mark.parametrize("kind", FILES)
def test_loads_and_corrects_partitioned_tables_with_exact_counts(
    kind: str, owner_database: Settings, engine: Engine, tmp_path: Path
) -> None:
    partition(engine)
    lines, first, corrected = FILES[kind]

    def load(value: str) -> tuple[int, ...]:
        path = write_file(tmp_path, f"{kind}.csv", lines.format(value))
        return counts(load_files(owner_database, [path], kind=kind))

    assert load(first) == (2, 2, 0, 0, 0)
    assert load(corrected) == (2, 0, 1, 1, 0)
    assert load(corrected) == (2, 0, 0, 2, 0)


BEYOND: dict[str, tuple[str, list[str]]] = {
    # content, source ids of the rows that a column does not take
    "history": (
        f"timestamp,pool_id,tvl_usd,apy\n2025-03-01,a,1,1e400\n2025-03-01,{LONG},1,1\n",
        ["3"],
    ),
    "prices": (f"date,symbol,close\n2025-03-01,ETH,1e400\n2025-03-01,{LONG},1\n", ["3"]),
    "pools": (
        "pool_id,name,chain,protocol,symbol,tvl,apy,poolmeta\n"
        f"a,n,c,p,s,1e18,1,m\na,n,c,p,s,1,1,{LONG}\na,n,c,p,s,1,1e16,m\na,{LONG},c,p,s,1,1,m\n"
        f"b,n,{LONG},p,s,1,1,m\nc,n,c,{LONG},s,1,1,m\nd,n,c,p,{LONG},1,1,m\n{LONG},n,c,p,s,1,1,m\n",
        ["2", "4", "5", "6", "7", "8", "9"],
    ),
}


@pytest.mark.parametrize("kind", BEYOND)
def test_rejects_too_wide_row_and_loads_the_others(
    kind: str, owner_database: Settings, engine: Engine, tmp_path: Path
) -> None:
    content, refused = BEYOND[kind]
    rows_read = content.count("\n") - 1
    path = write_file(tmp_path, f"{kind}.csv", content)
    inserted = rows_read - len(refused)
    assert counts(load_files(owner_database, [path], kind=kind)) == (
        *(rows_read, inserted, 0, 0),
        len(refused),
    )
    assert [(row[1], row[3]) for row in quarantined(engine)] == [
        (f"{kind}.csv:{number}", "value_beyond_column") for number in refused
    ]
    if kind == "pools":
        pools = rows_of(engine, "SELECT pool_id, tvl, poolmeta FROM pools")
        assert pools == [{"pool_id": "a", "tvl": 1, "poolmeta": LONG}], (
            "the last that can be stored"
        )


def test_other_types_of_the_owner_have_their_own_limits(
    owner_database: Settings, engine: Engine, tmp_path: Path
) -> None:
    lines = "pool_id,name,chain,protocol,symbol,tvl,apy\na,n,c,p,s,{},1\nb,n,c,p,s,1,1\n"
    execute(engine, "DROP VIEW pool_metrics_extended")
    for type_, accepted, refused in (
        ("smallint", "32767.4", "32767.5"),
        ("integer", "2147483647", "2147483648"),
        ("real", "1e38", "1e39"),
        ("double precision", "1e308", "1e309"),
        ("numeric", "1e300", None),
    ):
        execute(engine, f"ALTER TABLE pools ALTER tvl TYPE {type_}")
        path = write_file(tmp_path, "pools.csv", lines.format(accepted))
        assert counts(load_files(owner_database, [path]))[-1] == 0, type_
        if refused:
            path = write_file(tmp_path, "pools.csv", lines.format(refused))
            assert counts(load_files(owner_database, [path]))[-1] == 1, type_
        execute(engine, "DELETE FROM pools")


def test_new_pools_get_placeholders_and_ingest_counts_them(
    owner_database: Settings, engine: Engine
) -> None:
    execute(engine, "DROP VIEW pool_metrics_extended")
    execute(engine, "ALTER TABLE pools ALTER symbol TYPE varchar(3), ALTER tvl TYPE numeric(8,2)")
    messages: list[str] = []
    with running() as llama:
        llama.pools = [
            pool_entry("known", symbol="USDC", tvlUsd=1e9),
            pool_entry("undescribed", symbol=None, chain=None, tvlUsd=5),
        ]
        names = ["known", "undescribed", "unlisted", LONG]
        llama.charts = {name: [point(days_ago(1))] for name in names}
        settings = owner_database.model_copy(
            update={"defillama_yields_url": llama.url, "defillama_coins_url": llama.url}
        )
        summary = ingest(settings, pool_ids=names, progress=messages.append)
        again = ingest(settings, pool_ids=names[:3], progress=messages.append)
    assert (summary["pools_fetched"], summary["pools_undescribed"]) == (3, 2)
    assert again["pools_undescribed"] == 0
    assert "2 new pools are not described by DefiLlama: name and symbol are the pool id" in str(
        messages
    )
    (failure,) = summary["failed"]
    assert "has 300 characters" in failure["error"]
    pools: list[dict[str, Any]] = rows_of(engine, "SELECT pool_id, symbol, chain, tvl FROM pools")
    assert {row["pool_id"]: (row["symbol"], row["chain"], row["tvl"]) for row in pools} == {
        "known": ("USD", "Ethereum", None),
        "undescribed": ("und", "unknown", 5),
        "unlisted": ("unl", "unknown", None),
    }
