"""Tests the detection of kind, symbol and columns, and the conversion of cells.

Needs no database.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from common.errors import InputError
from data_processing.files.cells import array_literal, to_texts, to_timestamps
from data_processing.ingest.loading.file_kinds import fitting_kinds, map_columns
from data_processing.ingest.loading.symbols import (
    COINS,
    base_symbol,
    parse_symbol,
    symbol_from_name,
)
from data_processing.raw.market_series import SYMBOLS

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTCUSDT_1d.csv", "BTC"),
        ("eth-usd.csv", "ETH"),
        ("ETH_daily.parquet", "ETH"),
        ("bitcoin.csv", "BTC"),
        ("WBTCUSDC.csv", "WBTC"),
        ("SOL-USD.csv", "SOL"),
        ("Binance_ETHUSDT_d.csv", "ETH"),
        ("XBTUSD.csv", "BTC"),
    ],
)
def test_symbol_of_a_file_name(name: str, symbol: str) -> None:
    assert symbol_from_name(Path(name)) == symbol


@pytest.mark.parametrize(
    "name",
    [
        *("prices.csv", "ETHBTC.csv", "eth_btc.csv", "method.csv", "ETH-EUR.csv", "ETHEUR.csv"),
        *("ethereum_classic.csv", "bitcoin-cash.csv", "wrapped-eth.csv", "usd.csv"),
    ],
)
def test_rejects_file_name_without_symbol(name: str) -> None:
    with pytest.raises(InputError, match="--symbol"):
        symbol_from_name(Path(name))


@pytest.mark.parametrize(
    ("pair", "symbol"),
    [
        *dict.fromkeys(
            (
                *("ETH", " eth ", "ethereum", "ETH/USDT", "ETH-USD", "ETH_USDC", "ETH / USDT"),
                *("ETHUSDT", "ETHBUSD", "ETH:USD", "COINBASE:ETHUSD", "ETH/DAI"),
            ),
            "ETH",
        ).items(),
        *dict.fromkeys(("XBT", "XBTUSD", "KRAKEN:XBT/USD", "Bitcoin"), "BTC").items(),
        *(("SOL/USDT", "SOL"), ("DOTUSD", "DOT"), ("USDC", "USDC"), ("FDUSD", "FDUSD")),
        ("WETH", "WETH"),
    ],
)
def test_pair_with_dollar_is_its_coin(pair: str, symbol: str) -> None:
    assert base_symbol(pair) == parse_symbol(pair) == symbol


@pytest.mark.parametrize(
    "pair",
    [
        *("ETH/EUR", "ETHEUR", "ETH-BTC", "ETHBTC", "USDT/ETH", "ETH-PERP", "ETH/USDT:USDT"),
        *("Ethereum Classic", "ETH.P", ""),
    ],
)
def test_price_in_other_currency_is_no_coin(pair: str) -> None:
    with pytest.raises(InputError, match="is no coin with a price in USD"):
        parse_symbol(pair)


def test_the_coins_are_those_that_the_jobs_read() -> None:
    assert set(COINS.values()) == set(SYMBOLS)


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (["timestamp", "tvl_usd", "apy", "apy_base", "apy_reward", "pool_id"], ["history"]),
        (["timestamp", "pool", "symbol", "tvl_usd", "apy"], ["history"]),
        (["pool", "apy"], ["history"]),
        (["pool", "project", "chain", "timestamp", "tvl_usd", "apy"], ["history", "pools"]),
        (["pool", "project", "chain", "tvl_usd", "apy"], ["pools"]),
        (["pool", "underlyingTokens"], ["pools"]),
        (["timestamp", "open", "high", "low", "close", "volume"], ["prices"]),
        (["date", "close", "gas_gwei"], ["prices", "gas"]),
        (["date", "close", "gas_used"], ["prices"]),
        (["Date(UTC)", "UnixTimeStamp", "Value (Wei)"], ["gas"]),
        (["date", "actual_avg_gas_gwei"], ["gas"]),
        (["date", "gas"], ["gas"]),
        (["date", "weight"], []),
    ],
)
def test_kinds_that_fit_the_columns(names: list[str], kinds: list[str]) -> None:
    assert fitting_kinds(names) == kinds


def test_etherscan_unix_time_counts_before_its_american_date() -> None:
    assert map_columns(
        Path("file"), ["Date(UTC)", "UnixTimeStamp", "Value (Wei)"], "gas"
    ).names == {
        "timestamp": "UnixTimeStamp",
        "wei": "Value (Wei)",
    }


def test_instants_of_text() -> None:
    texts = [
        "2025-03-01",
        "2025-03-01T12:00:00.123456789+02:00",
        "20250301",
        "1740830400.5",
        "1740830400123",
        "1740830400123456",
        "1740830400123456789",
    ]
    expected = [
        datetime(2025, 3, 1, tzinfo=UTC),
        datetime(2025, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2))),
        datetime(2025, 3, 1, tzinfo=UTC),
        NOON + timedelta(milliseconds=500),
        NOON + timedelta(milliseconds=123),
        NOON + timedelta(microseconds=123456),
        NOON + timedelta(microseconds=123456),
    ]
    instants = to_timestamps("it", pa.chunked_array([texts])).to_pylist()
    assert all(
        abs(ours - theirs) <= timedelta(microseconds=1)
        for ours, theirs in zip(instants, expected, strict=True)
    )
    assert (
        to_timestamps("it", pa.chunked_array([["", "3/1/2025", "12345", "now", None]])).to_pylist()
        == [None] * 5
    )


def test_numbers_as_text_read_back_as_the_same_number() -> None:
    numbers = [0.1, 1e-300, 1.7976931348623157e308, 355083.4285, -0.0, 5636336220.0]
    assert [
        float(value) for value in to_texts("it", pa.chunked_array([numbers])).to_pylist()
    ] == numbers


def test_array_literal_escapes() -> None:
    assert array_literal(["a", 'b"c', "d\\e", "{f}", None]) == '{"a","b\\"c","d\\\\e","{f}"}'
