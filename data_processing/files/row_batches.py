"""What a reader of files hands on: some rows as they came, each with its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

BATCH_ROWS = 65_536
"""Bounds memory: a file of any size passes through in pieces of some megabytes."""


@dataclass(frozen=True)
class RaggedLine:
    """A CSV line whose number of values is not the header's."""

    row_number: int
    values: Sequence[str]


@dataclass(frozen=True)
class Batch:
    """Rows as they came: `row_numbers[i]` belongs to row i of `table`."""

    row_numbers: Sequence[int]
    table: pa.Table
    ragged: Sequence[RaggedLine] = ()
