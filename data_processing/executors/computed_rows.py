"""Rows of a run that an executor computes while they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from database.staging import StagedRows


@dataclass(frozen=True)
class ComputedRows:
    """The rows of a run.

    Attributes:
        staged: the rows to load and merge.
        raw_row_counts: returns `read`, `accepted` and the rows of each failing check, after the
            load.
    """

    staged: StagedRows
    raw_row_counts: Callable[[], Mapping[str, int]]
