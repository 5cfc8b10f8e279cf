"""The crossing of both executors, from given seconds."""

from __future__ import annotations

import pytest

from benchmarks.executors import Comparison, crossing, result_text


def size(rows: int, spark: float, in_process: float) -> Comparison:
    seconds = {"spark": spark, "inprocess": in_process}
    return Comparison(rows, seconds, seconds, seconds)


def test_crossing_is_between_the_sizes_around_it() -> None:
    sizes = [size(1_000, 8.0, 2.0), size(10_000, 16.0, 8.0), size(40_000, 20.0, 40.0)]
    assert crossing(sizes) == pytest.approx(20_000)
    assert "Spark is faster from 20,000 raw rows on" in result_text(sizes)


@pytest.mark.parametrize("spark", [1.0, 9.0])
def test_one_executor_may_be_faster_at_all_sizes(spark: float) -> None:
    sizes = [size(1_000, spark, 3.0), size(10_000, spark, 3.0)]
    assert crossing(sizes) is None
    assert "at none or all of these sizes" in result_text(sizes)
