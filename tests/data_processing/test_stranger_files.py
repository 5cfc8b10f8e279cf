"""Tests files whose names, units and columns look like ours and mean something else.

Needs no database.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import InputError
from data_processing.files.cells import to_timestamps
from data_processing.ingest.loading.symbols import base_symbol, symbol_from_name
from tests.support.read_files import columns, inspect_path, write_file

POOL = "747c1d2a-c668-4682-b9f9-296708a3dd90"
MIDNIGHT = dt.datetime(2025, 3, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize("name", ["TVL (€)", "TVL £", "TVL ₿", "∆ TVL", "Δ TVL", "√tvl"])
def test_a_sign_in_a_name_makes_another_column(tmp_path: Path, name: str) -> None:
    content = f"timestamp,pool,{name},apy\n2025-03-01,{POOL},1000.5,5.25\n"
    with pytest.raises(InputError, match="has no column tvl_usd"):
        inspect_path(write_file(tmp_path, "h.csv", content))
    beside = f"timestamp,pool,{name},tvl,apy\n2025-03-01,{POOL},9,1000.5,5.25\n"
    assert columns(write_file(tmp_path, "b.csv", beside))["tvl_usd"] == ["1000.5"]


@pytest.mark.parametrize("mark", ["\ufeff\ufeff", "ï»¿"])
def test_byte_order_mark_that_another_program_kept(tmp_path: Path, mark: str) -> None:
    content = f"{mark}Timestamp,Pool ID,TVL ($),APY [%]\n2025-03-01,{POOL},1000.5,5.25\n"
    found = columns(write_file(tmp_path, "h.csv", content))
    assert (found["timestamp"], found["tvl_usd"], found["apy"]) == (
        [MIDNIGHT],
        ["1000.5"],
        ["5.25"],
    )


@pytest.mark.parametrize(
    ("header", "values", "message"),
    [
        ("date,symbol,currency,close", "2025-03-01,ETH,EUR,2", "'EUR', and values in USD"),
        ("date,base,quote,close", "2025-03-01,ETH,BTC,2", "'BTC', and values in USD"),
        ("timestamp,pool,tvl,apy,currency", "2025-03-01,a,1,2,eur", "'eur', and values in USD"),
        ("date,value_gwei,unit", "2025-03-01,2,wei", "'wei', and gas in gwei"),
        ("date,blockchain,value_gwei", "2025-03-01,polygon,2", "'polygon', and gas of Ethereum"),
        (
            "timestamp,tz,pool,tvl,apy",
            "2025-03-01 23:30,America/New_York,a,1,2",
            "'America/New_York', and times in UTC",
        ),
        ("timestamp,utc_offset,pool,tvl,apy", "2025-03-01,+02:00,a,1,2", "'\\+02:00', and times"),
    ],
)
def test_column_that_changes_the_meaning_of_others(
    tmp_path: Path, header: str, values: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        inspect_path(write_file(tmp_path, "ETH.csv", f"{header}\n{values}\n"))


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("date,symbol,currency,quote,close", "2025-03-01,ETH,usd,USDT,2"),
        ("date,value_gwei,unit,chain", "2025-03-01,2,Gwei,ethereum"),
        ("timestamp,timezone,pool,tvl,apy", "2025-03-01 00:00,Etc/UTC,a,1,2"),
        ("timestamp,utc_offset,pool,tvl,apy", "2025-03-01,0,a,1,2"),
        ("timestamp,tz,pool,tvl,apy", "2025-03-01T01:00:00+01:00,Europe/Berlin,a,1,2"),
        ("timestamp,tz,pool,tvl,apy", "1740787200,Europe/Berlin,a,1,2"),
        ("timestamp,currency,pool,tvl,apy", "2025-03-01,,a,1,2"),
    ],
)
def test_column_that_confirms_the_meaning_of_others(
    tmp_path: Path, header: str, values: str
) -> None:
    found = columns(write_file(tmp_path, "ETH.csv", f"{header}\n{values}\n"))
    assert found["timestamp"] == [MIDNIGHT]


@pytest.mark.parametrize(
    "content",
    [
        "Pool,Project,Chain,TVL,APY\nUSDC,aave-v3,Base,1,5\nUSDC,compound-v3,Base,2,3\n",
        "date,pool,chain,tvl,apy\n2025-03-01T01:00Z,USDC,Base,1,5\n2025-03-01T02:00Z,USDC,Sui,2,3\n",
    ],
    ids=["DefiLlama's page", "history"],
)
def test_names_of_tokens_are_no_pool_ids(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=r"does not identify a pool: 'USDC' is a pool of '.*base'"):
        inspect_path(write_file(tmp_path, "yields.csv", content))


def test_pool_may_move_to_another_project(tmp_path: Path) -> None:
    content = (
        "date,pool,project,tvl,apy\n2025-03-01,a,morpho,1,5\n2025-03-02,a,morpho-blue,1,5\n"
        "2025-03-02,a,,1,5\n"
    )
    assert len(columns(write_file(tmp_path, "h.csv", content))["apy"]) == 3


@pytest.mark.parametrize(
    "name",
    [
        *("ethereum-name-service", "ether-fi-usd-max", "bitcoin-diamond", "rocket-pool-eth"),
        *("renzo-restaked-eth", "eth-2x-flexible-leverage", "ETH3L-USDT", "BINANCE_ETHUSDT.P, 1D"),
        *("eth_volatility", "btc_hashrate", "eth_tvl", "BTC-etf-flows"),
    ],
)
def test_name_of_another_coin_or_series(name: str) -> None:
    with pytest.raises(InputError, match="its name does not tell one symbol"):
        symbol_from_name(Path(f"{name}.csv"))


@pytest.mark.parametrize(
    "name",
    [
        *("ethereum-usd-max", "Ethereum Historical Data - Investing.com", "coin_Ethereum"),
        *("ETH-USD (1)", "eth_de", "ETHUSDC-1d-2025-03", "ethereum_2025-01-01_2025-03-01"),
        *("XETHZUSD_1440", "Coinbase_ETHUSD_d"),
    ],
)
def test_name_of_a_coin(name: str) -> None:
    assert symbol_from_name(Path(f"{name}.csv")) == "ETH"
    assert base_symbol("XXBTZUSD") == "BTC"


def test_option_that_contradicts_the_file(tmp_path: Path) -> None:
    named = write_file(tmp_path, "BTCUSDT_1d.csv", "date,close\n2025-03-01,2\n")
    column = write_file(tmp_path, "p.csv", "date,symbol,close\n2025-03-01,ETHUSDT,2\n")
    for path in (named, column):
        with pytest.raises(InputError, match="leave the option out"):
            inspect_path(path, symbol="SOL")
    assert inspect_path(named, symbol="XBT").symbol == "BTC"
    assert columns(column, symbol="ETH/USD")["symbol"] == ["ETH"]


def test_last_nanosecond_of_a_day_stays_in_it() -> None:
    last = dt.datetime(2025, 2, 28, 23, 59, 59, 999999, tzinfo=dt.UTC)
    for unix in ([1740787199999999999, None, 2**62], ["1740787199999999999", None, "9" * 19]):
        assert to_timestamps("it", pa.chunked_array([unix])).to_pylist() == [last, None, None]


def test_short_floats_are_no_unix_time(tmp_path: Path) -> None:
    """A 32-bit float is up to a minute off, so that a snapshot may get another day."""
    table = pa.table({"date": pa.array([1740787200.0], pa.float32()), "close": [2.0]})
    pq.write_table(table, tmp_path / "ETH.parquet")
    with pytest.raises(InputError, match="has the type float, which can't be read as a point in"):
        inspect_path(tmp_path / "ETH.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("y.csv", "Too Many Requests", "only the column 'Too Many Requests'; .* fetch the file"),
        ("y.csv", "DeFi Report\n\npool,tvl\n", "a line above its header, remove it"),
        ("y.doc", b"{\\rtf1\\ansi pool}", "is a text document"),
        ("y.tar", b"y.csv".ljust(257, b"\0") + b"ustar  \0", "is a tar archive"),
        ("y.duckdb", b"\0" * 8 + b"DUCK", "is a DuckDB database"),
        ("y.numbers", b"PK\x03\x04\x14\0Index/Document.iwa", "Numbers workbook"),
        ("y.csv", "timestamp,pool,tvl,apy\n2025-03-01,'a',1,2\n", "value 'a' in quotes that are"),
    ],
)
def test_file_that_only_seems_to_be_a_table(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        inspect_path(write_file(tmp_path, name, content))


@pytest.mark.parametrize("sign", ["\u200b", "\ufeff", "\u00a0", "\u200e", "\u00ad"])
def test_invisible_sign_at_the_end_of_a_cell(tmp_path: Path, sign: str) -> None:
    cells = ",".join(f"{sign}{cell}{sign}" for cell in ("2025-03-01", POOL, "1000.5", "5.25"))
    found = columns(write_file(tmp_path, "h.csv", f"timestamp,pool,tvl,apy\n{cells}\n"))
    assert (found["timestamp"], found["pool_id"]) == ([MIDNIGHT], [POOL])
    assert (found["tvl_usd"], found["apy"]) == (["1000.5"], ["5.25"])


def test_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """Else the columns of one file would be read from another."""
    path = write_file(tmp_path, "h.csv", "timestamp,pool,tvl,apy\n2025-03-01,a,1000,5.25\n")
    file = inspect_path(path)
    write_file(tmp_path, "h.csv", "timestamp,pool,apy,tvl\n2025-03-01,a,5.25,1000\n2\n")
    with pytest.raises(InputError, match="was changed while it was read: load it again"):
        list(file.table.batches())
    half = inspect_path(path).table.batches()
    next(half)
    path.write_text("")
    with pytest.raises(InputError, match="was changed while it was read: load it again"):
        list(half)


def test_sources_that_have_to_be_exported_in_another_way(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is an address: download it"):
        inspect_path(Path("https://example.com/history.csv"))
    raw = "id,pool_id,timestamp,raw_json_data\n1,a,2025-03-01,{}\n"
    with pytest.raises(InputError, match="raw_json_data ->> 'apy' AS apy") as caught:
        inspect_path(write_file(tmp_path, "raw.csv", raw))
    assert len(str(caught.value)) - len(str(tmp_path)) <= 400


@pytest.mark.parametrize(
    "missing",
    [
        *("nan", "NaN", "None", "<NA>", "undefined", "N/A", "-", "\u2014"),
        *("#N/A", "#REF!", "#NAME?", "#DIV/0!", "#NV", "#BEZUG!"),
    ],
)
def test_text_for_a_missing_value_is_no_pool_and_no_symbol(tmp_path: Path, missing: str) -> None:
    history = f"timestamp,pool,tvl,apy\n2025-03-01,{missing},1,2\n"
    assert columns(write_file(tmp_path, "h.csv", history))["pool_id"] == [None]
    pools = f"pool,chain,symbol\na,{missing},{missing}\n"
    found = columns(write_file(tmp_path, "p.csv", pools))
    assert (found["chain"], found["symbol"]) == ([None], [None])
    prices = f"date,symbol,close\n2025-03-01,{missing},2\n"
    assert columns(write_file(tmp_path, "c.csv", prices))["symbol"] == [None]


@pytest.mark.parametrize("form", [POOL.upper(), f"{{{POOL.upper()}}}", POOL])
def test_uuid_is_one_pool_in_every_form(tmp_path: Path, form: str) -> None:
    content = f"timestamp,pool,tvl,apy\n2025-03-01,{form},1,2\n2025-03-01,{{Pool-B}},1,2\n"
    assert columns(write_file(tmp_path, "h.csv", content))["pool_id"] == [POOL, "{Pool-B}"]


def test_column_name_of_several_lines(tmp_path: Path) -> None:
    content = '"Date (UTC)","Average\nGas Price\n(Gwei)",Note\n2025-03-01,1.5,x\n'
    path = write_file(tmp_path, "gas.csv", content.replace("Date (UTC)", "Date"))
    found = columns(path)
    assert (found["gwei"], found["row_number"]) == (["1.5"], [4])
    assert inspect_path(path).columns.names["gwei"] == "Average Gas Price (Gwei)"
