"""Reads and writes tables as Arrow through binary COPY (ADBC).

Every Python worker imports this module; it does without SQLAlchemy, the settings and PySpark.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

import pyarrow as pa

from database.connections.adbc_session import adbc_connection
from database.connections.session_check import TaskSession
from database.schema.tag_columns import PARTITION_TAG

Batches = Iterator[pa.RecordBatch]


def read_batches(
    session: TaskSession, select: str, schema: pa.Schema, snapshot: str | None
) -> Batches:
    """Yield the rows of a SELECT.

    Args:
        session: the session that the connection must match.
        select: the SELECT.
        schema: types that the rows are cast to, by position.
        snapshot: exported snapshot to read; None reads the current state.
    """
    with adbc_connection(session) as connection:
        if snapshot:
            # PostgreSQL imports a snapshot into this level or a higher one, before the first query
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        for batch in connection.read(select):
            # rows are read by position: without the cast, a driver's change of a type would be a
            # wrong value instead of an error
            yield from pa.Table.from_batches([batch]).cast(schema).to_batches()


def stage_batches(
    session: TaskSession,
    staging: str,
    partition: int,
    batches: Iterable[pa.RecordBatch],
) -> int:
    """Write one partition to a staging table, in one transaction that first deletes the rows of
    earlier attempts of the partition. No connection is opened without rows.

    Args:
        session: the session that the connection must match.
        staging: qualified name of the staging table.
        partition: number of the partition.
        batches: rows with the tag columns.

    Returns:
        The number of rows.
    """
    # ADBC takes both names apart and quotes them itself
    schema_name, table = staging.split(".")
    sent = 0
    failures: list[Exception] = []

    def counted() -> Batches:
        nonlocal sent
        try:
            for batch in batches:
                sent += batch.num_rows
                yield batch
        except Exception as error:
            failures.append(error)
            raise

    rows = counted()
    first = next(rows, None)
    if first is None:
        return 0
    with adbc_connection(session) as connection:
        # two attempts of a partition, as with speculation, must not insert at once
        connection.execute(
            f"SELECT pg_advisory_xact_lock({zlib.crc32(table.encode()) & 0x7FFFFFFF}, {partition})"
        )
        connection.execute(f"DELETE FROM {staging} WHERE {PARTITION_TAG} = {partition}")
        reader = pa.RecordBatchReader.from_batches(first.schema, chain([first], rows))
        try:
            connection.append(schema_name, table, reader)
        except Exception:
            # the driver reports an error of the rows as one of its own
            if failures:
                raise failures[0] from None
            raise
        connection.commit()
    return sent
