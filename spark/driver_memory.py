"""Heap of a Spark driver, from the feature rows that it holds. Imports no PySpark."""

from __future__ import annotations

from math import ceil

MIN_HEAP_MIB = 2048
"""Least heap. A run of 7.1 million raw rows, which no driver holds, was measured with it."""

JVM_BYTES_PER_FEATURE_ROW = 800
"""400 of data, and as much again while the rows are handed to Python."""


def heap_mib(feature_rows: int) -> int:
    """Return the heap in MiB.

    Args:
        feature_rows: rows of a forecast that the machine holds at once; 0 for a job that streams.
    """
    return MIN_HEAP_MIB + ceil(feature_rows * JVM_BYTES_PER_FEATURE_ROW / 2**20)
