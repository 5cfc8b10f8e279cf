"""Stores one pool of DefiLlama in the owner's `raw_defillama_pool_history` and `pools`.

Writes the pool's new snapshots and its description in the caller's transaction.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, exists, select, text

from common.errors import InputError
from data_processing.ingest.column_limits import (
    MAX_KEY_BYTES,
    column_types,
    cut,
    fit_to_columns,
)
from data_processing.ingest.defillama import sql as defillama_sql
from data_processing.ingest.defillama.rows import NOT_IN_JSONB, Snapshots, description
from data_processing.ingest.pool_descriptions import required_descriptions
from data_processing.ingest.stored_rows import missing_rows_error
from database.connections.advisory_locks import RAW_TABLES_LOCK, lock_in_transaction
from database.schema.catalog import has_triggers
from database.schema.merge_sql import qualified
from database.schema.owner_tables import pools, raw_pool_history

INGEST_AGAIN = "run `ingest` again"


def require_storable_id(pool_id: str) -> None:
    """Require that PostgreSQL can store and index a pool id.

    Args:
        pool_id: id as DefiLlama or the user writes it.

    Raises:
        InputError: the id has a NUL, half a surrogate pair, or too many bytes.
    """
    if NOT_IN_JSONB.search(pool_id):
        raise InputError(
            f"pool id {pool_id[:100]!r} has a NUL character or half a surrogate pair, which"
            " PostgreSQL does not store: leave it out"
        )
    if len(pool_id.encode()) > MAX_KEY_BYTES:
        raise InputError(
            f"pool id {pool_id[:60]!r}.. has {len(pool_id):,} characters and at most"
            f" {MAX_KEY_BYTES:,} bytes are stored: leave it out"
        )


def require_id_that_fits(connection: Connection, pool_id: str) -> None:
    """Require that the tables accept the length of a pool id.

    Args:
        connection: reads the catalogue.
        pool_id: the id.

    Raises:
        InputError: a column is too narrow.
    """
    for table in (raw_pool_history, pools):
        taken = cut(pool_id, column_types(connection, table)["pool_id"])
        if taken != pool_id:
            raise InputError(
                f"pool id {pool_id!r} has {len(pool_id)} characters and {qualified(table)}.pool_id"
                f" takes {len(taken)}: leave it out, or widen the column"
            )


def insert_snapshots(connection: Connection, pool_id: str, rows: Snapshots) -> int:
    """Insert the snapshots that are not stored.

    Args:
        connection: transaction of the pool, after `describe_pool`.
        pool_id: the pool.
        rows: its snapshots.

    Returns:
        How many snapshots were inserted.

    Raises:
        CheckFailed: the table lacks some of them afterwards.
    """
    parameters = {"pool_id": pool_id, "timestamps": rows.timestamps, "documents": rows.documents}
    counts = connection.execute(text(defillama_sql.INSERT_SNAPSHOTS), parameters).one()
    stored = counts.inserted + counts.stored
    if has_triggers(connection, raw_pool_history):
        # a trigger may also write a row under another key, or delete it after its insertion
        stored = connection.execute(text(defillama_sql.COUNT_STORED), parameters).scalar_one()
    if stored < counts.different:
        summary = (
            f"{counts.different} different ones, {counts.inserted} inserted, {counts.stored} there"
        )
        lost = counts.different - stored
        source = f"pool {pool_id} ({summary} already)"
        raise missing_rows_error(raw_pool_history, lost, source, INGEST_AGAIN)
    return int(counts.inserted)


def describe_pool(connection: Connection, pool_id: str, pool: dict[str, Any] | None) -> bool:
    """Insert or update the pool's row in `pools`, and keep `load` from writing until the commit;
    texts are cut to their columns.

    Args:
        connection: transaction of the pool.
        pool_id: the pool.
        pool: its entry in DefiLlama's list; None if it is not listed.

    Returns:
        Whether the pool is new and has a placeholder for a required description.

    Raises:
        CheckFailed: the table did not take the row.
    """
    # without it, `load` would not see the pool's rows before they are committed, and insert them a
    # second time
    lock_in_transaction(connection, RAW_TABLES_LOCK)
    described = None
    if pool:
        described = fit_to_columns(description(pool), column_types(connection, pools))
    required = required_descriptions(connection)
    in_pools = select(exists().where(pools.c.pool_id == pool_id))
    # before the upsert, which hides whether the pool is new
    was_there = connection.execute(in_pools).scalar_one()
    connection.execute(defillama_sql.upsert_pool(pool_id, described, required))
    if not was_there and not connection.execute(in_pools).scalar_one():
        raise missing_rows_error(pools, 1, f"pool {pool_id}", INGEST_AGAIN)
    return not was_there and any((described or {}).get(name) is None for name in required)
