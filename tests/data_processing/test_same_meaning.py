"""Files with several columns that may have the same meaning: one of them is used if they agree in
every row, and otherwise the file is rejected. Needs no database.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import InputError
from data_processing.files import delimited_text
from tests.support.read_files import columns, inspect_path, write_file

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
MIDNIGHT = datetime(2025, 3, 1, tzinfo=UTC)


def history(folder: Path, names: str, *lines: str) -> Path:
    """Write a history with these columns of time, and others."""
    rows = "".join(f"{line},a,1,2\n" for line in lines)
    return write_file(folder, "history.csv", f"{names},pool,tvl,apy\n{rows}")


@pytest.mark.parametrize(
    ("names", "line", "moment"),
    [
        ("timestamp,date", "2025-03-01T12:00:00Z,2025-03-01", NOON),
        ("date,timestamp", "2025-03-01,2025-03-01T12:00:00Z", NOON),
        # the exact moment, though `timestamp` comes first in the list of names
        ("timestamp,date", "2025-03-01,2025-03-01T12:00:00Z", NOON),
        ("timestamp,date", "2025-03-01T14:00:00+02:00,2025-03-01", NOON),
        ("timestamp,datetime", "1740830400,2025-03-01T12:00:00.25Z", NOON),
        ("date,time", "2025-03-01,2025-03-01T12:00:00Z", NOON),
        ("timestamp,date", "2025-03-01,2025-03-01", MIDNIGHT),
        # columns without a usable value do not count
        ("timestamp,date", ",2025-03-01T12:00:00Z", NOON),
        ("timestamp,date", "3/1/2025,2025-03-01T12:00:00Z", NOON),
        ("timestamp,date", "2025-03-01T12:00:00Z,Saturday", NOON),
        ("timestamp,time", "2025-03-01T12:00:00Z,12:00", NOON),
    ],
)
def test_points_in_time_that_agree_are_the_exact_one(
    tmp_path: Path, names: str, line: str, moment: datetime
) -> None:
    assert columns(history(tmp_path, names, line))["timestamp"] == [moment]


@pytest.mark.parametrize(
    ("names", "line", "cells"),
    [
        (
            "timestamp,date",
            "2025-03-01T12:00:00Z,2025-03-02",
            "'2025-03-01T12:00:00Z' .*2025-03-02",
        ),
        (
            "date,timestamp",
            "2025-03-02,2025-03-01T12:00:00Z",
            "'2025-03-01T12:00:00Z' .*2025-03-02",
        ),
        # another day in UTC
        ("timestamp,date", "2025-03-01T01:00:00+02:00,2025-03-01", "2025-03-01T01:00:00.02:00"),
        ("timestamp,date", ",2025-03-01", "no value in one and '2025-03-01'"),
        ("timestamp,date", "2025-03-01,n/a", "'2025-03-01' in one and 'n/a'"),
        ("timestamp,datetime", "2025-03-01T12:00Z,2025-03-01T14:00Z", "12:00Z.*14:00Z"),
    ],
)
def test_points_in_time_that_differ_are_rejected(
    tmp_path: Path, names: str, line: str, cells: str
) -> None:
    other = next(name for name in names.split(",") if name != "timestamp")
    good = ",".join("2025-03-01T12:00:00Z" for _ in names.split(","))
    message = rf"columns timestamp and {other}, and either may be timestamp; row 3 has .*{cells}"
    with pytest.raises(InputError, match=message) as caught:
        inspect_path(history(tmp_path, names, good, line))
    assert re.search(r"Remove the column that is not timestamp, or rename it$", str(caught.value))


def test_the_days_of_every_row_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited_text, "BATCH_ROWS", 100)
    lines = ["2025-03-01T12:00:00Z,2025-03-01"] * 500
    assert columns(history(tmp_path, "timestamp,date", *lines))["timestamp"] == [NOON] * 500
    lines[450] = "2025-03-01T12:00:00Z,2025-03-03"
    with pytest.raises(InputError, match="row 452 has"):
        inspect_path(history(tmp_path, "timestamp,date", *lines))


def test_day_and_time_of_day_are_rejected_as_before(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the day in column date and the time of day in column"):
        inspect_path(history(tmp_path, "date,time", "2025-03-01,12:00", "2025-03-02,13:00"))


def test_typed_columns_of_parquet(tmp_path: Path) -> None:
    table: dict[str, Any] = {
        "date": pa.array([date(2025, 3, 1)]),
        "timestamp": pa.array([NOON]),
        # no point in time: it does not count
        "time": pa.array([time(12)]),
        "pool": pa.array(["a"]),
        "pool_id": pa.array(["a"]).dictionary_encode(),
        "tvl": pa.array([1.5]),
        "tvl_usd": pa.array([Decimal("1.50")]),
        "apy": pa.array([2.5]),
    }
    path = tmp_path / "history.parquet"
    pq.write_table(pa.table(table), path)
    loaded = columns(path)
    assert (loaded["timestamp"], loaded["pool_id"], loaded["tvl_usd"]) == ([NOON], ["a"], ["1.50"])
    pq.write_table(pa.table(table | {"date": pa.array([date(2025, 3, 2)])}), path)
    with pytest.raises(InputError, match=r"row 1 has '2025-03-01.*' in one and '2025-03-02'"):
        inspect_path(path)


@pytest.mark.parametrize(
    ("lines", "name", "loaded"),
    [
        ("timestamp,pool,tvl,TVL USD,apy\n2025-03-01,a,1.5,1.50,2\n", "tvl_usd", ["1.50"]),
        ("timestamp,pool,tvl,tvlUsd,apy\n2025-03-01,a,1.5,,2\n", "tvl_usd", ["1.5"]),
        ("timestamp,pool,pool_id,tvl,apy\n2025-03-01,a,a,1,2\n", "pool_id", ["a"]),
        ("date,gas_gwei,avg_gas_gwei\n2025-03-01,5,5.0\n", "gwei", ["5"]),
        ("date,value_gwei,value_wei\n2025-03-01,1.5,1500000000\n", "gwei", ["1.5"]),
        ("pool,chain,project,protocol\na,Base,curve,curve\n", "protocol", ["curve"]),
        # a slug is used in place of a missing protocol only
        ("pool,chain,protocol,protocol_slug\na,Base,Aave V3,aave-v3\n", "protocol", ["Aave V3"]),
        ("pool,chain,protocol_slug\na,Base,aave-v3\n", "protocol", ["aave-v3"]),
    ],
)
def test_other_columns_that_agree(tmp_path: Path, lines: str, name: str, loaded: list[str]) -> None:
    assert columns(write_file(tmp_path, "file.csv", lines))[name] == loaded


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "timestamp,pool,tvl,tvl_usd,apy\n2025-03-01,a,1,1,2\n2025-03-02,a,1,1.1,2\n",
            "columns tvl_usd and tvl, .* row 3 has '1.1' in one and '1'",
        ),
        (
            "timestamp,pool,tvl,tvl_usd,apy\n2025-03-01,a,1,,2\n2025-03-02,a,1,1,2\n",
            "columns tvl_usd and tvl, .* row 2 has no value in one and '1'",
        ),
        (
            "timestamp,pool,pool_id,tvl,apy\n2025-03-01,Aave USDC,747c,1,2\n",
            "columns pool_id and pool, .* row 2 has '747c' in one and 'Aave USDC'",
        ),
        (
            "date,avg_gas_gwei,median_gas_gwei\n2025-03-01,5,4\n",
            "columns avg_gas_gwei and median_gas_gwei, and either may be gwei; row 2",
        ),
        (
            "date,value_gwei,value_wei\n2025-03-01,1.5,1500000000\n2025-03-02,1.5,1.5\n",
            "columns value_gwei and value_wei, and either may be gas; row 3",
        ),
        (
            "date,timestamp,symbol,close\n2025-03-01,2025-03-02,ETH,1\n",
            "columns timestamp and date, and either may be timestamp; row 2",
        ),
        (
            "pool,chain,project,protocol\na,Base,curve,aave\n",
            "columns protocol and project, and either may be protocol; row 2",
        ),
    ],
)
def test_other_columns_that_differ_are_rejected(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        inspect_path(write_file(tmp_path, "file.csv", lines))
    assert len(str(caught.value)) <= 500


def test_addresses_of_tokens_count_before_their_symbols(tmp_path: Path) -> None:
    """As in an export of the owner's table `pools`."""
    lines = (
        "pool_id,chain,underlying_tokens,underlying_token_addresses\n"
        'a,Base,"[""USDC""]","[""0x1""]"\n'
    )
    path = write_file(tmp_path, "pools.csv", lines)
    assert columns(path)["underlying_token_addresses"] == ['{"0x1"}']
    named = write_file(tmp_path, "named.csv", 'pool,chain,underlyingTokens\na,Base,"[""0x2""]"\n')
    assert columns(named)["underlying_token_addresses"] == ['{"0x2"}']
