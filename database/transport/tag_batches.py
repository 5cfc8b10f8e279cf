"""Adds the tag columns of staging to Arrow batches.

Every Python worker imports this module; it does without drivers, SQLAlchemy, settings and PySpark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from database.schema.tag_columns import ATTEMPT_TAG, PARTITION_TAG
from spark.arrow_columns import integer_column


def tag_batches(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema | None, partition: int, attempt: int
) -> Iterator[pa.RecordBatch]:
    """Yield the batches with the tag columns, and cast to `schema` unless it is None.

    Binary COPY does not convert types.

    Raises:
        pyarrow.ArrowInvalid: a value does not fit its type.
    """
    for output in batches:
        batch = output if schema is None else output.cast(schema)
        tags = [
            integer_column(np.full(batch.num_rows, partition, np.int32)),
            integer_column(np.full(batch.num_rows, attempt, np.int64)),
        ]
        yield pa.RecordBatch.from_arrays(
            [*batch.columns, *tags], [*batch.schema.names, PARTITION_TAG, ATTEMPT_TAG]
        )
