"""A pool as DefiLlama has it, into the owner's `raw_defillama_pool_history` and `pools`.

In: a pool's id, its snapshots and its entry of the list. Out: its new rows of history and its row
in `pools`, in the caller's transaction.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, exists, select, text

from common.errors import InputError
from data_processing.ingest.column_limits import column_types, cut, described_within
from data_processing.ingest.defillama import sql as defillama_sql
from data_processing.ingest.defillama.rows import NOT_IN_JSONB, Snapshots, description
from data_processing.ingest.pool_descriptions import required_descriptions
from data_processing.ingest.stored_rows import rows_not_taken
from database.connections.advisory_locks import RAW_TABLES_LOCK, lock_in_transaction
from database.schema.catalog import has_triggers
from database.schema.merge_sql import qualified
from database.schema.tables import pools, raw_pool_history

INGEST_AGAIN = "run `ingest` again"

MAX_ID_BYTES = 2000
"""An index entry of PostgreSQL takes some 2,700 bytes (manual, section 64.1.4)."""


def require_storable_id(pool_id: str) -> None:
    """Raises: InputError for an id that PostgreSQL's text does not take, or its indexes don't."""
    if NOT_IN_JSONB.search(pool_id):
        raise InputError(
            f"pool id {pool_id[:100]!r} has a NUL character or half a surrogate pair, which"
            " PostgreSQL does not store: leave it out"
        )
    if len(pool_id.encode()) > MAX_ID_BYTES:
        raise InputError(
            f"pool id {pool_id[:60]!r}.. has {len(pool_id):,} characters and at most"
            f" {MAX_ID_BYTES:,} bytes are stored: leave it out"
        )


def require_id_that_fits(connection: Connection, pool_id: str) -> None:
    """Raises: InputError where a table would refuse the id for its length."""
    for table in (raw_pool_history, pools):
        taken = cut(pool_id, column_types(connection, table)["pool_id"])
        if taken != pool_id:
            raise InputError(
                f"pool id {pool_id!r} has {len(pool_id)} characters and {qualified(table)}.pool_id"
                f" takes {len(taken)}: leave it out, or widen the column"
            )


def insert_snapshots(connection: Connection, pool_id: str, rows: Snapshots) -> int:
    """Insert the snapshots that are not there; returns how many. Raises: CheckFailed where the
    table does not have all of them afterwards.
    """
    # another load would not see these rows before they are committed, and insert them a second time
    lock_in_transaction(connection, RAW_TABLES_LOCK)
    new = {"pool_id": pool_id, "timestamps": rows.timestamps, "documents": rows.documents}
    found = connection.execute(text(defillama_sql.INSERT_SNAPSHOTS), new).one()
    stored = found.inserted + found.known
    if has_triggers(connection, raw_pool_history):
        # a trigger may also write a row under another key, or delete it after its insertion
        stored = connection.execute(text(defillama_sql.COUNT_STORED), new).scalar_one()
    if stored < found.different:
        told = f"{found.different} different ones, {found.inserted} inserted, {found.known} there"
        lost = found.different - stored
        source = f"pool {pool_id} ({told} already)"
        raise rows_not_taken(raw_pool_history, lost, source, INGEST_AGAIN)
    return int(found.inserted)


def describe_pool(connection: Connection, pool_id: str, pool: dict[str, Any] | None) -> bool:
    """Add or update the pool's row; None: DefiLlama does not list it. Texts are cut to their
    columns. Returns whether it is a new one with a stand-in for a required description. Raises:
    CheckFailed where the table did not take it.
    """
    described = (
        described_within(description(pool), column_types(connection, pools)) if pool else None
    )
    required = required_descriptions(connection)
    in_pools = select(exists().where(pools.c.pool_id == pool_id))
    is_known = connection.execute(in_pools).scalar_one()
    connection.execute(defillama_sql.upsert_pool(pool_id, described, required))
    if not is_known and not connection.execute(in_pools).scalar_one():
        raise rows_not_taken(pools, 1, f"pool {pool_id}", INGEST_AGAIN)
    return not is_known and any((described or {}).get(name) is None for name in required)
