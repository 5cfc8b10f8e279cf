"""Reads and writes tables as Arrow through binary COPY (ADBC), in Spark's tasks.

Each task opens its own connection. A retried or speculative task never duplicates rows, see
`arrow_copy.stage_batches`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema

from config_spark import Settings
from database.connections.engine import probe_session
from database.connections.session_check import TaskSession
from database.transport.arrow_copy import Batches, read_batches, stage_batches
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
        # one task for each predicate, with a connection of its own
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
        writer = _writer(probe_session(settings).for_tasks, staging, tag_rows(transform))
        return sum(task.rows for task in frame.mapInArrow(writer, "rows bigint").collect())


def _reader(session: TaskSession, query: PortableQuery, snapshot: str | None) -> Step:
    sql, schema = query.sql, to_arrow_schema(query.schema)

    def read(parts: Iterable[pa.RecordBatch]) -> Batches:
        for part in parts:
            for predicate in part.column(0).to_pylist():
                select = f"SELECT * FROM ({sql}) AS portable WHERE {predicate}"
                yield from read_batches(session, select, schema, snapshot)

    return read


def _writer(session: TaskSession, staging: str, rows_to_stage: Step) -> Step:
    def write(batches: Iterable[pa.RecordBatch]) -> Batches:
        partition, _ = task_identity()
        sent = stage_batches(session, staging, partition, rows_to_stage(batches))
        yield pa.RecordBatch.from_pydict({"rows": [sent]})

    return write
