"""Converts text and unix time to points in time.

Returns `timestamp[us, UTC]`, null if a cell is no point in time. A text needs a whole calendar day:
a year, a month, an ISO week or a day of the year is none, though pandas reads some of them as the
first day. Times of day without a zone are UTC.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")

EARLIEST_UNIX, LATEST_UNIX = 1_230_768_000, 2_000_000_000
"""Seconds. No coin is older than 2009, and from 2033 on they may be the digits of a day and an hour
(2025030123).
"""

UNITS_A_SECOND = (1, 1_000, 1_000_000, 1_000_000_000)
MICROSECONDS = 1_000_000
"""In a second."""

UNIX = r"[0-9]{9,19}(\.[0-9]*)?"
WHOLE_UNIX = "[0-9]{9,18}|[0-8][0-9]{18}"
"""Digits that fit into 64 bits."""

DAY = r"[0-9]{4}(-[0-9]{2}-[0-9]{2}|/[0-9]{2}/[0-9]{2}|[0-9]{4})"
TIME_OF_DAY = r"[0-9]{2}(:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?|[0-9]{2}([0-9]{2}(\.[0-9]+)?)?)?"
ZONE = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
ISO_8601 = rf"{DAY}([T ]{TIME_OF_DAY}{ZONE}?)?"


def timestamps_from_text(column: pd.Series[Any]) -> pa.ChunkedArray:
    """Convert ISO 8601 text with a whole day, or unix time in digits."""
    text = column.str.strip()
    is_whole = text.str.fullmatch(WHOLE_UNIX, na=False)
    whole = pa.array(text.where(is_whole), pa.string(), from_pandas=True).cast(pa.int64())
    is_fraction = ~is_whole & text.str.fullmatch(UNIX, na=False)
    numbers = pd.to_numeric(text.where(is_fraction), errors="coerce")
    # forms that sources write and ISO 8601 does not have
    text = text.str.upper().str.replace(r" ?(UTC|GMT)$", "Z", regex=True)
    text = text.str.replace(r" ([+-][0-9:]+)$", r"\1", regex=True).str.replace(",", ".")
    text = text.where(text.str.fullmatch(ISO_8601, na=False)).str.replace("/", "-")
    parsed = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    return pc.coalesce(
        timestamps_from_whole_unix(pa.chunked_array([whole])),
        timestamps_from_unix(numbers.astype("float64")),
        pa.chunked_array([pa.array(parsed.dt.as_unit("us"), UTC_MICROSECONDS)]),
    )


def timestamps_from_whole_unix(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert whole seconds, milliseconds, microseconds or nanoseconds since 1970; the size decides
    the unit.
    """
    # not as floats: they round the last nanoseconds of a day into the next one
    numbers = column.cast(pa.int64(), safe=False)
    microseconds = pa.chunked_array([pa.nulls(len(numbers), pa.int64())])
    for units in UNITS_A_SECOND:
        is_unit = pc.and_(
            pc.greater_equal(numbers, EARLIEST_UNIX * units), pc.less(numbers, LATEST_UNIX * units)
        )
        if units > MICROSECONDS:
            converted = pc.divide(numbers, units // MICROSECONDS)
        else:
            converted = pc.multiply(numbers, MICROSECONDS // units)
        microseconds = pc.if_else(is_unit, converted, microseconds)
    return microseconds.cast(UTC_MICROSECONDS)


def timestamps_from_unix(column: pd.Series[Any]) -> pa.ChunkedArray:
    """Convert the same with fractions."""
    microseconds = pd.Series(float("nan"), index=column.index)
    for units in UNITS_A_SECOND:
        is_unit = (column >= EARLIEST_UNIX * units) & (column < LATEST_UNIX * units)
        microseconds = microseconds.where(~is_unit, column * (1e6 / units))
    # Int64, unlike int64, keeps missing values
    whole = pa.array(microseconds.round().astype("Int64"), pa.int64())
    return pa.chunked_array([whole.cast(UTC_MICROSECONDS)])
