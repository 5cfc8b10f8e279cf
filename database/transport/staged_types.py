"""Types of staging: the PostgreSQL type of each Arrow type.

Both executors load staging with these types, so that the checks and the merge see the same columns.
"""

from __future__ import annotations

import pyarrow as pa

from common.errors import ConfigurationError

_STAGING_TYPES = {
    pa.bool_(): "boolean",
    pa.int64(): "bigint",
    pa.int32(): "integer",
    pa.float64(): "double precision",
    pa.string(): "text",
    pa.date32(): "date",
    pa.timestamp("us", "UTC"): "timestamptz",
}


def staging_types(schema: pa.Schema) -> dict[str, str]:
    """Return the PostgreSQL type of each staged column.

    Raises:
        ConfigurationError: staging has no such type.
    """
    types = {}
    for field in schema:
        if field.type not in _STAGING_TYPES:
            raise ConfigurationError(
                f"column {field.name} is {field.type}; cast it to boolean, int, bigint, double,"
                " string, date or timestamp"
            )
        types[field.name] = _STAGING_TYPES[field.type]
    return types


def double_columns(schema: pa.Schema) -> list[str]:
    """Return the names of the columns of type double."""
    return [field.name for field in schema if field.type == pa.float64()]
