"""Tests loading files into a real PostgreSQL: the outcome of each kind of row, and the messages for
bad input.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, text

from common.errors import CheckFailed, DatabaseError, InputError
from config_spark import Settings
from data_processing.ingest.loading import validation_sql
from data_processing.ingest.loading.file_kinds import NEEDED
from data_processing.ingest.loading.load_files import load_files
from tests.support.processes import PROJECT, CommandLine

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
HISTORY_CSV = (
    "timestamp,pool_id,tvl_usd,apy,apy_base,apy_reward\n2025-03-01T12:00:00Z,a,1000.5,5.25,5,0.25\n"
)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet(folder: Path, columns: dict[str, Any], name: str = "history.parquet") -> Path:
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def rows(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def history(engine: Engine) -> list[tuple[Any, ...]]:
    return rows(
        engine,
        "SELECT pool_id, timestamp, raw_json_data FROM raw_defillama_pool_history ORDER BY id",
    )


def quarantined(engine: Engine) -> list[tuple[Any, ...]]:
    return rows(
        engine,
        "SELECT source_table, source_id, pool_id, reason FROM yieldspark.quarantine ORDER BY"
        " source_id",
    )


def counts(summary: dict[str, Any]) -> tuple[int, ...]:
    (entry,) = summary["files"]
    names = ("rows_read", "rows_inserted", "rows_updated", "rows_already_there", "rows_refused")
    assert entry["rows_read"] == sum(entry[name] for name in (*names[1:], "rows_outdated"))
    return tuple(entry[name] for name in names)


# pool history


def test_history_rows_that_a_trigger_drops_are_not_there_already(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN IF new.pool_id = 'b' THEN RETURN NULL; END IF; RETURN new; END $$;
                CREATE TRIGGER drop_row BEFORE INSERT ON raw_defillama_pool_history
                    FOR EACH ROW EXECUTE FUNCTION drop_row();
                """
            )
        )
    both = written(tmp_path, "both.csv", f"{HISTORY_CSV}2025-03-01T12:00:00Z,b,1,2,3,4\n")
    message = r"did not take 1 rows of .*both.csv, among them of pool b"
    with pytest.raises(CheckFailed, match=message):
        load_files(database, [both])
    assert history(engine) == []
    alone = written(tmp_path, "history.csv", HISTORY_CSV)
    assert counts(load_files(database, [alone])) == (1, 1, 0, 0, 0)
    assert counts(load_files(database, [alone])) == (1, 0, 0, 1, 0)


def test_csv_rows_are_unchanged(database: Settings, engine: Engine, tmp_path: Path) -> None:
    summary = load_files(database, [written(tmp_path, "history.csv", HISTORY_CSV)])
    assert counts(summary) == (1, 1, 0, 0, 0)
    assert summary["files"][0]["kind"] == "history"
    assert history(engine) == [
        ("a", NOON, {"apy": 5.25, "tvlUsd": 1000.5, "apyBase": 5, "apyReward": 0.25})
    ]
    assert rows(engine, "SELECT pool_id, is_active, symbol FROM pools") == [("a", True, None)]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + HISTORY_CSV,
        HISTORY_CSV.replace(",", ";"),
        HISTORY_CSV.replace(",", ";").replace(".", ","),
        HISTORY_CSV.replace(",", "\t"),
        HISTORY_CSV.replace("\n", "\r\n") + "\r\n",
        HISTORY_CSV.replace("tvl_usd", "tvlUsd").replace("apy_base", "APY Base"),
        HISTORY_CSV.replace("2025-03-01T12:00:00Z", '"2025-03-01 13:00:00+01:00"').replace(
            "1000.5", " 1000.5 "
        ),
        HISTORY_CSV.replace("2025-03-01T12:00:00Z", "1740830400"),
    ],
    ids=[
        "byte-order mark",
        "semicolons",
        "decimal commas",
        "tabs",
        "CRLF",
        "other names",
        "quotes, zone, blanks",
        "unix seconds",
    ],
)
def test_other_ways_to_write_the_same_csv(
    database: Settings, engine: Engine, tmp_path: Path, content: str
) -> None:
    load_files(database, [written(tmp_path, "history.csv", content)])
    assert history(engine) == [
        ("a", NOON, {"apy": 5.25, "tvlUsd": 1000.5, "apyBase": 5, "apyReward": 0.25})
    ]


@pytest.mark.parametrize(
    "timestamps",
    [
        pa.array([NOON], pa.timestamp("ns", "UTC")),
        pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ns")),
        pa.array([NOON], pa.timestamp("us", "Europe/Berlin")),
        pa.array([NOON.replace(tzinfo=None)], pa.timestamp("s")),
        pa.array(["2025-03-01T12:00:00.000Z"]),
        pa.array(["2025-03-01T12:00:00.000Z"]).dictionary_encode(),
        pa.array([int(NOON.timestamp())]),
        pa.array([int(NOON.timestamp() * 1000)]),
    ],
    ids=[
        "nanoseconds",
        "naive nanoseconds",
        "a zone",
        "seconds",
        "text",
        "dictionary",
        "unix seconds",
        "unix milliseconds",
    ],
)
def test_every_timestamp_type_of_parquet(
    database: Settings, engine: Engine, tmp_path: Path, timestamps: pa.Array
) -> None:
    load_files(
        database,
        [
            parquet(
                tmp_path,
                {"timestamp": timestamps, "pool_id": ["a"], "tvl_usd": [1.0], "apy": [2.0]},
            )
        ],
    )
    assert history(engine) == [("a", NOON, {"apy": 2, "tvlUsd": 1})]


def test_values_that_are_no_numbers_survive(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    given = [float("nan"), float("inf"), float("-inf"), -1e-7, None]
    file = parquet(
        tmp_path,
        {"timestamp": [NOON] * 5, "pool_id": list("abcde"), "tvl_usd": [1.0] * 5, "apy": given},
    )
    lines = [
        f"{NOON.isoformat()},{pool},1,{apy}"
        for pool, apy in zip("fghi", ["n/a", "NaN", "inf", ""], strict=True)
    ]
    other = written(tmp_path, "more.csv", "timestamp,pool_id,tvl_usd,apy\n" + "\n".join(lines))
    summary = load_files(database, [file, other])
    assert summary["rows_refused"] == 0
    kept = {pool: document["apy"] for pool, _, document in history(engine)}
    assert kept == {
        "a": "NaN",
        "b": "Infinity",
        "c": "-Infinity",
        "d": -1e-7,
        "e": None,
        "f": "n/a",
        "g": "NaN",
        "h": "Infinity",
        "i": None,
    }


def test_history_goes_into_a_partitioned_table(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        for statement in (
            "ALTER TABLE raw_defillama_pool_history RENAME TO plain",
            "CREATE TABLE raw_defillama_pool_history (LIKE plain INCLUDING DEFAULTS INCLUDING"
            " IDENTITY) PARTITION BY HASH (pool_id)",
            "CREATE TABLE part PARTITION OF raw_defillama_pool_history FOR VALUES WITH (MODULUS 1,"
            " REMAINDER 0)",
        ):
            connection.execute(text(statement))
    path = written(tmp_path, "history.csv", HISTORY_CSV)
    assert counts(load_files(database, [path])) == (1, 1, 0, 0, 0)
    assert counts(load_files(database, [path])) == (1, 0, 0, 1, 0)


def test_second_load_inserts_nothing(database: Settings, engine: Engine, tmp_path: Path) -> None:
    file = written(tmp_path, "history.csv", HISTORY_CSV)
    load_files(database, [file])
    assert counts(load_files(database, [file])) == (1, 0, 0, 1, 0)
    same = parquet(
        tmp_path,
        {
            "timestamp": [NOON],
            "pool_id": ["a"],
            "tvl_usd": [1000.5],
            "apy": [5.25],
            "apy_base": [5.0],
            "apy_reward": [0.25],
        },
    )
    assert counts(load_files(database, [same])) == (1, 0, 0, 1, 0)
    assert len(history(engine)) == 1


def test_changed_snapshot_is_stored_next_to_old_one_in_file_order(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    row = "2025-03-01T12:00:00Z,a,1,{}\n"
    file = written(
        tmp_path,
        "history.csv",
        "timestamp,pool_id,tvl_usd,apy\n" + "".join(row.format(apy) for apy in (7, 3, 7, 5)),
    )
    assert counts(load_files(database, [file])) == (4, 3, 0, 1, 0)
    assert [document["apy"] for _, _, document in history(engine)] == [7, 3, 5]


def test_correction_in_later_file_is_not_undone_by_earlier_file(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    first = written(tmp_path, "first.csv", HISTORY_CSV)
    corrected = written(tmp_path, "corrected.csv", HISTORY_CSV.replace("5.25", "6"))
    for file in (first, corrected, first):
        load_files(database, [file])
    assert [document["apy"] for _, _, document in history(engine)] == [5.25, 6]


def test_rows_without_timestamp_or_pool_go_to_quarantine(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    lines = [
        "yesterday,a,1,2",
        "2025-03-01,,1,2",
        "2025-03-01,b,1",
        "2025-03-01,c,1,2,3",
        "2025-03-01,d,1,2",
        ",e,1,2",
    ]
    file = written(tmp_path, "history.csv", "timestamp,pool_id,tvl_usd,apy\n" + "\n".join(lines))
    assert counts(load_files(database, [file])) == (6, 1, 0, 0, 5)
    load_files(database, [file])
    table = "raw_defillama_pool_history"
    assert quarantined(engine) == [
        (table, "history.csv:2", "a", "timestamp_unusable"),
        (table, "history.csv:3", None, "pool_id_missing"),
        (table, "history.csv:4", None, "wrong_number_of_values"),
        (table, "history.csv:5", None, "wrong_number_of_values"),
        (table, "history.csv:7", "e", "timestamp_unusable"),
    ]
    documents = [
        row[0]
        for row in rows(
            engine, "SELECT raw_json_data FROM yieldspark.quarantine ORDER BY source_id"
        )
    ]
    assert documents[0] == {
        "timestamp_text": "yesterday",
        "pool_id": "a",
        "tvl_usd": "1",
        "apy": "2",
    }
    assert documents[2] == ["2025-03-01", "b", "1"]
    assert [pool for pool, *_ in history(engine)] == ["d"]


def test_values_postgresql_cannot_store_stop_nothing(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    columns = {
        "timestamp": [NOON, NOON],
        "pool_id": ["a\0b", "'; DROP TABLE pools; --"],
        "tvl_usd": ["1\0", "9" * 400],
        "apy": ["1e999", '"\\,\n'],
    }
    assert counts(load_files(database, [parquet(tmp_path, columns)])) == (2, 2, 0, 0, 0)
    assert [pool for pool, *_ in history(engine)] == ["a\ufffdb", "'; DROP TABLE pools; --"]
    assert history(engine)[1][2]["apy"] == '"\\,'


def test_text_too_long_for_an_index_is_refused(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    key = random.Random(1).randbytes(3000).hex().upper()
    contents = {
        "history.csv": f"timestamp,pool,tvl,apy\n2025-03-01,{key},1,2\n2025-03-01,a,1,2\n",
        "prices.csv": f"date,symbol,close\n2025-03-01,{key},1\n2025-03-01,ETH,2\n",
        "pools.csv": f"pool,project,chain\n{key},p,c\nb,p,c\n",
    }
    for name, content in contents.items():
        summary = load_files(database, [written(tmp_path, name, content)])
        assert counts(summary) == (2, 1, 0, 0, 1), name
    assert rows(engine, "SELECT DISTINCT reason FROM yieldspark.quarantine") == [
        ("value_beyond_column",)
    ]


def test_rejects_timestamp_outside_calendar(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    beyond = pa.array([10**15, 0, 1_740_830_400], pa.timestamp("s"))
    file = parquet(
        tmp_path,
        {"timestamp": beyond, "pool_id": list("abc"), "tvl_usd": [1.0] * 3, "apy": [1.0] * 3},
    )
    assert counts(load_files(database, [file])) == (3, 2, 0, 0, 1)
    assert [row[3] for row in quarantined(engine)] == ["timestamp_unusable"]


# prices


def test_prices_are_upserted_by_day(database: Settings, engine: Engine, tmp_path: Path) -> None:
    first = written(
        tmp_path,
        "ETHUSDT_1d.csv",
        "timestamp,open,high,low,close,volume\n2025-03-01,1,3,0.5,2.50,10\n2025-03-02"
        " 23:59:59,2,4,1,3,20\n",
    )
    assert counts(load_files(database, [first])) == (2, 2, 0, 0, 0)
    inserted_at = rows(
        engine, "SELECT insertion_timestamp FROM raw_coinmarketcap_ohlcv ORDER BY data_timestamp"
    )
    corrected = written(
        tmp_path,
        "ETHUSDT_1d.csv",
        "timestamp,open,high,low,close,volume\n2025-03-01,1,3,0.5,2.5,10\n2025-03-02,2,4,1,3.5,20\n",
    )
    assert counts(load_files(database, [corrected])) == (2, 0, 1, 1, 0)
    assert rows(
        engine,
        "SELECT data_timestamp, symbol, raw_json_data -> 'USD' ->> 'close' FROM"
        " raw_coinmarketcap_ohlcv ORDER BY 1",
    ) == [
        (datetime(2025, 3, 1, tzinfo=UTC), "ETH", "2.50"),
        (datetime(2025, 3, 2, tzinfo=UTC), "ETH", "3.5"),
    ]
    again = rows(
        engine, "SELECT insertion_timestamp FROM raw_coinmarketcap_ohlcv ORDER BY data_timestamp"
    )
    assert again[0] == inserted_at[0]
    assert again[1] > inserted_at[1]


def test_prices_with_a_symbol_column(database: Settings, engine: Engine, tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "prices.csv",
        "date,symbol,close\n2025-03-01,btc,9\n2025-03-01,ETH,2\n2025-03-01,,2\n",
    )
    assert counts(load_files(database, [file])) == (3, 2, 0, 0, 1)
    assert rows(engine, "SELECT symbol, raw_json_data FROM raw_coinmarketcap_ohlcv ORDER BY 1") == [
        ("BTC", {"USD": {"close": 9}}),
        ("ETH", {"USD": {"close": 2}}),
    ]
    assert [row[3] for row in quarantined(engine)] == ["symbol_missing"]


def test_bad_price_never_replaces_good_one(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    load_files(
        database,
        [written(tmp_path, "good.csv", "date,close\n2025-03-01,2\n2025-03-02,3\n")],
        symbol="eth",
    )
    bad = written(tmp_path, "bad.csv", "date,close\n2025-03-01,n/a\n2025-03-02,\n2025-03-03,4\n")
    assert counts(load_files(database, [bad], symbol="ETH")) == (3, 1, 0, 0, 2)
    assert [
        row[0]
        for row in rows(
            engine,
            "SELECT raw_json_data -> 'USD' ->> 'close' FROM raw_coinmarketcap_ohlcv ORDER BY"
            " data_timestamp",
        )
    ] == [
        "2",
        "3",
        "4",
    ]
    assert [row[3] for row in quarantined(engine)] == ["price_not_a_number", "price_missing"]


def test_the_last_row_of_a_day_counts(database: Settings, engine: Engine, tmp_path: Path) -> None:
    days = "".join(f"2025-03-{day:02},1\n" for day in range(1, 8))
    file = written(tmp_path, "ETH.csv", f"date,close\n{days}2025-03-07,2\n2025-03-07,2\n")
    assert counts(load_files(database, [file])) == (9, 7, 0, 1, 1)
    assert [row[1:] for row in quarantined(engine)] == [
        ("ETH.csv:8", None, "another_row_of_that_day")
    ]
    assert rows(
        engine, "SELECT max((raw_json_data -> 'USD' ->> 'close')::int) FROM raw_coinmarketcap_ohlcv"
    ) == [(2,)]


# gas


def test_etherscan_export_is_wei(database: Settings, engine: Engine, tmp_path: Path) -> None:
    lines = (
        '"Date(UTC)","UnixTimeStamp","Value'
        ' (Wei)"\n"7/30/2015","1438214400","0"\n"10/24/2025","1761264000","1118361020"\n'
    )
    assert counts(load_files(database, [written(tmp_path, "AvgGasPrice.csv", lines)])) == (
        2,
        2,
        0,
        0,
        0,
    )
    assert rows(engine, "SELECT date, actual_avg_gas_gwei FROM gas_fees_daily ORDER BY 1") == [
        (date(2015, 7, 30), Decimal(0)),
        (date(2025, 10, 24), Decimal("1.11836102")),
    ]
    assert counts(load_files(database, [tmp_path / "AvgGasPrice.csv"])) == (2, 0, 0, 2, 0)


def test_gwei_stay_gwei_and_bad_gas_is_refused(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    lines = (
        "date,value_gwei\n2025-03-01,1.123456789\n2025-03-02,n/a\n2025-03-03,\n"
        "2025-03-04,1e30\n2025-03-05,-3\n"
    )
    assert counts(load_files(database, [written(tmp_path, "gas.csv", lines)])) == (5, 2, 0, 0, 3)
    assert rows(engine, "SELECT date, actual_avg_gas_gwei FROM gas_fees_daily ORDER BY 1") == [
        (date(2025, 3, 1), Decimal("1.12345679")),
        (date(2025, 3, 5), Decimal(-3)),
    ]
    assert [row[3] for row in quarantined(engine)] == [
        "gas_not_a_number",
        "gas_missing",
        "value_beyond_column",
    ]


# pools


def test_pools_keep_stored_descriptions(database: Settings, engine: Engine, tmp_path: Path) -> None:
    described = {
        "pool": ["a"],
        "project": ["curve"],
        "chain": ["Base"],
        "symbol": ['X"Y'],
        "tvlUsd": [1e3],
        "apy": [2.5],
        "underlyingTokens": [['0x"1', "0x\\2"]],
    }
    load_files(database, [parquet(tmp_path, described | {"timestamp": [NOON]}, "pools.parquet")])
    load_files(database, [written(tmp_path, "history.csv", HISTORY_CSV)])
    load_files(
        database,
        [
            parquet(
                tmp_path,
                {
                    "pool_id": ["a", "b"],
                    "chain": [None, "Polygon"],
                    "symbol": ["Z", None],
                    "timestamp": [NOON] * 2,
                },
                "later.parquet",
            )
        ],
    )
    old = {"pool_id": ["a"], "chain": ["Gone"], "timestamp": [NOON - timedelta(days=1)]}
    outdated = load_files(database, [parquet(tmp_path, old, "old.parquet")])
    assert counts(outdated) == (1, 0, 0, 0, 0)
    assert outdated["files"][0]["rows_outdated"] == 1
    statement = (
        "SELECT pool_id, protocol, chain, symbol, tvl, apy, underlying_token_addresses,"
        " last_updated, is_active FROM pools ORDER BY 1"
    )
    assert rows(engine, statement) == [
        ("a", "curve", "Base", "Z", Decimal(1000), Decimal("2.5"), ['0x"1', "0x\\2"], NOON, True),
        ("b", None, "Polygon", None, None, None, None, NOON, True),
    ]


def test_earlier_row_of_pool_with_other_values_is_refused(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    lines = "pool,chain,tvl\na,Base,n/a\nb,Base,1\nb,Base,2\nc,Base,3\nc,Base,3\nd,Base,NaN\n"
    file = written(tmp_path, "pools.csv", lines)
    assert counts(load_files(database, [file])) == (6, 3, 0, 1, 2)
    assert [(row[1], row[3]) for row in quarantined(engine)] == [
        ("pools.csv:2", "tvl_not_a_number"),
        ("pools.csv:3", "another_row_of_that_pool"),
    ]
    stored = "SELECT pool_id, tvl FROM pools ORDER BY 1"
    assert rows(engine, stored) == [("b", Decimal(2)), ("c", Decimal(3)), ("d", None)]


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        ("raw_coinmarketcap_ohlcv", "date,symbol,close\n2025-03-01,ETH,1\n2025-03-02,ETH,2\n"),
        ("gas_fees_daily", "date,value_gwei\n2025-03-01,1\n2025-03-02,2\n"),
        ("pools", "pool,chain\na,Base\nb,Base\n"),
    ],
)
def test_rows_that_a_trigger_drops_are_never_there_already(
    database: Settings, engine: Engine, tmp_path: Path, table: str, lines: str
) -> None:
    file = written(tmp_path, "file.csv", lines)
    with engine.begin() as connection:
        connection.execute(
            text(
                f"""
                CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql
                    AS 'BEGIN RETURN NULL; END';
                CREATE TRIGGER drop_row BEFORE INSERT ON {table}
                    FOR EACH ROW EXECUTE FUNCTION drop_row();
                """
            )
        )
    with pytest.raises(CheckFailed, match=rf"{table}\S* did not take 2 rows of .*file.csv"):
        load_files(database, [file])
    with engine.begin() as connection:
        connection.execute(text(f"DROP TRIGGER drop_row ON {table}"))
    assert counts(load_files(database, [file])) == (2, 2, 0, 0, 0)
    assert counts(load_files(database, [file])) == (2, 0, 0, 2, 0)


# what a load says beside its counts


def test_reports_symbols_that_no_job_reads(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    said: list[str] = []
    days = "2025-03-01,SOL/USDT,1\n2025-03-01,ETH/USDT,2\n2025-03-01,ETH/EUR,2\n"
    history_lines = f"{HISTORY_CSV}2025-03-02,a,NaN,1,,\n2025-03-03,a,1,5.2x,,\n"
    files = [
        written(tmp_path, "p.csv", f"date,symbol,close\n{days}"),
        written(tmp_path, "h.csv", history_lines),
    ]
    summary = load_files(database, files, progress=said.append)
    assert summary["files"][0]["symbols_unread"] == ("SOL",)
    assert said[0].endswith("1 refused; no job reads the prices of SOL")
    assert summary["files"][1]["rows_not_numbers"] == 1
    assert "1 rows have an APY or a TVL that is no number" in said[1]
    assert [row[3] for row in quarantined(engine)] == ["symbol_unusable"]
    symbols = "SELECT symbol FROM raw_coinmarketcap_ohlcv ORDER BY 1"
    assert rows(engine, symbols) == [("ETH",), ("SOL",)]


def test_rejects_history_without_numbers(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    lines = "timestamp,pool,tvl,apy\n2025-03-01,a,1,5.2x\n2025-03-02,a,1,\n"
    with pytest.raises(InputError, match=r"no apy in .* is a number, the first is '5.2x'"):
        load_files(database, [written(tmp_path, "h.csv", lines)])
    assert history(engine) == []


# what must not happen


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.parquet", b"", "is empty (0 bytes)"),
        ("empty.csv", b"", "is empty (0 bytes)"),
        ("blank.csv", b"\n\n", "empty first line"),
        ("header.csv", HISTORY_CSV.splitlines()[0].encode(), "no row"),
        ("cut.parquet", b"PAR1 and then nothing", "not a whole Parquet file"),
        ("text.parquet", HISTORY_CSV.encode(), "not a whole Parquet file"),
        ("excel.csv", HISTORY_CSV.encode("utf-16"), "is text in UTF-16"),
        (
            "latin.csv",
            HISTORY_CSV.replace(",a,", ",\u00e9,").encode("latin-1"),
            "neither Parquet nor UTF-8 text",
        ),
        ("quote.csv", HISTORY_CSV.replace(",a,", ',"a,').encode(), "is not CSV"),
        (
            "no_apy.csv",
            b"timestamp,pool_id,tvl_usd\n2025-03-01,a,1\n",
            (
                "has no column apy: a history file needs timestamp, pool_id, tvl_usd, apy; it has"
                " timestamp,"
            ),
        ),
        ("what.csv", b"date,DGS10\n2025-03-01,4\n", "can't tell what"),
        ("gas.csv", b"date,gas\n2025-03-01,4\n", "gwei or wei"),
        ("pair.csv", b"date,close\n2025-03-01,4\n", "--symbol ETH"),
        (
            "ETHUSD.csv",
            b"time,close\n"
            + b"".join(b"%d,4\n" % (1740787200 + 3600 * hour) for hour in range(48)),
            "48 rows for 2 days",
        ),
        (
            "american.csv",
            b"timestamp,pool_id,tvl_usd,apy\n3/1/2025,a,1,2\n",
            "'3/1/2025' is no ISO 8601 timestamp",
        ),
        ("ragged.csv", b"timestamp,pool_id,tvl_usd,apy\n2025-03-01,a\n", "wrong_number_of_values"),
        (
            "euro.csv",
            b"date,symbol,close\n2025-03-01,ETH/EUR,4\n",
            "'ETH/EUR' is no coin with a price in USD",
        ),
    ],
)
def test_bad_file_says_what_is_wrong_and_loads_nothing(
    database: Settings, engine: Engine, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_files(database, [written(tmp_path, name, content)])
    assert says in str(caught.value)
    assert name in str(caught.value)
    assert (
        rows(
            engine,
            "SELECT 1 FROM raw_defillama_pool_history UNION ALL SELECT 1 FROM"
            " raw_coinmarketcap_ohlcv UNION ALL SELECT 1 FROM yieldspark.quarantine",
        )
        == []
    )


def test_parquet_without_a_needed_column_names_both(database: Settings, tmp_path: Path) -> None:
    file = parquet(tmp_path, {"timestamp": [NOON], "pool": ["a"], "apy": [1.0]})
    with pytest.raises(
        InputError,
        match=(
            "has no column tvl_usd: a history file needs timestamp, pool_id, tvl_usd, apy; it has"
            " timestamp, pool, apy"
        ),
    ):
        load_files(database, [file])


def test_parquet_damaged_in_the_middle_leaves_the_table_as_it_was(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    number = 200_000
    columns = {
        "timestamp": [NOON] * number,
        "pool_id": [f"pool {row}" for row in range(number)],
        "tvl_usd": [1.0] * number,
        "apy": [1.0] * number,
    }
    pq.write_table(
        pa.table(columns), tmp_path / "history.parquet", row_group_size=70_000, compression="zstd"
    )
    metadata = pq.ParquetFile(tmp_path / "history.parquet").metadata
    content = bytearray((tmp_path / "history.parquet").read_bytes())
    start = metadata.row_group(2).column(1).dictionary_page_offset
    content[start : start + 2000] = bytes(2000)
    with pytest.raises(InputError, match="not a whole Parquet file"):
        load_files(database, [written(tmp_path, "damaged.parquet", bytes(content))])
    assert history(engine) == []


def test_missing_file_folder_and_unknown_kind(database: Settings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.csv does not exist"):
        load_files(database, [tmp_path / "nothing.csv"])
    with pytest.raises(InputError, match="is a folder"):
        load_files(database, [tmp_path])
    with pytest.raises(
        InputError, match="kind 'history2' is unknown; allowed are history, prices, gas, pools"
    ):
        load_files(database, [written(tmp_path, "history.csv", HISTORY_CSV)], kind="history2")
    with pytest.raises(InputError, match="has no column close"):
        load_files(database, [tmp_path / "history.csv"], kind="prices")


def test_rejects_bad_file_before_loading_good_one(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    with pytest.raises(InputError):
        load_files(
            database, [written(tmp_path, "history.csv", HISTORY_CSV), tmp_path / "nothing.csv"]
        )
    assert history(engine) == []


def test_database_failure_leaves_tables_unchanged(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("ALTER TABLE pools ADD CONSTRAINT short CHECK (length(pool_id) < 3)")
        )
    lines = HISTORY_CSV + "2025-03-01T12:00:00Z,a long name,1,2,,\nno time,b,1,2,,\n"
    with pytest.raises(DatabaseError):
        load_files(database, [written(tmp_path, "history.csv", lines)])
    assert history(engine) == quarantined(engine) == []


def test_progress_names_each_file(database: Settings, tmp_path: Path) -> None:
    said: list[str] = []
    load_files(database, [written(tmp_path, "history.csv", HISTORY_CSV)], progress=said.append)
    assert said == [
        "history.csv (history): 1 read, 1 inserted, 0 updated, 0 already there, 0 refused"
    ]


@pytest.mark.shared_data
def test_real_data_loads_whole_and_once(database: Settings, shared_data: Path) -> None:
    names = (
        "defillama_pools.parquet",
        "defillama_pool_history.parquet",
        "BTCUSDT_1d.csv",
        "ETHUSDT_1d.csv",
        "AvgGasPrice.csv",
    )
    files = [shared_data / name for name in names]
    first = load_files(database, files)
    assert [(entry["kind"], entry["rows_inserted"]) for entry in first["files"]] == [
        ("pools", 487),
        ("history", 80_628),
        ("prices", 3_122),
        ("prices", 3_122),
        ("gas", 3_740),
    ]
    assert first["rows_refused"] == 0
    assert load_files(database, files)["rows_inserted"] == 0


def test_json_value_of_every_text(engine: Engine) -> None:
    given = [
        "1",
        "-1.50",
        "1e-5",
        ".5",
        "nan",
        "NaN",
        "Inf",
        "-INFINITY",
        "1,5",
        "0x10",
        "",
        "1\n",
        "١",
    ]
    with engine.connect() as connection:
        statement = text(
            f"SELECT ({validation_sql.json_value('value')})::text"
            " FROM unnest(CAST(:given AS text[])) WITH ORDINALITY AS t(value, n) ORDER BY n"
        )
        found = [
            json.loads(row) for row in connection.execute(statement, {"given": given}).scalars()
        ]
    assert found == [
        1,
        -1.5,
        1e-5,
        0.5,
        "NaN",
        "NaN",
        "Infinity",
        "-Infinity",
        "1,5",
        "0x10",
        "",
        "1\n",
        "١",
    ]


def test_loading_guide_matches_behaviour(run_here: CommandLine) -> None:
    page = (PROJECT / "docs" / "loading.md").read_text(encoding="utf-8")
    (run_here.folder / "sample_data").symlink_to(PROJECT / "sample_data")
    (block,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines():
        done = run_here(*shlex.split(line.removeprefix("python run_spark_local.py ")))
        assert done.returncode == 0, done.stderr
    for kind, columns in NEEDED.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{kind}` |"))
        assert [name for name in columns if f"`{name}`" not in row] == []


def test_option_decides_decimal_sign(run_here: CommandLine, engine: Engine) -> None:
    lines = "date;symbol;close\n2025-03-01;ETH;2.518\n2025-03-02;ETH;2.217\n"
    path = str(written(run_here.folder, "prices.csv", lines))
    error = run_here.json("load", path, code=2)["error"]
    assert "column close of" in error
    assert "give --decimal . or --decimal ," in error
    assert run_here.json("load", path, "--decimal", ",")["rows_inserted"] == 2
    closes = "SELECT raw_json_data #>> '{USD,close}' FROM raw_coinmarketcap_ohlcv ORDER BY 1"
    assert rows(engine, closes) == [("2217",), ("2518",)]


def test_file_name_that_is_not_utf_8_is_stored(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(b"h\xff\n.csv")
    path.write_text("timestamp,pool_id,tvl_usd,apy\n2025-03-01,a,1,2\nno,b,1,2\n2025-03-02,a\n")
    summary = load_files(database, [path])
    assert counts(summary) == (3, 1, 0, 0, 2)
    assert {source_id for _, source_id, _, _ in quarantined(engine)} == {
        "h\ufffd\n.csv:3",
        "h\ufffd\n.csv:4",
    }
