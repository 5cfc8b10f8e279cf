"""Converts numpy arrays to Arrow columns without a copy, and without pandas.

`pyarrow.array` imports pandas, which takes longer than the days of some pools. Every Python worker
imports this module.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Booleans = npt.NDArray[np.bool_]


def float_column(values: npt.NDArray[np.float64]) -> pa.Array:
    """Return a column of doubles; NaN becomes NULL."""
    return _column(values, pa.float64(), np.isnan(values))


def integer_column(values: npt.NDArray[Any], is_null: Booleans | None = None) -> pa.Array:
    """Return a column of 32-bit or 64-bit integers, as the array has them.

    Args:
        values: the integers; any number where NULL.
        is_null: the rows that become NULL; None for no row.
    """
    return _column(values, pa.from_numpy_dtype(values.dtype), is_null)


def date_column(days: npt.NDArray[np.int64]) -> pa.Array:
    """Return a column of dates from days since 1970-01-01."""
    return _column(days.astype(np.int32), pa.date32(), None)


def text_column(value: str, rows: int) -> pa.Array:
    """Return a column with the same text in each row."""
    return pa.repeat(pa.scalar(value, pa.string()), rows)


def _column(values: npt.NDArray[Any], type_: pa.DataType, is_null: Booleans | None) -> pa.Array:
    validity = None
    if is_null is not None and is_null.any():
        validity = pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    buffers = [validity, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(type_, len(values), buffers)
