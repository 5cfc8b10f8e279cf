"""Pools as dense arrays: every day, observed values told from carried ones, nothing after the as-of
day.
"""

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
    found = history_of(
        pool_rows("a", [1.0, 2.0, 3.0, 4.0], [10.0] * 4, end=END - dt.timedelta(days=3)).drop(
            index=[1]
        )
    )
    assert dates(found) == [END - dt.timedelta(days=back) for back in range(6, -1, -1)]
    np.testing.assert_array_equal(found.apy, [[1.0, NAN, 3.0, 4.0, NAN, NAN, NAN]])
    np.testing.assert_array_equal(found.tvl, [[10.0, NAN, 10.0, 10.0, NAN, NAN, NAN]])
    assert found.apy_observed.tolist() == [[True, False, True, True, False, False, False]]


def test_pools_of_different_lengths_share_the_days_of_the_oldest() -> None:
    found = history_of(
        pool_rows("dead", [1.0, 2.0], [10.0, 20.0], end=END - dt.timedelta(days=2)),
        pool_rows("long", [3.0] * 5, [30.0] * 5),
        pool_rows("new", [4.0], [40.0]),
    )
    assert found.pool_ids.tolist() == ["dead", "long", "new"]
    np.testing.assert_array_equal(
        found.apy, [[NAN, 1.0, 2.0, NAN, NAN], [3.0] * 5, [NAN] * 4 + [4.0]]
    )
    np.testing.assert_array_equal(
        found.tvl, [[NAN, 10.0, 20.0, NAN, NAN], [30.0] * 5, [NAN] * 4 + [40.0]]
    )
    assert found.tvl_observed.sum(axis=1).tolist() == [2, 5, 1]


def test_rows_after_the_as_of_day_leave_no_trace() -> None:
    """Not even a pool that has nothing else, nor a day."""
    rows = panel_rows(6, 20)
    as_of = END - dt.timedelta(days=8)
    later = pool_rows("later", [1.0] * 5, [10.0] * 5)
    found, cut = (
        history_of(rows, later, as_of=as_of),
        history_of(rows[rows["date"] <= as_of], as_of=as_of),
    )
    assert dates(found)[-1] == as_of
    assert (
        found.pool_ids.tolist()
        == cut.pool_ids.tolist()
        == [f"p{number:02d}" for number in range(6)]
    )
    for name in ("apy", "tvl", "apy_observed", "tvl_observed"):
        assert getattr(found, name).tobytes() == getattr(cut, name).tobytes(), name
    assert found.groups.tolist() == cut.groups.tolist()


def test_a_carried_value_is_a_level_but_not_observed() -> None:
    found = history_of(pool_rows("a", [None, 1.0, None, 3.0], [10.0, 10.0, 10.0, None]))
    np.testing.assert_array_equal(found.apy, [[NAN, 1.0, 1.0, 3.0]])
    np.testing.assert_array_equal(found.tvl, [[10.0] * 4])
    assert found.apy_observed.tolist() == [[False, True, False, True]]
    assert found.tvl_observed.tolist() == [[True, True, True, False]]


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
    found = pool_history(rows, END)
    assert found.apy_observed.tolist() == [[True, True]]
    assert found.tvl_observed.tolist() == [[True, False]]


def test_a_group_holds_from_the_day_it_is_said_until_another_is() -> None:
    a, b = (pool_rows(name, [1.0] * 5, [10.0] * 5) for name in ("a", "b"))
    a["pool_group"] = [None, "stable", None, "wild", None]
    assert history_of(a, b).groups.tolist() == [
        [None, "stable", "stable", "wild", "wild"],
        [None] * 5,
    ]
    assert history_of(
        b, a.assign(pool_id="c"), as_of=END - dt.timedelta(days=2)
    ).groups.tolist() == [[None] * 3, [None, "stable", "stable"]]


def test_a_group_holds_on_days_without_a_row() -> None:
    found = history_of(
        pool_rows("a", [1.0] * 3, [10.0] * 3, end=END - dt.timedelta(days=1), group="stable").drop(
            index=[1]
        )
    )
    assert found.groups.tolist() == [["stable"] * 4]


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
    found = pool_history(rows, END)
    assert found.apy.shape == found.tvl_observed.shape == found.groups.shape == (0, 1)
    assert found.pool_ids.size == 0
    assert dates(found) == [END]


def test_rows_in_many_chunks_are_one_history() -> None:
    rows = metric_rows(panel_rows(6, 12))
    cut = pa.Table.from_batches(rows.to_batches(max_chunksize=5))
    whole, found = pool_history(rows, END), pool_history(cut, END)
    assert cut["apy"].num_chunks > 10
    assert found.apy.tobytes() == whole.apy.tobytes()
    assert found.groups.tolist() == whole.groups.tolist()
    assert found.pool_ids.tolist() == whole.pool_ids.tolist()


@pytest.mark.parametrize("values", [[0.0, 0.0], [355_083.0, 1.0], [-3.0, 1e12]])
def test_values_pass_as_they_are(values: list[float | None]) -> None:
    found = history_of(pool_rows("a", values, values))
    assert found.apy.tolist() == found.tvl.tolist() == [values]
