"""Arrow batches of a Spark task, cut where a key changes: what belongs together is worked on
together, and no more than a batch is held at a time.

In: batches whose rows are sorted by a key. Out: tables in which every key is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Batches = Iterable[pa.RecordBatch]


def whole_groups(batches: Batches, key: str) -> Iterator[pa.Table]:
    """The rows again: the last group of a batch may go on in the next one."""
    held: list[pa.Table] = []
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        if not rows.num_rows:
            continue
        if held and held[-1][key][-1] != rows[key][0]:
            yield pa.concat_tables(held)
            held = []
        last = group_starts(rows[key])[-1]
        if last:
            yield pa.concat_tables([*held, rows.slice(0, last)])
            held = []
        held.append(rows.slice(last))
    if held:
        yield pa.concat_tables(held)


def group_starts(keys: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Where each group begins."""
    values = keys.combine_chunks()
    changes = pc.not_equal(values.slice(1), values.slice(0, len(values) - 1)).to_numpy(
        zero_copy_only=False
    )
    return np.concatenate([[0], np.flatnonzero(changes) + 1])
