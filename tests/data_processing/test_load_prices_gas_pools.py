"""Tests loading files of prices, gas and pool descriptions into a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from common.errors import CheckFailed, InputError
from config_spark import Settings
from data_processing.ingest.loading.load_files import load_files
from tests.data_processing.test_load_files import (
    HISTORY_CSV,
    NOON,
    counts,
    parquet,
    quarantined,
    rows,
    write_file,
)

# prices


def test_prices_are_upserted_by_day(database: Settings, engine: Engine, tmp_path: Path) -> None:
    first = write_file(
        tmp_path,
        "ETHUSDT_1d.csv",
        "timestamp,open,high,low,close,volume\n2025-03-01,1,3,0.5,2.50,10\n2025-03-02"
        " 23:59:59,2,4,1,3,20\n",
    )
    assert counts(load_files(database, [first])) == (2, 2, 0, 0, 0)
    inserted_at = rows(
        engine, "SELECT insertion_timestamp FROM raw_coinmarketcap_ohlcv ORDER BY data_timestamp"
    )
    corrected = write_file(
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
    file = write_file(
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
    good = "2025-03-01,2\n2025-03-02,3\n2025-03-04,5\n2025-03-05,6\n"
    load_files(
        database,
        [write_file(tmp_path, "good.csv", f"date,close\n{good}")],
        symbol="eth",
    )
    days = "2025-03-01,n/a\n2025-03-02,\n2025-03-03,4\n2025-03-04,-2\n2025-03-05,0\n"
    bad = write_file(tmp_path, "bad.csv", f"date,close\n{days}")
    assert counts(load_files(database, [bad], symbol="ETH")) == (5, 1, 0, 0, 4)
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
        "5",
        "6",
    ]
    assert [row[3] for row in quarantined(engine)] == [
        "price_not_a_number",
        "price_missing",
        "price_not_positive",
        "price_not_positive",
    ]


def test_the_last_row_of_a_day_counts(database: Settings, engine: Engine, tmp_path: Path) -> None:
    days = "".join(f"2025-03-{day:02},1\n" for day in range(1, 8))
    file = write_file(tmp_path, "ETH.csv", f"date,close\n{days}2025-03-07,2\n2025-03-07,2\n")
    assert counts(load_files(database, [file])) == (9, 7, 0, 1, 1)
    assert [row[1:] for row in quarantined(engine)] == [
        ("ETH.csv:8", None, "another_row_of_that_day")
    ]
    assert rows(
        engine, "SELECT max((raw_json_data -> 'USD' ->> 'close')::int) FROM raw_coinmarketcap_ohlcv"
    ) == [(2,)]


def test_the_latest_row_of_a_day_counts_in_any_order(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    newest_first = "2025-03-02 14:35,9\n2025-03-02,8\n2025-03-01 23:59,7\n"
    prices = write_file(tmp_path, "ETH.csv", f"date,close\n{newest_first}")
    gas = write_file(tmp_path, "gas.csv", f"date,value_gwei\n{newest_first}")
    pools = write_file(
        tmp_path, "pools.csv", "pool,timestamp,chain\na,2025-03-02,Base\na,2025-03-01,Sui\n"
    )
    outcome = load_files(database, [prices, gas, pools])
    assert [file["rows_refused"] for file in outcome["files"]] == [1, 1, 1]
    close = "SELECT max((raw_json_data #>> '{USD,close}')::int) FROM raw_coinmarketcap_ohlcv"
    assert rows(engine, close) == [(9,)]
    assert rows(engine, "SELECT max(actual_avg_gas_gwei) FROM gas_fees_daily") == [(9,)]
    assert rows(engine, "SELECT chain FROM pools") == [("Base",)]


LONGER_PERIODS = (
    ("2025-01-06", "2025-01-13", "2025-01-20", "2025-01-27"),
    ("2025-01-01", "2025-02-01", "2025-03-01", "2025-04-01"),
    ("2025-01-01", "2025-01-04", "2025-01-07", "2025-01-10"),
)


def test_rejects_candles_of_more_than_a_day(database: Settings, tmp_path: Path) -> None:
    """Their close is that of a later day, which features of the first day must not know."""
    for days in LONGER_PERIODS:
        lines = "".join(f"{day},2\n" for day in days)
        prices = write_file(tmp_path, "ETH.csv", f"date,close\n{lines}")
        gas = write_file(tmp_path, "gas.csv", f"date,value_gwei\n{lines}")
        for path in (prices, gas):
            with pytest.raises(InputError, match=r"has a row every \d+ to \d+ days, and daily"):
                load_files(database, [path])
    single = "date,close\n2025-01-01,2\n2025-01-05,2\n2025-01-20,2\n2025-03-01,2\n"
    assert counts(load_files(database, [write_file(tmp_path, "ETH.csv", single)]))[1] == 4


# gas


def test_etherscan_export_is_wei(database: Settings, engine: Engine, tmp_path: Path) -> None:
    lines = (
        '"Date(UTC)","UnixTimeStamp","Value'
        ' (Wei)"\n"7/30/2015","1438214400","0"\n"10/24/2025","1761264000","1118361020"\n'
    )
    assert counts(load_files(database, [write_file(tmp_path, "AvgGasPrice.csv", lines)])) == (
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
        "2025-03-04,1e30\n2025-03-05,-3\n2025-03-06,-1e-30\n2025-03-07,1000001\n2025-03-08,0\n"
    )
    assert counts(load_files(database, [write_file(tmp_path, "gas.csv", lines)])) == (8, 2, 0, 0, 6)
    assert rows(engine, "SELECT date, actual_avg_gas_gwei FROM gas_fees_daily ORDER BY 1") == [
        (date(2025, 3, 1), Decimal("1.12345679")),
        (date(2025, 3, 8), Decimal(0)),
    ]
    assert [row[3] for row in quarantined(engine)] == [
        "gas_not_a_number",
        "gas_missing",
        "value_beyond_column",
        "gas_negative",
        "gas_negative",
        "gas_beyond_limit",
    ]


def test_negative_gas_never_replaces_good_gas(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    good = write_file(tmp_path, "good.csv", "date,value_wei\n2025-03-01,2000000000\n")
    load_files(database, [good])
    bad = write_file(tmp_path, "bad.csv", "date,value_wei\n2025-03-01,-5\n2025-03-02,1e9\n")
    assert counts(load_files(database, [bad])) == (2, 1, 0, 0, 1)
    assert rows(engine, "SELECT actual_avg_gas_gwei FROM gas_fees_daily ORDER BY date") == [
        (Decimal(2),),
        (Decimal(1),),
    ]
    assert [row[1:] for row in quarantined(engine)] == [("bad.csv:2", None, "gas_negative")]
    only_bad = write_file(tmp_path, "only_bad.csv", "date,value_gwei\n2025-03-01,-5\n")
    with pytest.raises(InputError, match="the first because of gas_negative; nothing was loaded"):
        load_files(database, [only_bad])


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
    load_files(database, [write_file(tmp_path, "history.csv", HISTORY_CSV)])
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
    lines = "a,Base,n/a\nb,Base,1\nb,Base,2\nc,Base,3\nc,Base,3\nd,Base,NaN\ne,Base,-1\n"
    file = write_file(tmp_path, "pools.csv", f"pool,chain,tvl\n{lines}")
    assert counts(load_files(database, [file])) == (7, 3, 0, 1, 3)
    assert [(row[1], row[3]) for row in quarantined(engine)] == [
        ("pools.csv:2", "tvl_not_a_number"),
        ("pools.csv:3", "another_row_of_that_pool"),
        ("pools.csv:8", "tvl_negative"),
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
    file = write_file(tmp_path, "file.csv", lines)
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


def test_reports_symbols_that_no_job_reads(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    messages: list[str] = []
    days = "2025-03-01,SOL/USDT,1\n2025-03-01,ETH/USDT,2\n2025-03-01,ETH/EUR,2\n"
    history_lines = f"{HISTORY_CSV}2025-03-02,a,NaN,1,,\n2025-03-03,a,1,5.2x,,\n"
    files = [
        write_file(tmp_path, "p.csv", f"date,symbol,close\n{days}"),
        write_file(tmp_path, "h.csv", history_lines),
    ]
    summary = load_files(database, files, progress=messages.append)
    assert summary["files"][0]["symbols_unread"] == ("SOL",)
    assert messages[0].endswith("1 refused; no job reads the prices of SOL")
    assert summary["files"][1]["rows_not_numbers"] == 1
    assert "1 rows have an APY or a TVL that is no number" in messages[1]
    assert [row[3] for row in quarantined(engine)] == ["symbol_unusable"]
    symbols = "SELECT symbol FROM raw_coinmarketcap_ohlcv ORDER BY 1"
    assert rows(engine, symbols) == [("ETH",), ("SOL",)]
