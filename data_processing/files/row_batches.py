"""Defines the batches that a reader of files returns: some rows, each with its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

BATCH_ROWS = 65_536
"""Bounds memory: a file of any size is read in pieces of some megabytes."""


@dataclass(frozen=True)
class RaggedLine:
    """A CSV line with another number of values than the header.

    Attributes:
        row_number: number of its line.
        values: the values as text.
    """

    row_number: int
    values: Sequence[str]


@dataclass(frozen=True)
class Batch:
    """Rows of a file.

    Attributes:
        row_numbers: `row_numbers[i]` is the number of row i of `table`.
        table: the rows.
        ragged: lines with a wrong number of values.
    """

    row_numbers: Sequence[int]
    table: pa.Table
    ragged: Sequence[RaggedLine] = ()
