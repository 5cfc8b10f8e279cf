"""Tests files that users reported, through the command: each gives the right rows, or one sentence.

`test_file_formats` has files of the same kinds that need nothing beside the checkout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.support.processes import CommandLine

pytestmark = pytest.mark.shared_data

POOL, OTHER_POOL = "747c1d2a-c668-4682-b9f9-296708a3dd90", "aa70268e-4b52-42bf-a116-608b370f9501"

HISTORY = """
    SELECT to_char(timestamp AT TIME ZONE 'UTC', 'MM-DD HH24:MI'), pool_id,
        (raw_json_data ->> 'tvlUsd')::float8, (raw_json_data ->> 'apy')::float8
    FROM raw_defillama_pool_history
    ORDER BY id
"""
PRICES = """
    SELECT to_char(data_timestamp AT TIME ZONE 'UTC', 'MM-DD'), symbol,
        (raw_json_data #>> '{USD,close}')::float8
    FROM raw_coinmarketcap_ohlcv
    ORDER BY data_timestamp
"""


def rows(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        (
            "history_with_names.csv",
            [
                ("03-01 23:01", POOL, 1000.0, 5.0),
                ("03-02 23:01", POOL, 1001.0, 5.1),
                ("03-03 23:01", POOL, 1002.0, 5.2),
            ],
        ),
        (
            "de_small_numbers.csv",
            [
                ("03-01 23:01", POOL, 1000.5, 1.23e-5),
                ("03-02 23:01", POOL, 1000.5, 5.25),
                ("03-03 23:01", POOL, 1.25e6, 5.25),
            ],
        ),
        ("de_tab.txt", [("03-01 23:01", "p-tab", 1000.5, 5.25)]),
        (
            "de_thousands.csv",
            [("03-01 23:01", POOL, 1234567.89, 5.25), ("03-02 23:01", POOL, 1234.0, 5.25)],
        ),
        (
            "pq_uuid_ext.parquet",
            [("03-01 23:01", POOL, 1000.5, 5.25), ("03-02 23:01", OTHER_POOL, 2000.0, 6.0)],
        ),
        (
            "pq_binary_strings.parquet",
            [("03-01 23:01", POOL, 1000.5, 5.25), ("03-02 23:01", OTHER_POOL, 2000.0, 6.0)],
        ),
    ],
)
def test_history_gives_its_rows(
    run_here: CommandLine, engine: Engine, shared_cases: Path, name: str, stored: list[Any]
) -> None:
    (file,) = run_here.json("load", str(shared_cases / name))["files"]
    assert (file["kind"], file["rows_inserted"]) == ("history", len(stored))
    assert file["rows_read"] == len(stored)
    assert rows(engine, HISTORY) == stored


def test_prices_of_a_pair_are_the_coins(
    run_here: CommandLine, engine: Engine, shared_cases: Path
) -> None:
    (file,) = run_here.json("load", str(shared_cases / "cdd_eth_noline.csv"))["files"]
    assert (file["kind"], file["rows_inserted"], file["symbols_unread"]) == ("prices", 2, [])
    assert rows(engine, PRICES) == [("03-02", "ETH", 2518.1), ("03-03", "ETH", 2149.2)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chart.json", "is JSON, and a Parquet or CSV file is needed: convert its rows"),
        ("years_only.csv", "timestamp_unusable: '2025' is no ISO 8601 timestamp"),
        ("yyyymm.csv", "timestamp_unusable: '202503' is no ISO 8601 timestamp"),
    ],
)
def test_an_unsuitable_table_gets_one_sentence(
    run_here: CommandLine, engine: Engine, shared_cases: Path, name: str, message: str
) -> None:
    error = run_here.json("load", str(shared_cases / name), code=2)["error"]
    assert message in error
    assert len(error) <= 500
    assert rows(engine, HISTORY) == []


def test_every_reported_file_has_a_test(shared_cases: Path) -> None:
    folder = Path(__file__).resolve().parents[1]
    tests = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    assert [path.name for path in shared_cases.iterdir() if path.name not in tests] == []
