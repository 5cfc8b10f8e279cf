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

UNIX = r"[0-9]{9,19}(\.[0-9]*)?"

DAY = r"[0-9]{4}(-[0-9]{2}-[0-9]{2}|/[0-9]{2}/[0-9]{2}|[0-9]{4})"
TIME_OF_DAY = r"[0-9]{2}(:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?|[0-9]{2}([0-9]{2}(\.[0-9]+)?)?)?"
ZONE = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
ISO_8601 = rf"{DAY}([T ]{TIME_OF_DAY}{ZONE}?)?"


def timestamps_from_text(column: pd.Series[Any]) -> pa.ChunkedArray:
    """Convert ISO 8601 text with a whole day, or unix time in digits."""
    text = column.str.strip()
    numbers = pd.to_numeric(text.where(text.str.fullmatch(UNIX, na=False)), errors="coerce")
    # forms that sources write and ISO 8601 does not have
    text = text.str.upper().str.replace(r" ?(UTC|GMT)$", "Z", regex=True)
    text = text.str.replace(r" ([+-][0-9:]+)$", r"\1", regex=True).str.replace(",", ".")
    text = text.where(text.str.fullmatch(ISO_8601, na=False)).str.replace("/", "-")
    parsed = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    return pc.coalesce(
        timestamps_from_unix(numbers.astype("float64")),
        pa.chunked_array([pa.array(parsed.dt.as_unit("us"), UTC_MICROSECONDS)]),
    )


def timestamps_from_unix(column: pd.Series[Any]) -> pa.ChunkedArray:
    """Convert seconds, milliseconds, microseconds or nanoseconds since 1970; the size decides the
    unit.
    """
    microseconds = pd.Series(float("nan"), index=column.index)
    for units in UNITS_A_SECOND:
        is_unit = (column >= EARLIEST_UNIX * units) & (column < LATEST_UNIX * units)
        microseconds = microseconds.where(~is_unit, column * (1e6 / units))
    # Int64, unlike int64, keeps missing values
    whole = pa.array(microseconds.round().astype("Int64"), pa.int64())
    return pa.chunked_array([whole.cast(UTC_MICROSECONDS)])
