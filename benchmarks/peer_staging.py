"""Unlogged staging of the metrics benchmark's peers: the product's columns, filled by COPY.

APY in percent, TVL in USD, days are UTC.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from benchmarks.peer_rules import PEERS_SCHEMA
from database.schema.owner_tables import METRIC_COLUMNS


def create_staging(cursor: Any, name: str) -> str:
    """Create the table without an index or a constraint, as the product's staging.

    Args:
        cursor: ADBC cursor.
        name: name of the table in PEERS_SCHEMA.

    Returns:
        The name with its schema.
    """
    staging = f"{PEERS_SCHEMA}.{name}"
    columns = ", ".join(f"{column} double precision" for column in METRIC_COLUMNS)
    cursor.execute(f"CREATE UNLOGGED TABLE {staging} (pool_id text, date date, {columns})")
    return staging


def copy_to_staging(connection: Any, cursor: Any, name: str, rows: pa.Table) -> None:
    """Write the rows to a table of `create_staging`, and commit.

    Args:
        connection: ADBC connection of the cursor.
        rows: pool_id, date, METRIC_COLUMNS.
    """
    cursor.adbc_ingest(name, rows, mode="append", db_schema_name=PEERS_SCHEMA)
    connection.commit()
