"""Reads and writes tables as Arrow through binary COPY (ADBC), in Spark's tasks.

Each task opens its own connection. A write is one transaction that first deletes the rows of
earlier attempts of its partition, so that a retried or speculative task never duplicates rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema

from config_spark import Settings
from database.connections.adbc_session import adbc_connection
from database.connections.engine import probe_session
from database.connections.session_check import TaskSession
from database.schema.tag_columns import PARTITION_TAG
from database.transport.query import ArrowTransform, PortableQuery, tag_rows
from database.transport.tags import Step, task_identity


class AdbcTransport:
    """Implements `query.Transport` with ADBC."""

    def read(
        self,
        spark: SparkSession,
        settings: Settings,
        query: PortableQuery,
        predicates: Sequence[str],
        snapshot: str | None,
    ) -> DataFrame:
        tasks = spark.sparkContext.parallelize(
            [(predicate,) for predicate in predicates], len(predicates)
        )
        parts = spark.createDataFrame(tasks, "predicate string")
        return parts.mapInArrow(
            _reader(probe_session(settings).for_tasks, query, snapshot), query.schema
        )

    def write(
        self,
        frame: DataFrame,
        settings: Settings,
        staging: str,
        transform: ArrowTransform | None = None,
    ) -> int:
        # ADBC takes both names apart and quotes them itself
        schema_name, table = staging.split(".")
        writer = _writer(probe_session(settings).for_tasks, schema_name, table, tag_rows(transform))
        return sum(task.rows for task in frame.mapInArrow(writer, "rows bigint").collect())


Batches = Iterator[pa.RecordBatch]


def _reader(session: TaskSession, query: PortableQuery, snapshot: str | None) -> Step:
    # Spark reads Arrow columns by position: without the cast, a driver's change of a type would be
    # a wrong value instead of an error
    sql, schema = query.sql, to_arrow_schema(query.schema)

    def read(parts: Iterable[pa.RecordBatch]) -> Batches:
        for part in parts:
            for predicate in part.column(0).to_pylist():
                with adbc_connection(session) as connection, connection.cursor() as cursor:
                    if snapshot:
                        # PostgreSQL accepts both only before the first query of a transaction
                        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                        cursor.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
                    cursor.execute(f"SELECT * FROM ({sql}) AS portable WHERE {predicate}")
                    for batch in cursor.fetch_record_batch():
                        yield from pa.Table.from_batches([batch]).cast(schema).to_batches()

    return read


def _writer(session: TaskSession, schema_name: str, table: str, rows_to_stage: Step) -> Step:
    def write(batches: Iterable[pa.RecordBatch]) -> Batches:
        partition, _ = task_identity()
        sent = 0

        def counted(rows: Iterable[pa.RecordBatch]) -> Batches:
            nonlocal sent
            for batch in rows:
                sent += batch.num_rows
                yield batch

        own_rows = counted(rows_to_stage(batches))
        # an empty partition opens no connection
        first = next(own_rows, None)
        if first is not None:
            with adbc_connection(session) as connection, connection.cursor() as cursor:
                # two attempts of a partition, as with speculation, must not insert at once
                cursor.execute(
                    # the key is a pair of signed 32-bit integers
                    f"SELECT pg_advisory_xact_lock({zlib.crc32(table.encode()) & 0x7FFFFFFF},"
                    f" {partition})"
                ).fetchall()
                cursor.execute(
                    f"DELETE FROM {schema_name}.{table} WHERE {PARTITION_TAG} = {partition}"
                )
                reader = pa.RecordBatchReader.from_batches(first.schema, chain([first], own_rows))
                cursor.adbc_ingest(table, reader, mode="append", db_schema_name=schema_name)
                connection.commit()
        yield pa.RecordBatch.from_pydict({"rows": [sent]})

    return write
