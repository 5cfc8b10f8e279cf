"""Tests files of every format and type, and the messages for unreadable files.

Needs no database.
"""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import json
import os
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import InputError
from data_processing.files import cells
from tests.support.read_files import columns, inspect_path, write_file

NOON = dt.datetime(2025, 3, 1, 12, tzinfo=dt.UTC)
POOL = "747c1d2a-c668-4682-b9f9-296708a3dd90"
HEADER = "timestamp,pool,tvlUsd,apy\n"
NAMED = "timestamp,pool,project,chain,symbol,tvlUsd,apy\n"


def parquet(folder: Path, **columns_of_file: pa.Array) -> Path:
    table = {
        "timestamp": pa.array([NOON]),
        "pool": pa.array(["a"]),
        "tvl_usd": pa.array([1.5]),
        "apy": pa.array([2.5]),
    }
    pq.write_table(pa.table(table | columns_of_file), folder / "history.parquet")
    return folder / "history.parquet"


# formats


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("chart.json", '{"status": "success", "data": [' + '{"apy": 3.5}, ' * 5000, "is JSON"),
        ("rows.jsonl", "\ufeff" + json.dumps([{"apy": 3.5}]), "is JSON"),
        ("error.csv", "<!DOCTYPE html>\n<html><body>403 Forbidden", "is a web page (HTML)"),
        ("error.parquet", "\n <HTML><head>", "is a web page (HTML)"),
        ("error.xml", "<?xml version='1.0'?><Error/>", "is XML"),
        ("history.csv.gz", gzip.compress(HEADER.encode(), mtime=0), "is compressed (gzip)"),
        (
            "history.xlsx",
            b"PK\x03\x04\x14\x00[Content_Types].xml",
            "is an Excel, Calc or Numbers workbook",
        ),
        ("history.zip", b"PK\x03\x04\x14\x00history.csv", "is a ZIP archive"),
        ("history.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", "is an old Excel workbook"),
        ("excel.csv", HEADER.encode("utf-16-le"), "text in UTF-16"),
        ("latin.csv", HEADER.encode() + b"2025-03-01,\xe9,1,2\n", "byte 37 is b'\\xe9'"),
        ("dump.sql", "-- PostgreSQL database dump\nCOPY pools FROM stdin;\n", "is SQL"),
        ("table.yaml", "---\n- pool: a\n  apy: 5\n", "can't tell what"),
        ("key.asc", "-----BEGIN PGP MESSAGE-----\n", "can't tell what"),
        ("data.sqlite", b"SQLite format 3\0", "is an SQLite database"),
        ("frame.feather", b"ARROW1\0\0", "is an Arrow (Feather) file"),
        ("pointer.csv", "version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
        ("values.csv", "2025-03-01,a,1,2\n2025-03-02,a,1,2\n", "begins with values (2025-03-01, a"),
        ("wide.csv", ",".join(f"column {n}" for n in range(9000)), "and 8,988 more; give --kind"),
        ("line.csv", "x" * 900_000, "is not CSV"),
        ("two.csv", "timestamp,pool,tvl,apy,APY\n", "2 columns that may be apy: apy, APY"),
        ("market.csv", "date,close,gas_gwei\n", "give --kind prices or --kind gas"),
    ],
)
def test_file_of_another_format_gets_one_short_message(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        inspect_path(write_file(tmp_path, name, content))
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert len(str(caught.value)) <= 500


def test_rejects_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"is a pipe or a device"):
        inspect_path(tmp_path / "pipe")


@pytest.mark.parametrize(
    "content",
    [
        f"https://www.CryptoDataDownload.com\n{HEADER}2025-03-01,a,1.5,2.5\n",
        f"# exported\n# twice\n{HEADER}2025-03-01,a,1.5,2.5\n",
        "sep=;\n" + f"{HEADER}2025-03-01,a,1.5,2.5\n".replace(",", ";"),
        f"{HEADER}2025-03-01,a,1.5,2.5\n".replace(",", "|"),
        f"{HEADER}2025-03-01,a,1.5,2.5\n,,,\n\n".replace("\n", "\r"),
        "\ufefftimestamp;pool;tvlUsd;apy\n2025-03-01;a;$1,5;2,5\u00a0%\n",
    ],
    ids=["address above", "comments above", "sep=", "bars", "CR and empty lines", "units"],
)
def test_text_as_programs_write_it(tmp_path: Path, content: str) -> None:
    columns_of_file = columns(write_file(tmp_path, "history.csv", content))
    assert (columns_of_file["tvl_usd"], columns_of_file["apy"], columns_of_file["pool_id"]) == (
        ["1.5"],
        ["2.5"],
        ["a"],
    )
    lines = content.replace("\r", "\n").splitlines()
    assert columns_of_file["row_number"] == [
        lines.index(next(x for x in lines if x.startswith("2025"))) + 1
    ]


# points in time


@pytest.mark.parametrize(
    "text",
    [
        "2025-03-01T12:00:00Z",
        "2025-03-01t12:00:00z",
        "2025-03-01 12:00",
        "2025/03/01 12:00:00",
        "20250301T120000Z",
        "2025-03-01 14:00:00 +0200",
        "2025-03-01 12:00:00 UTC",
        "2025-03-01T12:00:00,000",
        "1740830400",
        "1740830400.0",
        "1740830400000",
    ],
)
def test_timestamp_of_whole_day(text: str) -> None:
    assert cells.to_timestamps("it", pa.chunked_array([[text]])).to_pylist() == [NOON]


@pytest.mark.parametrize(
    "text",
    [
        *("2025", "202503", "2025-03", "2025/03", "2025W10", "2025-W10", "2025-W10-6"),
        *("2025-060", "2025060", "2025-3-1", "2025-13-01", "2025-02-30", "3/1/2025", "01.03.2025"),
        *("2025030112", "202503011200", "20250301120000", "45717", "999999999", "1.74E+09"),
        *("2025-03-01 12-PM", "2025-03-01 12:00 EST", "March 1, 2025", "now", "٢٠٢٥-٠٣-٠١"),
    ],
)
def test_text_without_whole_day_is_no_timestamp(text: str) -> None:
    assert cells.to_timestamps("it", pa.chunked_array([[text]])).to_pylist() == [None]


@pytest.mark.parametrize("number", [2025, 202503, 20250301, 2025030112, 20250301120000, 0])
def test_digits_of_a_date_are_no_unix_time(number: int) -> None:
    assert cells.to_timestamps("it", pa.chunked_array([[number]])).to_pylist() == [None]


# kinds


def test_several_rows_of_a_pool_make_a_history(tmp_path: Path) -> None:
    rows = "2025-03-0{},a,aave-v3,Base,USDC,1,5\n"
    history = write_file(tmp_path, "h.csv", NAMED + rows.format(1) + rows.format(2))
    assert inspect_path(history).kind == "history"
    once = write_file(tmp_path, "o.csv", NAMED + rows.format(1))
    with pytest.raises(InputError, match=r"may hold history or pools.* --kind history or --kind"):
        inspect_path(once)
    assert inspect_path(once, kind="pools").kind == "pools"
    assert inspect_path(once, kind="history").kind == "history"
    pool_list = NAMED.replace("apy", "apy,underlyingTokens") + rows.format(1).replace(
        ",5", ",5,0x1"
    )
    assert inspect_path(write_file(tmp_path, "l.csv", pool_list)).kind == "pools"


# numbers


def test_german_numbers_of_every_kind_of_file(tmp_path: Path) -> None:
    prices = "date;symbol;close;volume\n2025-03-01;ETH;2.518,1;1.234\n2025-03-02;ETH;2.217;5\n"
    columns_of_file = columns(write_file(tmp_path, "p.csv", prices))
    assert (columns_of_file["close"], columns_of_file["volume"]) == (
        ["2518.1", "2217"],
        ["1234", "5"],
    )
    gas = "date;value_wei\n2025-03-01;1.118.361.020\n"
    assert columns(write_file(tmp_path, "g.csv", gas))["wei"] == ["1118361020"]
    pools = "pool\tchain\ttvl\na\tBase\t1.234.567,89\nb\tBase\t1.234\n"
    assert columns(write_file(tmp_path, "l.tsv", pools))["tvl"] == ["1234567.89", "1234"]
    text = parquet(tmp_path, tvl_usd=pa.array(["1.234.567,89"]))
    assert columns(text)["tvl_usd"] == ["1234567.89"]


def test_numbers_that_can_be_read_in_two_ways(tmp_path: Path) -> None:
    path = write_file(tmp_path, "g.csv", "date;value_gwei\n2025-03-01;1,118\n")
    with pytest.raises(
        InputError, match=r"1118 with a decimal point and 1.118 with a decimal comma"
    ):
        inspect_path(path)
    assert columns(path, given=",")["gwei"] == ["1.118"]
    assert columns(path, given=".")["gwei"] == ["1118"]


# Parquet


@pytest.mark.parametrize(
    ("column", "array", "text"),
    [
        ("pool", pa.array(["a"]).dictionary_encode(), "a"),
        ("pool", pa.array(["a"], pa.large_string()), "a"),
        ("pool", pa.array([b"a"]), "a"),
        ("pool", pa.array([b"0xab"], pa.binary(4)), "0xab"),
        ("pool", pa.array([747]), "747"),
        (
            "pool",
            pa.ExtensionArray.from_storage(pa.uuid(), pa.array([UUID(POOL).bytes], pa.binary(16))),
            POOL,
        ),
        ("apy", pa.array([Decimal("5.250")], pa.decimal128(38, 18)), "5.25"),
        ("apy", pa.array([Decimal("5.250")], pa.decimal256(60, 3)), "5.25"),
        ("apy", pa.array([Decimal(0)], pa.decimal128(38, 18)), "0"),
        ("apy", pa.array([2**64 - 1], pa.uint64()), "18446744073709551615"),
        ("apy", pa.array([5], pa.int8()), "5"),
        ("apy", pa.array([5.1], pa.float32()), "5.1"),
        ("apy", pa.array([5.25], pa.float32()).cast(pa.float16()), "5.25"),
        ("apy", pa.array([5.25]).dictionary_encode(), "5.25"),
        ("apy", pa.array([b"5.25"]), "5.25"),
        ("apy", pa.nulls(1), None),
    ],
)
def test_every_type_that_is_read(
    tmp_path: Path, column: str, array: pa.Array, text: str | None
) -> None:
    name = "pool_id" if column == "pool" else column
    (value,) = columns(parquet(tmp_path, **{column: array}))[name]
    if column == "apy" and text is not None:
        assert Decimal(value) == Decimal(text)
    else:
        assert value == text


@pytest.mark.parametrize(
    ("column", "array", "kind"),
    [
        ("pool", pa.array([1.5]), "double"),
        ("pool", pa.array([True]), "bool"),
        ("pool", pa.array([{"a": 1}]), "struct<a: int64>"),
        ("pool", pa.array([UUID(POOL).bytes], pa.binary(16)), "fixed_size_binary[16]"),
        ("pool", pa.array([b"\0\0\0\7"]), "binary"),
        (
            "pool",
            pa.ExtensionArray.from_storage(pa.json_(), pa.array([f'"{POOL}"'])),
            "extension<arrow.json>",
        ),
        ("apy", pa.array([True]), "bool"),
        ("apy", pa.array([NOON]), "timestamp[us, tz=UTC]"),
        ("apy", pa.array([[1.0]]), "list<element: double>"),
        ("apy", pa.array([b"\xff\xfe"]), "binary"),
        (
            "apy",
            pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())),
            "extension<arrow.bool8>",
        ),
        ("timestamp", pa.array([dt.time(12)]), "time64[us]"),
        ("timestamp", pa.array([dt.timedelta(1)]), "duration[us]"),
        ("timestamp", pa.array([True]), "bool"),
    ],
)
def test_every_other_type_is_refused_with_column_and_type(
    tmp_path: Path, column: str, array: pa.Array, kind: str
) -> None:
    with pytest.raises(InputError) as caught:
        columns(parquet(tmp_path, **{column: array}))
    assert f"column {column} of " in str(caught.value)
    assert f"has the type {kind}" in str(caught.value)


def test_views_are_text() -> None:
    for kind in (pa.string_view(), pa.binary_view()):
        cells.require_type("it", kind, "text")
        array = pa.array(["5.25"]).cast(kind)
        assert cells.to_texts("it", pa.chunked_array([array])).to_pylist() == ["5.25"]


UUID_BY_DUCKDB = base64.b64decode(
    "UEFSMRUAFSAVICwVAhUAFQYVBgAAdHwdKsZoRoK5+SlnCKPdkBUCGSw1ABgNZHVja2RiX3NjaGVtYRUCABUOFSAVAB"
    "gEcG9vbGzsAAAAFgIZHBkcJgAcFQ4ZFQAZGARwb29sFQAWAhZCFkImCDwYEHR8HSrGaEaCufkpZwij3ZAYEHR8HSrG"
    "aEaCufkpZwij3ZAWACgQdHwdKsZoRoK5+SlnCKPdkBgQdHwdKsZoRoK5+SlnCKPdkBERABkcFQAVABUCAAAAFkIWAi"
    "YIFkIAKChEdWNrREIgdmVyc2lvbiB2Mi4wLjEgKGJ1aWxkIDhkNzgxMTRlOTApGRwcAAAA2gAAAFBBUjE="
)
"""A column `pool` with one UUID, annotated in Parquet and not for Arrow."""


def test_uuid_of_another_writer(tmp_path: Path) -> None:
    path = write_file(tmp_path, "pools.parquet", UUID_BY_DUCKDB)
    assert columns(path, kind="pools")["pool_id"] == [POOL]


def test_int96_far_from_today_is_not_wrapped_around(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    table = pq.read_table(path).set_column(
        0, "timestamp", pa.array([dt.datetime(2400, 1, 1), NOON.replace(tzinfo=None)][:1])
    )
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    assert [moment.year for moment in columns(path)["timestamp"]] == [2400]


def test_text_in_parquet_that_is_not_utf_8_is_damage(tmp_path: Path) -> None:
    broken = pa.array([b"\xff\xfe"]).view(pa.string())
    with pytest.raises(InputError, match=r"is not a whole Parquet file: .*UTF8"):
        columns(parquet(tmp_path, pool=broken))


@pytest.mark.parametrize(
    "tokens",
    [
        pa.array([["0x1", "0x2"]]),
        pa.array([["0x1", "0x2"]], pa.large_list(pa.string())),
        pa.array(["['0x1', '0x2']"]),
        pa.array(['["0x1","0x2"]']),
        pa.array(["{0x1,0x2}"]),
        pa.array(["0x1, 0x2"]),
    ],
    ids=["list", "large list", "as Python writes it", "JSON", "PostgreSQL", "with commas"],
)
def test_tokens_of_a_pool(tmp_path: Path, tokens: pa.Array) -> None:
    path = tmp_path / "pools.parquet"
    pq.write_table(pa.table({"pool": ["a"], "chain": ["Base"], "underlyingTokens": tokens}), path)
    assert columns(path)["underlying_token_addresses"] == ['{"0x1","0x2"}']


@pytest.mark.parametrize(
    "numbers",
    [
        pa.array([1_741_132_800_000_000_000, 0]).cast(pa.timestamp("s")),
        pa.array([2**62, 0]).cast(pa.timestamp("ms", tz="UTC")),
        pa.array([2**63 - 1, 0]).cast(pa.timestamp("s")),
        pa.array([2**31 - 1, 0], pa.int32()).cast(pa.date32()),
        pa.array([2**62, 0]).view(pa.date64()),
    ],
    ids=["nanoseconds as s", "ms", "largest", "date32", "date64"],
)
def test_timestamp_beyond_microseconds_is_null_and_kept_as_text(numbers: pa.Array) -> None:
    """Arrow wraps the first three around to another year, and rejects the whole column of dates."""
    unix_zero = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert cells.to_timestamps("it", pa.chunked_array([numbers])).to_pylist() == [None, unix_zero]


def test_too_long_path_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"can't be read: File name too long"):
        inspect_path(tmp_path / ("x" * 5000))
