"""One column of a file, of whatever Arrow type, as what the tables need: an instant in UTC, or the
value's text.

In: Arrow columns as a reader made them. Out: `timestamp[us, UTC]` (null where the cell is no
instant) or text (null where it is missing). Nothing is rounded but fractions of a microsecond; a
NaN, an infinity and a text that is no number stay what they are.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")

UNIX_UNITS = ((1e11, 1_000_000), (1e14, 1_000), (1e17, 1))
"""Unix time by magnitude, as (below, microseconds in one): seconds (until the year 5138),
milliseconds, microseconds; the rest are nanoseconds.
"""

EARLIEST = pa.scalar(datetime(1, 1, 2, tzinfo=UTC), UTC_MICROSECONDS)
LATEST = pa.scalar(datetime(9999, 12, 31, tzinfo=UTC), UTC_MICROSECONDS)

MIN_UNIX = 1e8
"""Less than this is no point in time that a pool or a price can have (1973), and may be a year or a
date without signs.
"""


def instants(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Points in time: timestamps of any unit and zone (naive ones are UTC), dates, unix seconds to
    nanoseconds, ISO 8601 text.

    Null where a cell is none, or lies outside the years 1 to 9999 that ISO 8601 writes.
    """
    found = _parsed(column, column.type)
    in_range = pc.and_(pc.greater_equal(found, EARLIEST), pc.less(found, LATEST))
    return pc.if_else(in_range, found, pa.scalar(None, UTC_MICROSECONDS))


def _parsed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(UTC_MICROSECONDS)
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("us")).cast(UTC_MICROSECONDS)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _from_unix(column.cast(pa.float64(), safe=False).to_pandas())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_text(column.to_pandas())
    return pa.chunked_array([pa.nulls(len(column), UTC_MICROSECONDS)])


def texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The cells as text; a number as the shortest text that reads back as it. A NUL, which
    PostgreSQL has not, becomes the replacement character.
    """
    if pa.types.is_floating(column.type):
        # Arrow writes 0.00001 as 1e-05 and NaN as nan: numbers again on reading
        return column.cast(pa.string())
    if pa.types.is_nested(column.type):
        column = pa.chunked_array(
            [
                pa.array(
                    [None if cell is None else str(cell) for cell in column.to_pylist()],
                    pa.string(),
                )
            ]
        )
    return pc.replace_substring(column.cast(pa.string()), "\0", "\ufffd")


def text_lists(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A list column as PostgreSQL array literals, `{"a","b"}`; null for a cell that is no list."""
    cells = (
        column.to_pylist()
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        else [None] * len(column)
    )
    return pa.chunked_array(
        [pa.array([None if cell is None else array_literal(cell) for cell in cells], pa.string())]
    )


def array_literal(values: list[object]) -> str:
    """PostgreSQL manual, 8.15.2: elements in double quotes, backslash and quote escaped."""
    escaped = (
        str(value).replace("\0", "\ufffd").replace("\\", "\\\\").replace('"', '\\"')
        for value in values
        if value is not None
    )
    return "{" + ",".join(f'"{value}"' for value in escaped) + "}"


def _from_text(column: pd.Series[Any]) -> pa.ChunkedArray:
    numbers = pd.to_numeric(
        column.where(column.str.fullmatch(r"\s*\d{9,19}(\.\d*)?\s*", na=False)), errors="coerce"
    )
    text = column.where(numbers.isna()).str.strip().str.replace(r"\s*UTC$", "Z", regex=True)
    # pandas takes "now" and "today" for instants too
    text = text.where(text.str.match(r"\d{4}", na=False))
    parsed = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    from_unix = _from_unix(numbers.astype("float64"))
    return pc.coalesce(
        from_unix, pa.chunked_array([pa.array(parsed.dt.as_unit("us"), UTC_MICROSECONDS)])
    )


def _from_unix(column: pd.Series[Any]) -> pa.ChunkedArray:
    usable = column.where((column >= MIN_UNIX) & (column < 1e19))
    microseconds = usable / 1_000
    for below, factor in reversed(UNIX_UNITS):
        microseconds = microseconds.where(usable >= below, usable * factor)
    whole = pa.array(microseconds.round().astype("Int64"), pa.int64())
    return pa.chunked_array([whole.cast(UTC_MICROSECONDS)])
