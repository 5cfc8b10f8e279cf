"""Tests files as other programs and sites write them. Needs no database."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from common.errors import InputError
from tests.support.read_files import columns, inspect_path, write_file

POOL = "747c1d2a-c668-4682-b9f9-296708a3dd90"
HISTORY = "timestamp,pool,tvlUsd,apy\n"
FIRST = dt.datetime(2025, 3, 1, tzinfo=dt.UTC)
SECOND = FIRST + dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("name", "content", "closes"),
    [
        (
            "ETH-USD.csv",
            "Date,Open,High,Low,Close,Adj Close,Volume\n"
            "2025-03-01,2217.3,2550,2172,2518.1,2518.1,9\n",
            {FIRST: "2518.1"},
        ),
        (
            "Ethereum_1.3.2025-2.3.2025_historical_data_coinmarketcap.csv",
            "timeOpen;name;open;high;low;close;volume;marketCap;timestamp\n"
            '"2025-03-01T00:00:00.000Z";"2781";2217.3;2550.1;2172.5;2518.112;12.1;3.1E11;'
            '"2025-03-01T00:00:00.000Z"\n',
            {FIRST: "2518.112"},
        ),
        (
            "Gemini_ETHUSD_d.csv",
            "https://www.CryptoDataDownload.com\nunix,date,symbol,close,Volume ETH\n"
            "1740873600000,2025-03-02 00:00:00,ETH/USD,2518.1,1\n"
            "1740787200,2025-03-01 00:00:00,ETH/USD,2418.1,1\n",
            {SECOND: "2518.1", FIRST: "2418.1"},
        ),
        (
            "ethusd_d.txt",
            "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<CLOSE>\nETHUSD,D,20250301,000000,2217.3,2518.1\n",
            {FIRST: "2518.1"},
        ),
    ],
    ids=["Yahoo", "CoinMarketCap", "CryptoDataDownload", "Stooq"],
)
def test_prices_of_a_site(
    tmp_path: Path, name: str, content: str, closes: dict[dt.datetime, str]
) -> None:
    columns_of_file = columns(write_file(tmp_path, name, content))
    assert dict(zip(columns_of_file["timestamp"], columns_of_file["close"], strict=True)) == closes
    assert set(columns_of_file["symbol"]) == {"ETH"}


@pytest.mark.parametrize(
    "content",
    [
        "Date,Average Gas Price (Gwei)\n2025-03-01,1.25\n",
        "block_date,median_gas_price_gwei\n2025-03-01 00:00:00.000 UTC,1.25\n",
        "datetime;Gas Price (gwei)\n2025-03-01T00:00:00Z;1,25\n",
    ],
    ids=["YCharts", "Dune", "German"],
)
def test_gas_of_a_site(tmp_path: Path, content: str) -> None:
    columns_of_file = columns(write_file(tmp_path, "gas.csv", content))
    assert (columns_of_file["timestamp"], columns_of_file["gwei"]) == ([FIRST], ["1.25"])


@pytest.mark.parametrize(
    "cell", ["USD 1,234.50", "US$1,234.50", "$ 1,234.50", "1,234.50 US$", "1'234.50", "1 234.50"]
)
def test_dollars_on_either_side(tmp_path: Path, cell: str) -> None:
    line = f'2025-03-01,{POOL},"{cell}",5.25 %\n'
    columns_of_file = columns(write_file(tmp_path, "h.csv", HISTORY + line))
    assert (columns_of_file["tvl_usd"], columns_of_file["apy"]) == (["1234.50"], ["5.25"])


def test_table_printed_by_psql(tmp_path: Path) -> None:
    printed = (
        f"       timestamp        |  pool | tvlusd |  apy\n{'-' * 24}+-------+--------+------\n"
        f" 2025-03-01 00:00:00+00 | {POOL} | 1000.5 | 5.25\n(1 row)\n"
    )
    path = write_file(tmp_path, "psql.txt", printed)
    (batch,) = inspect_path(path).table.batches()
    assert [line.row_number for line in batch.ragged] == [2, 4]
    columns_of_file = columns(path)
    assert (columns_of_file["timestamp"], columns_of_file["tvl_usd"], columns_of_file["apy"]) == (
        [FIRST],
        ["1000.5"],
        ["5.25"],
    )


def test_the_time_of_day_is_never_dropped(tmp_path: Path) -> None:
    """A snapshot of 23:01 is not one of midnight, or the last snapshot of a day would be
    unknown.
    """
    apart = f"date,time,pool,tvl,apy\n2025-03-01,23:01:00,{POOL},1000,5.25\n"
    with pytest.raises(InputError, match=r"day in column date and the time of day in column time"):
        inspect_path(write_file(tmp_path, "apart.csv", apart))
    beside = f"date,datetime,pool,tvl,apy\n2025-03-01,2025-03-01T23:01:00Z,{POOL},1000,5.25\n"
    moment = FIRST + dt.timedelta(hours=23, minutes=1)
    assert columns(write_file(tmp_path, "beside.csv", beside))["timestamp"] == [moment]
    unix = f"date,time,pool,tvl,apy\n2025-03-01,1740787200,{POOL},1000,5.25\n"
    assert columns(write_file(tmp_path, "unix.csv", unix))["timestamp"] == [FIRST]
    other = f"date,hours_locked,uptime,pool,tvl,apy\n2025-03-01,5,10:00,{POOL},1000,5.25\n"
    assert columns(write_file(tmp_path, "other.csv", other))["timestamp"] == [FIRST]
    repeated = f"timestamp,hour,pool,tvl,apy\n2025-03-01T23:01:00Z,23,{POOL},1000,5.25\n"
    assert columns(write_file(tmp_path, "repeated.csv", repeated))["timestamp"] == [moment]


@pytest.mark.parametrize("name", ["time_utc", "Hour", "block_time", "hour of day", "Heure"])
def test_time_of_day_in_a_column_of_another_name(tmp_path: Path, name: str) -> None:
    time = "23" if "our" in name else "23:01"
    content = f"date,{name},pool,tvl,apy\n2025-03-01,{time},{POOL},1000,5.25\n"
    with pytest.raises(InputError, match=f"the time of day in column {name}"):
        inspect_path(write_file(tmp_path, "apart.csv", content))


def test_blank_before_a_quote(tmp_path: Path) -> None:
    content = f'timestamp, "pool", "tvlUsd", apy\n2025-03-01, "{POOL}", "1,234.5", 5.25\n'
    found = columns(write_file(tmp_path, "blanks.csv", content))
    assert (found["pool_id"], found["tvl_usd"], found["apy"]) == ([POOL], ["1234.5"], ["5.25"])


@pytest.mark.parametrize(
    ("left", "right"),
    [("'", "'"), ("\u201c", "\u201d"), ("\u201e", "\u201c"), ("\u00ab", "\u00bb")],
)
def test_rejects_quotes_that_are_not_csv(tmp_path: Path, left: str, right: str) -> None:
    names = ",".join(f"{left}{name}{right}" for name in ("timestamp", "pool", "tvlUsd", "apy"))
    content = f"{names}\n1740787200,{left}{POOL}{right},1000,5.25\n"
    with pytest.raises(InputError, match="in quotes that are not double quotes"):
        inspect_path(write_file(tmp_path, "quotes.csv", content))


def test_parquet_of_pandas_and_polars(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"timestamp": [FIRST], "pool": [POOL], "tvlUsd": [1000.5], "apy": [Decimal("5.25")]}
    ).with_columns(pl.col("pool").cast(pl.Categorical), pl.col("timestamp").dt.cast_time_unit("ns"))
    frame.write_parquet(tmp_path / "polars.parquet")
    indexed = pd.DataFrame(
        {"timestamp": [FIRST], "pool": [POOL], "tvlUsd": [1000.5], "apy": ["5.25"]}
    ).set_index(["pool", "timestamp"])
    indexed.to_parquet(tmp_path / "pandas.parquet")
    for name in ("polars", "pandas"):
        columns_of_file = columns(tmp_path / f"{name}.parquet")
        assert (columns_of_file["timestamp"], columns_of_file["pool_id"]) == ([FIRST], [POOL])
        assert (columns_of_file["tvl_usd"], Decimal(columns_of_file["apy"][0])) == (
            ["1000.5"],
            Decimal("5.25"),
        )


def test_type_unsupported_by_arrow_is_not_reported_as_damage(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}, schema={"a": pl.Int128}).write_parquet(tmp_path / "wide.parquet")
    with pytest.raises(InputError, match=r"does not read: Integers with more than 64 bits"):
        inspect_path(tmp_path / "wide.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "ETH_USD Historical Data.csv",
            '"Date","Price","Vol."\n"03/02/2025","2,5","1M"\n',
            "can't tell",
        ),
        (
            "ETHUSDT-1d-2025-03.csv",
            "1740787200000000,2217.30,2550.0,2518.1\n",
            "a header line with",
        ),
        (
            "yfinance.csv",
            "Price,Close,Open\nTicker,ETH-USD,ETH-USD\nDate,,\n2025-03-01,1,2\n",
            "can't tell",
        ),
        ("report.xml", "<row><close>1</close></row>\n", "is XML"),
        (
            "title.csv",
            f"DeFi yields export,,,\n{HISTORY}2025-03-01,{POOL},1,2\n",
            "DeFi yields export",
        ),
    ],
    ids=["Investing.com", "Binance", "two header lines", "XML", "a title"],
)
def test_unsupported_file_gets_one_message(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        inspect_path(write_file(tmp_path, name, content))
    assert message in str(caught.value)
    assert len(str(caught.value)) <= 500
