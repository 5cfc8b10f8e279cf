"""Changes of a good file before its load: hostile cells, changed columns and rows, changed bytes,
other types of Parquet.

In: a random generator and a good file. Out: a changed file. `may_refuse` means that the whole file
may be refused for the change; otherwise the change stays in its row.
"""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import random
import re
import zipfile
from collections.abc import Callable
from decimal import Decimal
from io import BytesIO
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.tables import Model, Style

Cells = list[list[str]]

HOSTILE = (
    *(
        "",
        " ",
        "\t",
        "\0",
        "\ud800",
        "\ufeff",
        "\u202e",
        "\x1b[31mred",
        "\u2028",
        "a\nb",
        "\r",
        "½",
    ),
    *("x" * 5_000, "x" * 200_000, "9" * 1_500, "9" * 140_000, "1" + "0" * 400, "٢٠٢٥", "١٢٣", "12"),
    *("nan", "NaN", "-nan", "inf", "-Infinity", "1e400", "-1e400", "1e999", "1e9999999", "1e-400"),
    *(
        "0001-01-01",
        "9999-12-31T23:59:59Z",
        "10000-01-01",
        "-0001-01-01",
        "2025-02-30",
        "1900-01-01",
    ),
    *(
        "2025-03-01T24:00:00Z",
        "2025-03-01T25:00:00Z",
        "2025-03-01T23:59:60Z",
        "2025-03-01T00:00-99",
    ),
    *(
        "2025-03-01T00:00:00+24:00",
        "2025-03-01T00:00:00.1234567890123Z",
        "2025",
        "202503",
        "2025W10",
    ),
    *("0000-01-01", "99999999999999999999", "-1", "0", "-0", "1740787200", "1740787200000000000"),
    *("999999999999999999999999999.9", "1.234,56", "1,234.56", "1.234", "1,234", "1,2", "1.2"),
    *("5 %", "%", "$", "$%", "€ 5", "1.2M", "(5)", "1_000", "0x1F", "5.", ".5", "+5", "--5", "e5"),
    *("=cmd|' /C calc'!A0", "'; DROP TABLE pools;--", '{"a": 1}', "[1]", "{", '"', '""', "\\N"),
    *(
        "\\.",
        "\\",
        "NULL",
        "None",
        "NA",
        "#N/A",
        "true",
        "-",
        ".",
        ",",
        "∞",
        "１２",
        "null",
        "COPY",
    ),
)

DECIDES_A_SIGN = re.compile(r"[0-9][.,]|[.,][0-9]")

CELL_LIMIT = 131_072
"""Letters of one cell that Python's csv takes."""


def keeps_its_file(value: str) -> bool:
    """Return whether the cell can have only its own row refused.

    A NUL near the beginning or half a surrogate pair makes the file another format, and a decimal
    sign can contradict its column.
    """
    return not (
        "\0" in value
        or "\ud800" in value
        or len(value) >= CELL_LIMIT
        or DECIDES_A_SIGN.search(value)
    )


def hostile_cells(rng: random.Random, rows: Cells) -> bool:
    """Replace one to three cells; returns `may_refuse`."""
    may_refuse = False
    for _ in range(rng.randint(1, 3)):
        row = rows[rng.randrange(1, len(rows))]
        value = rng.choice(HOSTILE)
        row[rng.randrange(len(row))] = value
        may_refuse |= not keeps_its_file(value)
    return may_refuse


def repeated_rows(rng: random.Random, rows: Cells) -> bool:
    """Repeat rows, shuffle them, or repeat the header."""
    for _ in range(rng.randint(1, 3)):
        rows.insert(rng.randrange(1, len(rows) + 1), list(rng.choice(rows)))
    body = rows[1:]
    rng.shuffle(body)
    rows[1:] = body
    return False


def ragged_rows(rng: random.Random, rows: Cells) -> bool:
    """Add lines with a value too many or too few, or a footer."""
    for _ in range(rng.randint(1, 3)):
        row = rows[rng.randrange(1, len(rows))]
        row.append(rng.choice(("", "5", "note"))) if rng.random() < 0.5 else row.pop()
    if rng.random() < 0.5:
        rows.append([rng.choice(("Total rows: 12", "# end", "(12 rows)", "\x1a"))])
    return False


def changed_columns(rng: random.Random, rows: Cells) -> bool:
    """Drop, rename, repeat or add a column, or exchange its name with another's."""
    at, other = rng.randrange(len(rows[0])), rng.randrange(len(rows[0]))
    change = rng.choice(("drop", "rename", "repeat", "add", "swap", "upper"))
    for row in rows:
        if change == "drop":
            del row[at]
        elif change == "repeat":
            row.append(row[at])
        elif change == "add":
            row.append("more")
    header = rows[0]
    if change == "rename":
        header[at] = rng.choice((*HOSTILE, "apy", "pool", "close", "unix", "day", "wei", "gwei"))
    elif change == "swap":
        header[at], header[other] = header[other], header[at]
    elif change == "upper":
        header[at] = f" {header[at].upper()} "
    return True


CELL_MUTATIONS: tuple[Callable[[random.Random, Cells], bool], ...] = (
    hostile_cells,
    hostile_cells,
    repeated_rows,
    ragged_rows,
    changed_columns,
)


def changed_bytes(rng: random.Random, content: bytes) -> bytes:
    """Flip, remove or insert one to four bytes, repeat a piece, or cut off the end."""
    result = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(result) + 1)
        length = rng.choice((1, 1, 2, 16, 200))
        change = rng.choice(("flip", "delete", "insert", "repeat", "cut"))
        if change == "flip" and at < len(result):
            result[at] ^= 1 << rng.randrange(8)
        elif change == "delete":
            del result[at : at + length]
        elif change == "insert":
            result[at:at] = rng.choice((b"\0", b'"', b",", b"\n", b"\xff", rng.randbytes(length)))
        elif change == "repeat":
            result[at:at] = result[at : at + length]
        elif rng.random() < 0.3:
            del result[at:]
    return bytes(result)


def wrapped(rng: random.Random, content: bytes, text: str) -> bytes:
    """Put the file into another encoding or a container."""
    zipped = BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("data.csv", content)
    return rng.choice(
        (
            *(gzip.compress(content, mtime=0), bz2.compress(content), zipped.getvalue()),
            *(text.encode(name, "replace") for name in ("utf-16", "utf-16-be", "utf-32")),
            *(
                text.encode("cp1252", "replace"),
                text.encode("utf-7", "replace"),
                text.encode("shift-jis", "replace"),
            ),
            *(
                b"\xef\xbb\xbf" + content,
                b"\n\n" + content,
                b"\x1a",
                b"PAR1",
                b"<html>",
                b"{}",
                b" ",
            ),
            *(content + content, content.replace(b"\n", b"\n\n"), content.rstrip(), b"\0" * 5_000),
        )
    )


# Parquet


def arrow_column(rng: random.Random, table: Model, name: str) -> pa.Array:
    """Return a column of the model in one of the types that programs write."""
    values = [row[name] for row in table.rows]
    role = table.role(name)
    if role == "instant":
        return _instants(rng, values)
    if role == "number":
        return _numbers(rng, name, values)
    if role == "tokens":
        return pa.array(values, rng.choice((pa.list_(pa.string()), pa.large_list(pa.string()))))
    texts = pa.array(values, pa.string())
    kinds = [
        texts,
        texts.cast(pa.large_string()),
        texts.cast(pa.binary()),
        texts.dictionary_encode(),
    ]
    if name == "pool_id":
        bare = pa.array([UUID(value).bytes for value in values], pa.binary(16))
        kinds.append(pa.ExtensionArray.from_storage(pa.uuid(), bare))
    return rng.choice(kinds)


def _instants(rng: random.Random, values: list[dt.datetime]) -> pa.Array:
    moments = pa.array(values, pa.timestamp("us", tz="UTC"))
    seconds = [int(value.timestamp()) for value in values]
    kinds = [
        *(moments.cast(pa.timestamp(unit, tz="UTC")) for unit in ("s", "ms", "us", "ns")),
        moments.cast(pa.timestamp("us", tz="Europe/Berlin")),
        moments.cast(pa.timestamp("ms")),
        pa.array(seconds, pa.int64()),
        pa.array([1000 * value for value in seconds], pa.int64()),
        pa.array(seconds, pa.float64()),
        pa.array([Decimal(value) for value in seconds], pa.decimal128(20, 3)),
        pa.array([value.isoformat() for value in values]).dictionary_encode(),
    ]
    if all(value.hour == value.minute == 0 for value in values):
        kinds.append(pa.array([value.date() for value in values], pa.date32()))
    return rng.choice(kinds)


def _numbers(rng: random.Random, name: str, values: list[Decimal | None]) -> pa.Array:
    texts = [None if value is None else str(value) for value in values]
    return rng.choice(
        (
            pa.array([None if value is None else float(value) for value in values], pa.float64()),
            pa.array(values, pa.decimal128(38, 6)),
            pa.array(values, pa.decimal256(60, 10)),
            pa.array(texts, pa.large_string()),
            pa.array(texts).dictionary_encode(),
            pa.array(texts).cast(pa.binary()),
        )
    )


HOSTILE_BY_TYPE: tuple[tuple[Callable[[pa.DataType], bool], tuple[Any, ...]], ...] = (
    (pa.types.is_floating, (None, float("nan"), float("inf"), -1e308, 5e-324, -0.0)),
    (pa.types.is_integer, (None, -(2**63), 2**63 - 1, 0, -1)),
    (pa.types.is_decimal, (None, Decimal("-99999999999999"), Decimal(0))),
    (
        pa.types.is_timestamp,
        (None, 2**53, *(dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (1678, 1970, 2261))),
    ),
    (pa.types.is_date, (None, dt.date(1, 1, 1), dt.date(9999, 12, 31), 2**31 - 1)),
    (pa.types.is_string, (None, *(value for value in HOSTILE if "\ud800" not in value))),
    (pa.types.is_large_string, (None, *(value for value in HOSTILE if "\ud800" not in value))),
    (pa.types.is_binary, (None, b"", b"\0", b"\xff\xfe", b"NaN", b"5,25")),
)


def hostile_arrow_cell(rng: random.Random, array: pa.Array, at: int) -> tuple[pa.Array, bool]:
    """Replace a cell of the column.

    Returns `may_refuse`, which is true for bytes that are no text and for numbers with the other
    decimal sign.
    """
    for is_kind, values in HOSTILE_BY_TYPE:
        if is_kind(array.type):
            value = rng.choice(values)
            whole = pa.int32() if pa.types.is_date32(array.type) else pa.int64()
            kinds = {str: pa.string(), int: whole}
            cell = pa.array([value], kinds.get(type(value)))
            new = pa.array([value], array.type) if value is None else cell.cast(array.type)
            result = pa.concat_arrays([array[:at], new, array[at + 1 :]])
            if isinstance(value, bytes):
                return result, True
            return result, isinstance(value, str) and bool(DECIDES_A_SIGN.search(value))
    return array, False


def other_column(rng: random.Random, count: int) -> pa.Array:
    """Return a column of a type that may be neither number, text nor instant."""
    return rng.choice(
        (
            pa.array([True] * count),
            pa.array([dt.time(12)] * count),
            pa.array([[1.0]] * count),
            pa.array([{"a": 1}] * count),
            pa.array([b"\xff"] * count),
            pa.nulls(count),
            pa.nulls(count, pa.float32()),
            pa.array([dt.timedelta(1)] * count),
            pa.array([1] * count, pa.uint8()),
            pa.array([b"\0" * 16] * count, pa.binary(16)),
        )
    )


def parquet_bytes(rng: random.Random, table: pa.Table) -> bytes:
    out = BytesIO()
    moments = [field.type for field in table.schema if pa.types.is_timestamp(field.type)]
    pq.write_table(
        table,
        out,
        compression=rng.choice(("none", "snappy", "gzip", "brotli", "zstd", "lz4")),
        row_group_size=rng.choice((3, 1000)),
        use_dictionary=rng.random() < 0.5,
        data_page_version=rng.choice(("1.0", "2.0")),
        version=rng.choice(("1.0", "2.4", "2.6")),
        write_page_checksum=rng.random() < 0.3,
        # without it pyarrow 20 writes a UUID as bare bytes, which look like a hash
        store_schema=any(
            pa.types.is_fixed_size_binary(kind) or isinstance(kind, pa.UuidType)
            for kind in table.schema.types
        )
        or rng.random() < 0.6,
        use_deprecated_int96_timestamps=bool(moments) and rng.random() < 0.3,
    )
    return out.getvalue()


def text_of(style: Style, rows: Cells) -> str:
    return style.line_end.join(style.delimiter.join(row) for row in rows)
