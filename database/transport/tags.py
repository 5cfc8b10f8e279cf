"""Which task wrote a staged row: two tag columns behind a frame's own, from a Spark task's
partition and attempt.

Every Python worker imports this module, with what a worker has anyway (PySpark, Arrow) and no more:
SQLAlchemy and the settings are 0.3 s each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
from pyspark import TaskContext

from database.schema.tag_columns import ATTEMPT_TAG, PARTITION_TAG

Step = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]


def task_identity() -> tuple[int, int]:
    """Partition and attempt of the running Spark task: the attempt id is unique in the application,
    over retries and speculation.
    """
    context = TaskContext.get()
    if context is None:
        raise RuntimeError("task_identity() is for code that runs inside a Spark task")
    return context.partitionId(), context.taskAttemptId()


def add_tag_columns(last_step: Step | None, schema: pa.Schema | None = None) -> Step:
    """For `mapInArrow`: what `last_step` makes of the running task's batches, cast to `schema`,
    with the two tag columns of staging behind their own. None leaves the batches, or their types,
    as they are.

    Neither COPY in binary form nor Spark's JDBC writer converts a type that is not staging's.
    Raises: pyarrow.ArrowInvalid for a value that the type can't hold.
    """

    def rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        partition, attempt = task_identity()
        for made in last_step(batches) if last_step else batches:
            batch = made if schema is None else made.cast(schema)
            tags = [
                pa.array([partition] * batch.num_rows, pa.int32()),
                pa.array([attempt] * batch.num_rows, pa.int64()),
            ]
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, *tags], [*batch.schema.names, PARTITION_TAG, ATTEMPT_TAG]
            )

    return rows
