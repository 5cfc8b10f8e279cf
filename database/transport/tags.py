"""Adds two tag columns to staged rows: the partition and the attempt of the Spark task that writes
them.

Every Python worker imports this module; it does without SQLAlchemy and the settings, which take 0.3
s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
from pyspark import TaskContext

from database.transport.tag_batches import tag_batches

Step = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]


def task_identity() -> tuple[int, int]:
    """Return partition and attempt of the running Spark task.

    The attempt id is unique in the application, also over retries and speculation.

    Raises:
        RuntimeError: no Spark task is running.
    """
    context = TaskContext.get()
    if context is None:
        raise RuntimeError("task_identity() is for code that runs inside a Spark task")
    return context.partitionId(), context.taskAttemptId()


def add_tag_columns(transform: Step | None, schema: pa.Schema | None = None) -> Step:
    """Return a function for `mapInArrow` that transforms the batches of a task and adds the tag
    columns.

    Neither binary COPY nor Spark's JDBC writer converts types: give `schema`, the types of staging,
    unless the rows have them already.

    Args:
        transform: transforms the batches; None leaves them unchanged.
        schema: types to cast to; None keeps the types.

    Raises:
        pyarrow.ArrowInvalid: a value does not fit its type (raised in the task).
    """

    def rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # inside the generator, which runs in the task; the function around it runs in the driver
        partition, attempt = task_identity()
        yield from tag_batches(
            transform(batches) if transform else batches, schema, partition, attempt
        )

    return rows
