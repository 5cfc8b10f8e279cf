"""Pools as dense arrays: every day, observed and carried values, nothing after the as-of day."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from forecasting.features.pool_history import PoolHistory, pool_history
from tests.support.forecast_panels import END, metric_rows, panel_rows, pool_rows

NAN = float("nan")


def history_of(*pools: pd.DataFrame, as_of: dt.date = END) -> PoolHistory:
    return pool_history(metric_rows(pd.concat(pools, ignore_index=True)), as_of)


def dates(history: PoolHistory) -> list[dt.date]:
    return [dt.date(1970, 1, 1) + dt.timedelta(days=int(day)) for day in history.days]


def test_a_pool_has_every_day_from_its_first_to_the_as_of_day() -> None:
    history = history_of(
        pool_rows("a", [1.0, 2.0, 3.0, 4.0], [10.0] * 4, end=END - dt.timedelta(days=3)).drop(
            index=[1]
        )
    )
    assert dates(history) == [END - dt.timedelta(days=back) for back in range(6, -1, -1)]
    np.testing.assert_array_equal(history.apy, [[1.0, NAN, 3.0, 4.0, NAN, NAN, NAN]])
    np.testing.assert_array_equal(history.tvl, [[10.0, NAN, 10.0, 10.0, NAN, NAN, NAN]])
    assert history.apy_observed.tolist() == [[True, False, True, True, False, False, False]]


def test_pools_of_different_lengths_share_the_days_of_the_oldest() -> None:
    history = history_of(
        pool_rows("dead", [1.0, 2.0], [10.0, 20.0], end=END - dt.timedelta(days=2)),
        pool_rows("long", [3.0] * 5, [30.0] * 5),
        pool_rows("new", [4.0], [40.0]),
    )
    assert history.pool_ids.tolist() == ["dead", "long", "new"]
    np.testing.assert_array_equal(
        history.apy, [[NAN, 1.0, 2.0, NAN, NAN], [3.0] * 5, [NAN] * 4 + [4.0]]
    )
    np.testing.assert_array_equal(
        history.tvl, [[NAN, 10.0, 20.0, NAN, NAN], [30.0] * 5, [NAN] * 4 + [40.0]]
    )
    assert history.tvl_observed.sum(axis=1).tolist() == [2, 5, 1]


def test_rows_after_the_as_of_day_change_nothing() -> None:
    """Neither a pool without other rows nor a day is added."""
    rows = panel_rows(6, 20)
    as_of = END - dt.timedelta(days=8)
    later = pool_rows("later", [1.0] * 5, [10.0] * 5)
    history, cut = (
        history_of(rows, later, as_of=as_of),
        history_of(rows[rows["date"] <= as_of], as_of=as_of),
    )
    assert dates(history)[-1] == as_of
    assert (
        history.pool_ids.tolist()
        == cut.pool_ids.tolist()
        == [f"p{number:02d}" for number in range(6)]
    )
    for name in ("apy", "tvl", "apy_observed", "tvl_observed"):
        assert getattr(history, name).tobytes() == getattr(cut, name).tobytes(), name
    assert history.groups.tolist() == cut.groups.tolist()


def test_a_carried_value_is_a_level_but_not_observed() -> None:
    history = history_of(pool_rows("a", [None, 1.0, None, 3.0], [10.0, 10.0, 10.0, None]))
    np.testing.assert_array_equal(history.apy, [[NAN, 1.0, 1.0, 3.0]])
    np.testing.assert_array_equal(history.tvl, [[10.0] * 4])
    assert history.apy_observed.tolist() == [[False, True, False, True]]
    assert history.tvl_observed.tolist() == [[True, True, True, False]]


@pytest.mark.parametrize("kind", [pa.int32(), pa.float64(), pa.null()], ids=str)
def test_a_value_without_an_age_counts_as_observed_and_one_that_is_missing_does_not(
    kind: pa.DataType,
) -> None:
    rows = metric_rows(pool_rows("a", [1.0, 2.0], [10.0, 20.0]))
    for name, values in (
        ("apy_staleness_days", pa.nulls(2, kind)),
        ("tvl_staleness_days", pa.nulls(2, kind)),
        ("tvl", pa.array([10.0, None])),
    ):
        rows = rows.set_column(rows.column_names.index(name), name, values)
    history = pool_history(rows, END)
    assert history.apy_observed.tolist() == [[True, True]]
    assert history.tvl_observed.tolist() == [[True, False]]


def test_a_group_is_valid_until_the_next_one() -> None:
    a, b = (pool_rows(name, [1.0] * 5, [10.0] * 5) for name in ("a", "b"))
    a["pool_group"] = [None, "stable", None, "wild", None]
    assert history_of(a, b).groups.tolist() == [
        [None, "stable", "stable", "wild", "wild"],
        [None] * 5,
    ]
    assert history_of(
        b, a.assign(pool_id="c"), as_of=END - dt.timedelta(days=2)
    ).groups.tolist() == [[None] * 3, [None, "stable", "stable"]]


def test_a_group_continues_on_days_without_a_row() -> None:
    history = history_of(
        pool_rows("a", [1.0] * 3, [10.0] * 3, end=END - dt.timedelta(days=1), group="stable").drop(
            index=[1]
        )
    )
    assert history.groups.tolist() == [["stable"] * 4]


SCHEMA = metric_rows(pool_rows("a", [1.0], [1.0])).schema


@pytest.mark.parametrize(
    "rows",
    [
        SCHEMA.empty_table(),
        pa.Table.from_batches([], SCHEMA),
        metric_rows(pool_rows("a", [1.0], [1.0], end=END + dt.timedelta(days=1))),
    ],
    ids=["an empty chunk", "no chunk", "a row after the as-of day"],
)
def test_no_rows_are_no_pools(rows: pa.Table) -> None:
    history = pool_history(rows, END)
    assert history.apy.shape == history.tvl_observed.shape == history.groups.shape == (0, 1)
    assert history.pool_ids.size == 0
    assert dates(history) == [END]


def test_rows_in_many_chunks_are_one_history() -> None:
    rows = metric_rows(panel_rows(6, 12))
    cut = pa.Table.from_batches(rows.to_batches(max_chunksize=5))
    whole, history = pool_history(rows, END), pool_history(cut, END)
    assert cut["apy"].num_chunks > 10
    assert history.apy.tobytes() == whole.apy.tobytes()
    assert history.groups.tolist() == whole.groups.tolist()
    assert history.pool_ids.tolist() == whole.pool_ids.tolist()


@pytest.mark.parametrize("values", [[0.0, 0.0], [355_083.0, 1.0], [-3.0, 1e12]])
def test_values_pass_as_they_are(values: list[float | None]) -> None:
    history = history_of(pool_rows("a", values, values))
    assert history.apy.tolist() == history.tvl.tolist() == [values]
