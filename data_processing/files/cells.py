"""Converts one column of a file, of any Arrow type, to the types that the tables need.

Returns `timestamp[us, UTC]` (null if a cell is no point in time) or text (null if a cell is
missing). Rounds nothing but fractions of a microsecond. A NaN, an infinity and a text that is no
number stay as they are.
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
    timestamps_from_text,
    timestamps_from_unix,
    timestamps_from_whole_unix,
)

EARLIEST = pa.scalar(datetime(1, 1, 2, tzinfo=UTC), UTC_MICROSECONDS)
LATEST = pa.scalar(datetime(9999, 12, 31, tzinfo=UTC), UTC_MICROSECONDS)

INVISIBLE = "".join(
    sign
    for sign in map(chr, range(0x10000))
    if sign.isspace() or sign in "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
)
"""Blanks, soft hyphens, zero-width signs, marks of direction and byte-order marks."""

MICROSECONDS_OF = {
    "s": 1_000_000,
    "ms": 1_000,
    "date32[day]": 86_400_000_000,
    "date64[ms]": 1_000,
}
"""Microseconds of one unit, for the units that are longer."""

Role = Literal["instant", "number", "text", "list"]

READABLE_AS: dict[Role, str] = {
    "instant": (
        "a point in time: write a timestamp, a date, unix time (whole numbers or 64-bit floats) or"
        " ISO 8601 text"
    ),
    "number": "a number: write a number or text",
    "text": "text: write text or whole numbers",
    "list": "a list of texts: write a list of text",
}

ListTypes = (pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType)


def require_type(place: str, kind: pa.DataType, role: Role) -> None:
    """Require that cells of an Arrow type can be read in a role.

    Args:
        place: names the column and its file, for the message.
        kind: Arrow type of the column.
        role: what the column is used for.

    Raises:
        InputError: no cell of the type can be read in the role.
    """
    plain = _plain_type(kind)
    # a column without any value has the type null
    is_text = _is_text(plain) or _is_bytes(plain) or pa.types.is_null(plain)
    is_number = pa.types.is_integer(plain) or pa.types.is_floating(plain)
    is_number |= pa.types.is_decimal(plain)
    # of today's unix time, 32 bits keep two minutes and 16 bits nothing
    is_exact = is_number and not (pa.types.is_float32(plain) or pa.types.is_float16(plain))
    is_moment = pa.types.is_timestamp(plain) or pa.types.is_date(plain)
    is_list = isinstance(plain, ListTypes) and _is_text(_plain_type(plain.value_type))
    allowed = {
        "instant": is_text or is_exact or is_moment,
        "number": is_text or is_number,
        "text": (is_text and not isinstance(kind, pa.JsonType)) or pa.types.is_integer(plain),
        "list": is_text or is_list,
    }[role]
    if not allowed:
        raise InputError(
            f"{place} has the type {str(kind)[:60]}, which can't be read as {READABLE_AS[role]}"
        )


def holds_text(kind: pa.DataType) -> bool:
    """Return whether numbers of this type are written as text, and so with a decimal sign."""
    plain = _plain_type(kind)
    return _is_text(plain) or _is_bytes(plain)


def to_timestamps(place: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column to points in time.

    Args:
        place: names the column and its file, for messages.
        column: timestamps of any unit and zone (naive ones are UTC), dates, unix time in seconds to
            nanoseconds, or ISO 8601 text.

    Returns:
        `timestamp[us, UTC]`, null if a cell is no point in time or outside the years 1 to 9999
        that ISO 8601 writes.

    Raises:
        InputError: bytes are no text.
    """
    column = _plain(place, column)
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = _within_microseconds(column)
        # safe=False cuts fractions of a microsecond instead of raising an error
        times = column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(UTC_MICROSECONDS)
    elif pa.types.is_date(kind):
        times = _within_microseconds(column).cast(pa.timestamp("us")).cast(UTC_MICROSECONDS)
    elif pa.types.is_null(kind):
        times = column.cast(UTC_MICROSECONDS)
    elif _is_text(kind):
        times = timestamps_from_text(_trimmed(column).to_pandas())
    elif pa.types.is_integer(kind):
        times = timestamps_from_whole_unix(column)
    else:
        times = timestamps_from_unix(column.cast(pa.float64(), safe=False).to_pandas())
    in_range = pc.and_(pc.greater_equal(times, EARLIEST), pc.less(times, LATEST))
    return pc.if_else(in_range, times, pa.scalar(None, UTC_MICROSECONDS))


def to_texts(place: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column to trimmed text.

    Args:
        place: names the column and its file, for messages.
        column: of any type that `require_type` accepts.

    Returns:
        Text, null if it is empty. A number is the shortest text that reads back as it.

    Raises:
        InputError: bytes are no text.
    """
    column = _plain(place, column)
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    # PostgreSQL has no NUL. Arrow writes 0.00001 as 1e-05 and NaN as nan: numbers again on reading.
    trimmed = _trimmed(pc.replace_substring(column.cast(pa.string()), "\0", "\ufffd"))
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def array_literals(place: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column of lists to PostgreSQL array literals, `{"a","b"}`.

    Args:
        place: names the column and its file, for messages.
        column: lists, or text as JSON, Python or PostgreSQL write a list, or with commas.

    Raises:
        InputError: bytes are no text.
    """
    if not isinstance(_plain_type(column.type), ListTypes):
        column = to_texts(place, column)
    cells = [_items(cell) for cell in column.to_pylist()]
    literals = [None if cell is None else array_literal(cell) for cell in cells]
    return pa.chunked_array([pa.array(literals, pa.string())])


def array_literal(values: list[object]) -> str:
    """Return a PostgreSQL array literal (manual, 8.15.2): elements in double quotes, backslash and
    quote escaped.
    """
    escaped = (
        str(value).replace("\0", "\ufffd").replace("\\", "\\\\").replace('"', '\\"')
        for value in values
        if value is not None
    )
    return "{" + ",".join(f'"{value}"' for value in escaped) + "}"


def _items(cell: str | list[object] | None) -> list[object] | None:
    if cell is None:
        return None
    if not isinstance(cell, str):
        return list(cell)
    try:
        items = json.loads(cell)
    except (ValueError, RecursionError):
        items = None
    if isinstance(items, list):
        return items
    # no JSON: Python's list, PostgreSQL's array literal, or values with commas
    inside = re.sub(r"^[\[{(]|[\]})]$", "", cell)
    texts = (text.strip(" '\"") for text in inside.split(","))
    return [text for text in texts if text and text != "None"]


def _within_microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace dates and timestamps that 64 bits of microseconds can't hold by null."""
    # a cast fails for the whole column of dates, and wraps a timestamp around to a wrong year
    kind = column.type
    unit = kind.unit if pa.types.is_timestamp(kind) else str(kind)
    if unit not in MICROSECONDS_OF:
        return column
    limit = (2**63 - 1) // MICROSECONDS_OF[unit]
    numbers = column.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(pa.int64())
    fits = pc.and_(pc.greater(numbers, -limit), pc.less(numbers, limit))
    return pc.if_else(fits, column, pa.scalar(None, kind))


def _trimmed(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Remove blanks and invisible signs from both ends."""
    # a pool id that was copied with such a sign would be another pool
    return pc.utf8_trim(texts, characters=INVISIBLE)


def _plain(place: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column without dictionary and extension types, bytes as UTF-8 text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        # pandas writes categories as a dictionary
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
        texts = column.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        raise error from None
    # a number or a hash can be valid UTF-8 by chance, and is then full of control characters
    if pc.any(pc.match_substring_regex(texts, r"[\x00-\x08\x0e-\x1f]")).as_py():
        raise error
    return texts


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
