"""Regroups the Arrow batches of a Spark task by a key, with one batch and one group in memory at a
time.

Input rows are sorted by the key; each output table has all rows of its keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spark.arrow_columns import numbers

Batches = Iterable[pa.RecordBatch]


def iter_groups(batches: Batches, key: str) -> Iterator[pa.Table]:
    """Yield the rows as tables with complete groups: the last group of a batch may continue in the
    next.

    Args:
        batches: record batches, sorted by the key.
        key: name of the key column.
    """
    pending: list[pa.Table] = []  # the last group so far
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        if not rows.num_rows:
            continue
        if pending and pending[-1][key][-1] != rows[key][0]:
            yield pa.concat_tables(pending)
            pending = []
        last_start = group_starts(rows[key])[-1]
        if last_start:
            yield pa.concat_tables([*pending, rows.slice(0, last_start)])
            pending = []
        pending.append(rows.slice(last_start))
    if pending:
        yield pa.concat_tables(pending)


def group_starts(keys: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return the index of the first row of each group."""
    values = keys.combine_chunks()
    changes = pc.not_equal(values.slice(1), values.slice(0, len(values) - 1))
    ends = numbers(pc.indices_nonzero(changes)).astype(np.int64)
    return np.concatenate([[0], ends + 1])
