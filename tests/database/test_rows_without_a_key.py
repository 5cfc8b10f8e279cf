"""Raw rows without timestamp, symbol or JSON, if the owner's columns allow nulls: each is
quarantined with its reason, and the run continues.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.run_request import Request
from data_processing.quarantine.queries import Selection, show_row
from data_processing.quarantine.replay import Replay, replay_rows
from tests.data_processing.test_metrics_job import assert_equal_to_oracle
from tests.support.metrics_histories import START
from tests.support.metrics_oracle import RawRow, World
from tests.support.metrics_store import (
    execute,
    put,
    quarantined_raw_rows,
    rows_of,
    settings_of,
    without_jvm,
)
from tests.support.owner_columns import allow_nulls

DAYS = 12
NOW = datetime.combine(START + timedelta(days=DAYS), time(6), UTC)
GOOD = '{"apy": 5, "tvlUsd": 1000}'
PRICE = '{"USD": {"close": 1700}}'


@pytest.fixture
def history(engine: Engine) -> World:
    """A pool with a snapshot a day, and prices and gas on the first day; nulls are allowed."""
    allow_nulls(engine)
    midnight = datetime.combine(START, time(), UTC)
    world = World(
        rows=[
            RawRow(day + 1, "a", midnight + timedelta(days=day, hours=12), {"apy": 5.0 + day})
            for day in range(DAYS)
        ],
        prices={(midnight, symbol): 1500.0 for symbol in ("ETH", "BTC")},
        gas={START: 20.0},
        now=NOW,
    )
    put(engine, world)
    return world


def add_raw(
    engine: Engine, number: int, pool: str | None, at: datetime | None, document: Any
) -> None:
    execute(
        engine,
        "INSERT INTO raw_defillama_pool_history (id, pool_id, timestamp, raw_json_data) OVERRIDING"
        " SYSTEM VALUE VALUES (:id, :pool, :at, :document)",
        id=number,
        pool=pool,
        at=at,
        document=document,
    )


def quarantined(engine: Engine, table: str) -> dict[str, str]:
    query = "SELECT source_id, reason FROM yieldspark.quarantine WHERE source_table = :table"
    return {row["source_id"]: row["reason"] for row in rows_of(engine, query, table=table)}


def reasons(engine: Engine) -> dict[int, str]:
    return {number: row["reason"] for number, row in quarantined_raw_rows(engine).items()}


@pytest.mark.parametrize("transport", ["jdbc", "adbc"])
def test_quarantines_history_rows_without_timestamp_or_json(
    spark: SparkSession,
    database: Settings,
    engine: Engine,
    history: World,
    transport: Literal["jdbc", "adbc"],
) -> None:
    settings = settings_of(database, history).model_copy(
        update={"read_transport": transport, "write_transport": transport}
    )

    def metrics(*, dry_run: bool = False) -> dict[str, Any]:
        return run_metrics(
            without_jvm(settings), Request(), session=lambda _: spark, now=NOW, dry_run=dry_run
        )

    add_raw(engine, 101, "a", None, GOOD)
    add_raw(engine, 102, "a", None, None)
    add_raw(engine, 103, "timeless", None, GOOD)
    add_raw(engine, 104, "a", NOW - timedelta(days=3), None)
    # a copy is the same row again
    add_raw(engine, 106, "a", None, None)
    missing = dict.fromkeys((101, 102, 103, 106), "timestamp_missing")
    expected = missing | {104: "apy_and_tvl_missing"}
    assert metrics(dry_run=True)["plan"]["rows_to_quarantine"] == 5
    first = metrics()
    assert (first["status"], first["rows"]["read"], first["rows"]["quarantined"]) == (
        "succeeded",
        DAYS + 5,
        5,
    )
    assert reasons(engine) == expected
    assert_equal_to_oracle(engine, history)
    entry = quarantined_raw_rows(engine)[103]
    details = show_row(engine, settings, entry["id"], now=NOW)
    assert (details["passes_now"], details["timestamp"]) == (False, None)
    assert "with its timestamp" in details["what_to_do"]
    assert metrics()["status"] == "nothing_to_do"

    add_raw(engine, 105, "timeless", None, GOOD)
    later = metrics()
    assert (later["mode"], later["rows"]["read"], later["rows"]["quarantined"]) == (
        "incremental",
        1,
        1,
    )
    assert reasons(engine) == expected | {105: "timestamp_missing"}
    assert metrics()["status"] == "nothing_to_do"


def test_quarantines_rows_without_a_pool_once(
    database: Settings, engine: Engine, history: World
) -> None:
    settings = settings_of(database, history)

    def metrics(**options: Any) -> dict[str, Any]:
        return run_metrics(without_jvm(settings), Request(), now=NOW, **options)

    def without_pool() -> list[tuple[Any, str]]:
        query = (
            "SELECT timestamp, reason FROM yieldspark.quarantine WHERE source_id LIKE 'no pool|%'"
            " ORDER BY timestamp"
        )
        return [(row["timestamp"], row["reason"]) for row in rows_of(engine, query)]

    for number, at in ((101, NOW - timedelta(days=3)), (102, None)):
        add_raw(engine, number, None, at, GOOD)
    expected = [(NOW - timedelta(days=3), "pool_id_missing"), (None, "pool_id_missing")]
    assert metrics(dry_run=True)["plan"]["rows_to_quarantine"] == 2
    first = metrics()
    counts = (first["status"], first["rows"]["read"], first["rows"]["quarantined"])
    assert counts == ("succeeded", DAYS + 2, 2)
    assert [
        check["failing"] for check in first["checks"] if check["name"] == "pool_id_missing"
    ] == [2]
    assert without_pool() == expected
    assert_equal_to_oracle(engine, history)

    add_raw(engine, 103, None, NOW - timedelta(days=2), GOOD)
    again = metrics()
    assert (again["status"], again["rows"]["quarantined"]) == ("nothing_to_do", 1)
    later = (NOW - timedelta(days=2), "pool_id_missing")
    assert without_pool() == [expected[0], later, expected[1]]
    # the same row under another id is not another row
    add_raw(engine, 104, None, NOW - timedelta(days=2), GOOD)
    assert metrics()["rows"]["quarantined"] == 0
    entry = rows_of(
        engine, "SELECT id FROM yieldspark.quarantine WHERE source_id LIKE 'no pool|%' LIMIT 1"
    )[0]
    details = show_row(engine, settings, entry["id"], now=NOW)
    assert details["what_to_do"] == "`load` or `ingest` it again with its pool id"
    replayed = replay_rows(settings, engine, Replay(Selection(), "me"))
    assert replayed["outcomes"] == {"not_replayable": 3}


def test_reads_row_without_day_and_insertion_time(
    database: Settings, engine: Engine, history: World
) -> None:
    execute(
        engine,
        "ALTER TABLE raw_defillama_pool_history ALTER insertion_timestamp DROP NOT NULL, ALTER"
        " insertion_timestamp DROP DEFAULT",
    )
    settings = settings_of(database, history)
    run_metrics(without_jvm(settings), Request(), now=NOW)
    add_raw(engine, 101, "a", None, GOOD)
    add_raw(engine, 102, "a", datetime(2017, 1, 1, tzinfo=UTC), GOOD)
    run_metrics(without_jvm(settings), Request(), now=NOW)
    assert reasons(engine) == {101: "timestamp_missing", 102: "timestamp_before_2018"}


def test_quarantines_prices_and_gas_without_key_or_json(
    database: Settings, engine: Engine, history: World
) -> None:
    day = NOW.replace(hour=0) - timedelta(days=2)
    for at, symbol, document in (
        (None, "ETH", PRICE),
        (None, "ETH", PRICE.replace("1700", "1800")),
        (day, None, PRICE),
        (day, None, PRICE),
        (None, None, None),
        (day, "BTC", None),
    ):
        execute(
            engine,
            "INSERT INTO raw_coinmarketcap_ohlcv (data_timestamp, symbol, raw_json_data) VALUES"
            " (:at, :symbol, :document)",
            at=at,
            symbol=symbol,
            document=document,
        )
    for gwei in (30, 30, None):
        execute(
            engine, "INSERT INTO gas_fees_daily (actual_avg_gas_gwei) VALUES (:gwei)", gwei=gwei
        )
    settings = settings_of(database, history)
    for status in ("succeeded", "nothing_to_do"):
        run_of_metrics = run_metrics(without_jvm(settings), Request(), now=NOW)
        assert run_of_metrics["status"] == status
        assert sorted(quarantined(engine, "raw_coinmarketcap_ohlcv").values()) == [
            "price_missing",
            "symbol_missing",
            "timestamp_missing",
            "timestamp_missing",
            "timestamp_missing",
        ]
        assert list(quarantined(engine, "gas_fees_daily").values()) == ["timestamp_missing"]
    assert_equal_to_oracle(engine, history)
