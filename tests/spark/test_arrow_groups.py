"""Groups are complete for every position of the batch boundaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations, groupby, pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark.arrow_groups import group_starts, iter_groups

KEYS = "aabbbbc"


def batches_of(keys: str, cuts: Sequence[int]) -> list[pa.RecordBatch]:
    """Return rows numbered from 0, cut before each of `cuts`; a repeated cut
    makes an empty batch.
    """
    numbers = range(len(keys))
    ends = [0, *sorted(cuts), len(keys)]
    return [
        pa.record_batch(
            {
                "key": pa.array(list(keys[start:end]), pa.string()),
                "row": pa.array(list(numbers[start:end]), pa.int64()),
            }
        )
        for start, end in pairwise(ends)
    ]


def assert_whole(tables: list[pa.Table], keys: str) -> None:
    rows, group_keys = [], []
    for table in tables:
        rows += table["row"].to_pylist()
        group_keys += table["key"].to_pylist()
    assert rows == list(range(len(keys)))
    assert "".join(group_keys) == keys
    runs = list(chain.from_iterable(_runs(table["key"].to_pylist()) for table in tables))
    assert runs == _runs(keys), "a group in more than one table"


def _runs(keys: Sequence[str]) -> list[str]:
    return [key for key, _ in groupby(keys)]


ALL_CUTS = list(
    chain.from_iterable(combinations(range(1, len(KEYS)), count) for count in range(len(KEYS)))
)


@pytest.mark.parametrize("cuts", ALL_CUTS, ids=str)
def test_group_is_complete_for_every_batch_boundary(cuts: tuple[int, ...]) -> None:
    """Every way to cut seven rows: groups at the end of a batch, over two batches, and over up to
    four.
    """
    assert_whole(list(iter_groups(batches_of(KEYS, cuts), "key")), KEYS)


@given(keys=st.lists(st.integers(1, 6), max_size=8), cuts=st.lists(st.integers(0, 48), max_size=12))
def test_empty_batches_and_long_groups_change_nothing(keys: list[int], cuts: list[int]) -> None:
    rows = "".join(letter * length for letter, length in zip("abcdefgh", keys, strict=False))
    assert_whole(
        list(iter_groups(batches_of(rows, [min(cut, len(rows)) for cut in cuts]), "key")), rows
    )


def test_group_spans_three_batches_with_an_empty_one() -> None:
    batches = batches_of("abbbc", [2, 3, 3])
    assert [batch.num_rows for batch in batches] == [2, 1, 0, 2]
    assert ["".join(table["key"].to_pylist()) for table in iter_groups(batches, "key")] == [
        "a",
        "bbb",
        "c",
    ]


@pytest.mark.parametrize(
    "batches",
    [[], batches_of("", []), batches_of("", [0, 0])],
    ids=["none", "an empty one", "empty ones"],
)
def test_no_rows_give_no_groups(batches: list[pa.RecordBatch]) -> None:
    assert list(iter_groups(batches, "key")) == []


def test_yields_groups_before_reading_more() -> None:
    batches_read = []

    def source() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(batches_of("aabbcc", [1, 3, 4])):
            batches_read.append(number)
            yield batch

    groups = iter_groups(source(), "key")
    progress = [("".join(table["key"].to_pylist()), len(batches_read)) for table in groups]
    assert progress == [("aa", 2), ("bb", 4), ("cc", 4)]


@pytest.mark.parametrize(
    ("keys", "starts"),
    [("a", [0]), ("aaa", [0]), ("aab", [0, 2]), ("abc", [0, 1, 2]), ("aabbba", [0, 2, 5])],
)
def test_group_starts_where_the_key_changes(keys: str, starts: list[int]) -> None:
    actual = group_starts(pa.chunked_array([list(keys)]))
    assert actual.tolist() == starts
    assert actual.dtype == np.int64


def test_group_starts_span_chunks() -> None:
    keys = pa.chunked_array([["a", "a"], [], ["a", "b"], ["b"], ["c"]], type=pa.string())
    assert group_starts(keys).tolist() == [0, 3, 5]
