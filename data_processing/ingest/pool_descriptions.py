"""What a new pool gets where `pools` requires a description that the source lacks.

In: the owner's `pools`, where name, chain, protocol and symbol may be NOT NULL. Out: names of the
required columns, and what stands in for each. What `pools` has already is never replaced.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from data_processing.ingest.column_limits import ColumnTypes, column_types
from database.schema.merge_sql import qualified
from database.schema.tables import pools

POOL_ID, UNKNOWN = "pool id", "unknown"

STAND_INS = {"name": POOL_ID, "chain": UNKNOWN, "protocol": UNKNOWN, "symbol": POOL_ID}

IN_WORDS = "name and symbol are the pool id, chain and protocol `unknown`"

_REQUIRED = text("""
    SELECT attname
    FROM pg_attribute
    WHERE attrelid = CAST(:table AS regclass)
        AND attname = ANY (:names)
        AND attnotnull
    ORDER BY attname
""")


def required_descriptions(connection: Connection) -> ColumnTypes:
    """The columns of STAND_INS that are NOT NULL in this database, with their types."""
    asked = {"table": qualified(pools), "names": list(STAND_INS)}
    types = column_types(connection, pools)
    return {name: types[name] for name in connection.execute(_REQUIRED, asked).scalars()}


def stand_in(column: str, pool_id: str, required: ColumnTypes) -> str:
    """SQL: what a new pool has in `column`, cut to its length; `pool_id` is an SQL expression."""
    value = pool_id if STAND_INS[column] == POOL_ID else f"'{UNKNOWN}'"
    return f"CAST({value} AS {required[column]})"
