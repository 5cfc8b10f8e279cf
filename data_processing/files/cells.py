"""One column of a file, of whatever Arrow type, as what the tables need: an instant in UTC, the
text of a value or of a number, or a list of texts.

In: Arrow columns as a reader made them. Out: `timestamp[us, UTC]` (null where the cell is no
instant) or text (null where it is missing). Nothing is rounded but fractions of a microsecond; a
NaN, an infinity and a text that is no number stay what they are.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from common.errors import InputError
from data_processing.files.instants import (
    UTC_MICROSECONDS,
    instants_of_text,
    instants_of_unix,
)

EARLIEST = pa.scalar(datetime(1, 1, 2, tzinfo=UTC), UTC_MICROSECONDS)
LATEST = pa.scalar(datetime(9999, 12, 31, tzinfo=UTC), UTC_MICROSECONDS)

MICROSECONDS_OF = {
    "s": 1_000_000,
    "ms": 1_000,
    "date32[day]": 86_400_000_000,
    "date64[ms]": 1_000,
}
"""One of the unit, for the units that are longer."""

Role = Literal["instant", "number", "text", "list"]

READABLE_AS: dict[Role, str] = {
    "instant": "a point in time: write a timestamp, a date, unix time or ISO 8601 text",
    "number": "a number: write a number or text",
    "text": "text: write text or whole numbers",
    "list": "a list of texts: write a list of text",
}

ListTypes = (pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType)


def require_type(place: str, kind: pa.DataType, role: Role) -> None:
    """Raises: InputError where no cell of the Arrow type can be read in the role; `place` names the
    column and its file.
    """
    plain = _plain_type(kind)
    is_text = _is_text(plain) or _is_bytes(plain) or pa.types.is_null(plain)
    is_number = pa.types.is_integer(plain) or pa.types.is_floating(plain)
    is_number |= pa.types.is_decimal(plain)
    is_moment = pa.types.is_timestamp(plain) or pa.types.is_date(plain)
    is_list = isinstance(plain, ListTypes) and _is_text(_plain_type(plain.value_type))
    allowed = {
        "instant": is_text or is_number or is_moment,
        "number": is_text or is_number,
        "text": is_text or pa.types.is_integer(plain),
        "list": is_text or is_list,
    }[role]
    if not allowed:
        raise InputError(
            f"{place} has the type {str(kind)[:60]}, which can't be read as {READABLE_AS[role]}"
        )


def holds_text(kind: pa.DataType) -> bool:
    """Whether numbers of this type are written as text, and so with a decimal sign."""
    plain = _plain_type(kind)
    return _is_text(plain) or _is_bytes(plain)


def instants(place: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Points in time: timestamps of any unit and zone (naive ones are UTC), dates, unix seconds to
    nanoseconds, ISO 8601 text.

    Null where a cell is none, or lies outside the years 1 to 9999 that ISO 8601 writes.
    """
    column = _plain(place, column)
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = _within_microseconds(column)
        found = column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(UTC_MICROSECONDS)
    elif pa.types.is_date(kind):
        found = _within_microseconds(column).cast(pa.timestamp("us")).cast(UTC_MICROSECONDS)
    elif pa.types.is_null(kind):
        found = column.cast(UTC_MICROSECONDS)
    elif _is_text(kind):
        found = instants_of_text(column.to_pandas())
    else:
        found = instants_of_unix(column.cast(pa.float64(), safe=False).to_pandas())
    in_range = pc.and_(pc.greater_equal(found, EARLIEST), pc.less(found, LATEST))
    return pc.if_else(in_range, found, pa.scalar(None, UTC_MICROSECONDS))


def texts(place: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The cells as trimmed text, null where that is empty; a number as the shortest text that reads
    back as it. A NUL, which PostgreSQL has not, becomes the replacement character.
    """
    column = _plain(place, column)
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    # Arrow writes 0.00001 as 1e-05 and NaN as nan: numbers again on reading
    found = pc.replace_substring(column.cast(pa.string()), "\0", "\ufffd")
    found = pc.utf8_trim_whitespace(found)
    return pc.if_else(pc.equal(found, ""), pa.scalar(None, pa.string()), found)


def text_lists(place: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of lists as PostgreSQL array literals, `{"a","b"}`. A text is a list as JSON, Python
    or PostgreSQL write it, or one with commas.
    """
    column = column if isinstance(_plain_type(column.type), ListTypes) else texts(place, column)
    cells = [_items(cell) for cell in column.to_pylist()]
    literals = [None if cell is None else array_literal(cell) for cell in cells]
    return pa.chunked_array([pa.array(literals, pa.string())])


def array_literal(values: list[object]) -> str:
    """PostgreSQL manual, 8.15.2: elements in double quotes, backslash and quote escaped."""
    escaped = (
        str(value).replace("\0", "\ufffd").replace("\\", "\\\\").replace('"', '\\"')
        for value in values
        if value is not None
    )
    return "{" + ",".join(f'"{value}"' for value in escaped) + "}"


def _items(cell: str | list[object] | None) -> list[object] | None:
    if not isinstance(cell, str):
        return None if cell is None else list(cell)
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list):
        return found
    inside = re.sub(r"^[\[{(]|[\]})]$", "", cell)
    items = (item.strip(" '\"") for item in inside.split(","))
    return [item for item in items if item and item != "None"]


def _within_microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dates and timestamps without those that 64 bits of microseconds can't hold: a cast refuses
    the whole column for a date, and wraps a timestamp around to a wrong year.
    """
    kind = column.type
    unit = kind.unit if pa.types.is_timestamp(kind) else str(kind)
    if unit not in MICROSECONDS_OF:
        return column
    limit = (2**63 - 1) // MICROSECONDS_OF[unit]
    numbers = column.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(pa.int64())
    fits = pc.and_(pc.greater(numbers, -limit), pc.less(numbers, limit))
    return pc.if_else(fits, column, pa.scalar(None, kind))


def _plain(place: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without dictionary and extension; bytes as the UTF-8 text they are.

    Raises: InputError where bytes are no text.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(place, column.cast(kind.value_type))
    if isinstance(kind, pa.BaseExtensionType):
        chunks = [chunk.storage for chunk in column.chunks]
        return _plain(place, pa.chunked_array(chunks, kind.storage_type))
    if _is_bytes(kind):
        return _decoded(place, column)
    return column.cast(pa.string()) if _is_text(kind) else column


def _decoded(place: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    error = InputError(
        f"{place} has the type {column.type}, and its bytes are no text in UTF-8: write it as text"
    )
    try:
        found = column.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        raise error from None
    # a number or a hash can be valid UTF-8 by chance, and is then full of control characters
    if pc.any(pc.match_substring_regex(found, r"[\x00-\x08\x0e-\x1f]")).as_py():
        raise error
    return found


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if isinstance(kind, pa.JsonType):
        return _plain_type(kind.storage_type)
    return kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )
