"""Tests numpy arrays as Arrow columns and back, against pyarrow's own conversions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from spark.arrow_columns import date_column, float_column, integer_column, numbers, text_column

FLOATS = np.array([1.5, np.nan, -0.0, np.inf, 5e-324, np.nan, 7.0, 8.0, 9.0])


def test_nan_becomes_null() -> None:
    column = float_column(FLOATS)
    column.validate(full=True)
    assert column.equals(pa.array(FLOATS, from_pandas=True))
    assert float_column(FLOATS[::2]).equals(pa.array(FLOATS[::2], from_pandas=True))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers_keep_their_type(dtype: type[Any]) -> None:
    values = np.arange(11).astype(dtype)
    is_null = values % 3 == 0
    assert integer_column(values).equals(pa.array(values))
    column = integer_column(values, is_null)
    column.validate(full=True)
    assert column.equals(pa.array(values, mask=is_null))


def test_days_are_dates_and_a_text_is_repeated() -> None:
    days = np.array([0, 19_000, -1], dtype=np.int64)
    assert date_column(days).equals(pa.array(days.astype(np.int32)).cast(pa.date32()))
    text = text_column("grün", 3)
    text.validate(full=True)
    assert text.equals(pa.array(["grün"] * 3))
    assert text_column("", 2).to_pylist() == ["", ""]
    assert len(text_column("x", 0)) == 0


@pytest.mark.parametrize("part", [slice(0, 9), slice(1, 9), slice(3, 8), slice(9, 9)])
def test_columns_become_arrays(part: slice) -> None:
    column = pa.array(FLOATS, from_pandas=True)
    sliced = column.slice(part.start, part.stop - part.start)
    assert numbers(sliced).tobytes() == FLOATS[part].tobytes()
    chunks = pa.chunked_array([sliced, sliced])
    assert numbers(chunks).tobytes() == np.tile(FLOATS[part], 2).tobytes()


def test_null_integer_is_replaced_or_refused() -> None:
    column = pa.array([4, None, 6], pa.int32())
    assert numbers(column, null=-1).tolist() == [4, -1, 6]
    with pytest.raises(ValueError, match="1 of 3 integers are NULL"):
        numbers(column)
