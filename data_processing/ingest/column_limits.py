"""What the columns of a table take: the owner's may be narrower than a value of a file.

In: PostgreSQL's catalogue. Out: types as `format_type` writes them, and SQL conditions for values
that fit. No value is changed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Table, text

from database.schema.merge_sql import qualified

ColumnTypes = Mapping[str, str]
"""Types by column, with their precision or length: numeric(10,2), character varying(255)."""

_TYPES = text("""
SELECT a.attname AS name,
    format_type(
        coalesce(nullif(t.typbasetype, 0), t.oid),
        CASE WHEN t.typbasetype = 0 THEN a.atttypmod ELSE t.typtypmod END
    ) AS type
FROM pg_attribute AS a
JOIN pg_type AS t ON t.oid = a.atttypid
WHERE a.attrelid = CAST(:table AS regclass)
    AND a.attnum > 0
    AND NOT a.attisdropped
""")

_NUMERIC = re.compile(r"numeric\((\d+),(-?\d+)\)")
_TEXT = re.compile(r"character(?: varying)?\((\d+)\)(\[\])?")
_LARGEST = {
    "smallint": 2**15 - 1,
    "integer": 2**31 - 1,
    "bigint": 2**63 - 1,
    "real": 3.4e38,
    "double precision": 1.79e308,
}
_WHOLE = {"smallint", "integer", "bigint"}


def column_types(connection: Connection, table: Table) -> ColumnTypes:
    """Raises: sqlalchemy's error where the table is missing."""
    rows = connection.execute(_TYPES, {"table": qualified(table)})
    return {row.name: row.type for row in rows}


def number_fits(value: str, type_: str) -> str:
    """SQL condition: the column takes the numeric expression `value`, rounded as it rounds."""
    if found := _NUMERIC.fullmatch(type_):
        precision, scale = int(found[1]), int(found[2])
        return f"abs(round({value}, {scale})) < 1e{precision - scale}::numeric"
    if type_ in _LARGEST:
        rounded = f"round({value})" if type_ in _WHOLE else value
        return f"abs({rounded}) <= {_LARGEST[type_]}::numeric"
    return "true"


def text_fits(value: str, type_: str) -> str:
    """SQL condition: the column takes the text expression `value`, or each text of the array."""
    found = _TEXT.fullmatch(type_)
    if found is None:
        return "true"
    if found[2]:
        too_long = f"SELECT FROM unnest({value}) AS e (text) WHERE length(e.text) > {found[1]}"
        return f"NOT EXISTS ({too_long})"
    return f"length({value}) <= {found[1]}"


def cut(value: str, type_: str) -> str:
    """The text, no longer than the column takes."""
    found = _TEXT.fullmatch(type_)
    return value[: int(found[1])] if found else value


def described_within(values: Mapping[str, Any], types: ColumnTypes) -> dict[str, Any]:
    """Values that only describe: texts cut, and numbers left out (None) that a column does not
    take.
    """
    fitted = dict(values)
    for name, value in values.items():
        if isinstance(value, str):
            fitted[name] = cut(value, types[name])
        elif isinstance(value, list):
            fitted[name] = [cut(one, types[name]) for one in value]
        elif value is not None and abs(Decimal(repr(value))) >= _limit(types[name]):
            fitted[name] = None
    return fitted


def _limit(type_: str) -> Decimal:
    """What a number's size has to be below, so that it fits rounded too."""
    if found := _NUMERIC.fullmatch(type_):
        return Decimal(10) ** (int(found[1]) - int(found[2])) - 1
    return Decimal(repr(_LARGEST[type_])) if type_ in _LARGEST else Decimal("inf")
