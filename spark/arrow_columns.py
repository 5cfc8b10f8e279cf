"""Converts numpy arrays to Arrow columns and back, without pandas.

`pyarrow.array`, `pyarrow.scalar` and `to_numpy` import pandas, which takes longer than the days of
some pools. Every Python worker imports this module.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Booleans = npt.NDArray[np.bool_]

_NUMBERS: dict[pa.DataType, np.dtype[Any]] = {
    pa.int32(): np.dtype(np.int32),
    pa.int64(): np.dtype(np.int64),
    pa.uint64(): np.dtype(np.uint64),
    pa.float64(): np.dtype(np.float64),
}


def numbers(column: pa.Array | pa.ChunkedArray, null: float = np.nan) -> npt.NDArray[Any]:
    """Return a column of numbers as an array.

    Args:
        column: integers or doubles.
        null: replaces NULL.

    Raises:
        ValueError: an integer is NULL, and `null` is NaN.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    dtype = _NUMBERS[array.type]
    if not len(array):
        return np.empty(0, dtype)
    validity, data = array.buffers()
    start = array.offset * dtype.itemsize
    # a view: the values are not copied
    values: npt.NDArray[Any] = np.frombuffer(data, dtype, len(array), start)
    if not array.null_count:
        return values
    if np.isnan(null) and dtype != np.float64:
        raise ValueError(f"{array.null_count} of {len(array)} integers are NULL")
    # Arrow has a bit for each row, the least significant one first
    bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
    is_valid = bits[array.offset : array.offset + len(array)]
    return np.where(is_valid, values, dtype.type(null))


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
    text = value.encode()
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(len(text))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text * rows)]
    return pa.Array.from_buffers(pa.string(), rows, buffers)


def _column(values: npt.NDArray[Any], type_: pa.DataType, is_null: Booleans | None) -> pa.Array:
    validity = None
    if is_null is not None and is_null.any():
        validity = pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    buffers = [validity, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(type_, len(values), buffers)
