"""Provides placeholders for a new pool if `pools` requires a description that the source lacks.

In the owner's `pools`, name, chain, protocol and symbol may be NOT NULL. Existing descriptions are
never replaced.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from data_processing.ingest.column_limits import ColumnTypes, column_types
from database.schema.merge_sql import qualified
from database.schema.owner_tables import pools

POOL_ID, UNKNOWN = "pool id", "unknown"

PLACEHOLDERS = {"name": POOL_ID, "chain": UNKNOWN, "protocol": UNKNOWN, "symbol": POOL_ID}

PLACEHOLDERS_NOTE = "name and symbol are the pool id, chain and protocol `unknown`"

_REQUIRED = text("""
    SELECT attname
    FROM pg_attribute
    WHERE attrelid = CAST(:table AS regclass)
        AND attname = ANY (:names)
        AND attnotnull
    ORDER BY attname
""")


def required_descriptions(connection: Connection) -> ColumnTypes:
    """Return the columns of PLACEHOLDERS that are NOT NULL in this database, with their types."""
    parameters = {"table": qualified(pools), "names": list(PLACEHOLDERS)}
    types = column_types(connection, pools)
    return {name: types[name] for name in connection.execute(_REQUIRED, parameters).scalars()}


def placeholder(column: str, pool_id: str, required: ColumnTypes) -> str:
    """Return SQL: the placeholder of a new pool, cut to the length of the column.

    Args:
        column: a column of PLACEHOLDERS.
        pool_id: an SQL expression.
        required: types of the required columns.
    """
    value = pool_id if PLACEHOLDERS[column] == POOL_ID else f"'{UNKNOWN}'"
    return f"CAST({value} AS {required[column]})"
