"""Describes the values that the columns of a table accept: the owner's columns may be narrower than
a value of a file.

Reads PostgreSQL's catalogue; returns types as `format_type` writes them, and SQL conditions.
Changes no stored value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Table, text

from database.schema.merge_sql import qualified

ColumnTypes = Mapping[str, str]
"""Type by column, with precision or length: numeric(10,2), character varying(255)."""

MAX_KEY_BYTES = 2000
"""Of a text in an index: its entries hold some 2,700 bytes (PostgreSQL manual, section 64.1.4)."""

# a domain counts as the type below it
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
    # a little below the limit of the type
    "real": 3.4e38,
    "double precision": 1.79e308,
}
_WHOLE = {"smallint", "integer", "bigint"}


def column_types(connection: Connection, table: Table) -> ColumnTypes:
    """Return the type of each column of a table.

    Args:
        connection: reads the catalogue.
        table: an existing table.
    """
    rows = connection.execute(_TYPES, {"table": qualified(table)})
    return {row.name: row.type for row in rows}


def number_fits(value: str, type_: str) -> str:
    """Return an SQL condition: a column accepts a number, rounded as the column rounds it.

    Args:
        value: a numeric SQL expression.
        type_: type of the column.
    """
    if numeric := _NUMERIC.fullmatch(type_):
        precision, scale = int(numeric[1]), int(numeric[2])
        return f"abs(round({value}, {scale})) < 1e{precision - scale}::numeric"
    if type_ in _LARGEST:
        rounded = f"round({value})" if type_ in _WHOLE else value
        return f"abs({rounded}) <= {_LARGEST[type_]}::numeric"
    return "true"


def text_fits(value: str, type_: str) -> str:
    """Return an SQL condition: a column accepts a text, or each text of an array.

    Args:
        value: an SQL expression of type text or text[].
        type_: type of the column.
    """
    limited = _TEXT.fullmatch(type_)
    if limited is None:
        return "true"
    if limited[2]:
        too_long = f"SELECT FROM unnest({value}) AS e (text) WHERE length(e.text) > {limited[1]}"
        return f"NOT EXISTS ({too_long})"
    return f"length({value}) <= {limited[1]}"


def key_fits(value: str, type_: str) -> str:
    """Return an SQL condition: a column accepts a text, and its index does.

    Args:
        value: an SQL expression of type text.
        type_: type of the column.
    """
    return f"({text_fits(value, type_)} AND octet_length({value}) <= {MAX_KEY_BYTES})"


def cut(value: str, type_: str) -> str:
    """Return the text, cut to the length that a column accepts.

    Args:
        value: the text.
        type_: type of the column.
    """
    limited = _TEXT.fullmatch(type_)
    return value[: int(limited[1])] if limited else value


def fit_to_columns(values: Mapping[str, Any], types: ColumnTypes) -> dict[str, Any]:
    """Fit descriptive values to their columns.

    Args:
        values: texts, lists of texts and numbers by column.
        types: types of the columns.

    Returns:
        The values, with texts cut, and None for a number that its column does not accept.
    """
    fitted = dict(values)
    for name, value in values.items():
        if isinstance(value, str):
            fitted[name] = cut(value, types[name])
        elif isinstance(value, list):
            fitted[name] = [cut(text, types[name]) for text in value]
        # repr: the shortest decimal that reads back as the same number
        elif value is not None and abs(Decimal(repr(value))) >= _limit(types[name]):
            fitted[name] = None
    return fitted


def _limit(type_: str) -> Decimal:
    """Return a bound of a number's size below which it fits after rounding, too."""
    if numeric := _NUMERIC.fullmatch(type_):
        # minus 1, because the column rounds a value up to the next unit
        return Decimal(10) ** (int(numeric[1]) - int(numeric[2])) - 1
    return Decimal(repr(_LARGEST[type_])) if type_ in _LARGEST else Decimal("inf")
