"""Tests the dense daily grid: the last snapshot of a day, the limited carry, and a pool's first and
last day.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from data_processing.metrics.market_columns import market_columns
from data_processing.metrics.pool_metrics import (
    SCHEMA,
    Provenance,
    compute_pool_metrics,
)
from data_processing.metrics.pool_metrics_spark import INTERVALS, group_by_pool

SNAPSHOTS = (
    "id bigint, pool_id string, timestamp timestamp, snapshot bigint, apy double, tvl double,"
    " reason string, warning string"
)
ALWAYS = (date(2018, 1, 1), date(2024, 2, 1))

Snapshot = tuple[int | None, datetime, float | None, float | None]
"""Without an id it is a stored day's, whose timestamp is the day's begin."""


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2024, 1, day, hour, tzinfo=UTC)


THREE_DAYS: list[Snapshot] = [(1, at(1), 1.0, 10.0), (2, at(2), 2.0, None), (3, at(6), None, 60.0)]
POOLS: dict[str, tuple[list[Snapshot], date | None, date | None]] = {
    "four snapshots": (
        [
            (5, at(3, 22), 1.0, 10.0),
            (9, at(3, 23), None, 20.0),
            (2, at(3, 1), 3.0, 30.0),
            (7, at(2), 4.0, 40.0),
        ],
        None,
        None,
    ),
    "one moment": ([(11, at(3), 1.0, 10.0), (10, at(3), 2.0, 20.0)], None, None),
    "midnight": (
        [
            (1, datetime(2024, 1, 3, 23, 59, 59, 999999, tzinfo=UTC), 1.0, 1.0),
            (2, at(4, 0), 2.0, 2.0),
        ],
        None,
        None,
    ),
    "three days": (THREE_DAYS, None, None),
    "alive": ([(1, at(1), 1.0, 10.0)], None, date(2024, 1, 6)),
    "ended": ([(1, at(1), 1.0, 10.0)], None, None),
    "older": ([(1, at(4), 1.0, 10.0)], date(2024, 1, 2), date(2024, 1, 6)),
    "older, seen at once": ([(1, at(2, 0), 1.0, 10.0)], date(2024, 1, 2), date(2024, 1, 6)),
    "older, nothing read": ([], date(2024, 1, 2), date(2024, 1, 6)),
    "stored": (
        [
            (None, at(2, 0), 1.0, None),
            (None, at(3, 0), 1.0, 10.0),
            (9, at(3, 0), 2.0, None),
            (None, at(4, 0), None, 40.0),
        ],
        date(2024, 1, 2),
        None,
    ),
}
"""Snapshots, since when the pool is known where that is before what is read, and how far it goes on
after its last snapshot.
"""

Days = dict[int, tuple[Any, ...]]


def grids(spark: SparkSession, max_fill_days: int) -> dict[str, Days]:
    """Return the days of each of POOLS: day of January 2024 -> (apy, its staleness, tvl, its
    staleness).
    """
    parsed = []
    for pool, (pool_rows, _, _) in POOLS.items():
        for number, moment, apy, tvl in pool_rows:
            parsed.append((number, pool, moment, number, apy, tvl, None, None))
    calendars = [
        (pool, first_day, open_end, *ALWAYS) for pool, (_, first_day, open_end) in POOLS.items()
    ]
    snapshots = group_by_pool(
        spark.createDataFrame(parsed, SNAPSHOTS), spark.createDataFrame(calendars, INTERVALS)
    )
    rows = snapshots.mapInArrow(
        compute_pool_metrics(max_fill_days, market_columns(()), Provenance("raw", "run")),
        from_arrow_schema(SCHEMA),
    ).collect()
    assert len({(row.pool_id, row.date) for row in rows}) == len(rows)
    days: dict[str, Days] = {pool: {} for pool in POOLS}
    for row in rows:
        days[row.pool_id][row.date.day] = (
            row.actual_apy,
            row.apy_staleness_days,
            row.actual_tvl,
            row.tvl_staleness_days,
        )
        assert row.snapshot == LAST_ROWS.get((row.pool_id, row.date.day), row.snapshot)
    return days


LAST_ROWS = {
    ("four snapshots", 2): 7,
    ("four snapshots", 3): 9,
    ("one moment", 3): 11,
    ("three days", 2): 2,
    ("three days", 3): None,
    ("older", 2): None,
    ("stored", 2): None,
    ("stored", 3): 9,
    ("stored", 4): None,
}
"""The raw row that a day is known by; None where it is none's."""


@pytest.fixture(scope="module")
def carried(spark: SparkSession) -> dict[str, Days]:
    """A value is carried over at most two missing days."""
    return grids(spark, 2)


@pytest.fixture(scope="module")
def not_carried(spark: SparkSession) -> dict[str, Days]:
    return grids(spark, 0)


def test_last_snapshot_is_used_even_without_value(carried: dict[str, Days]) -> None:
    assert carried["four snapshots"] == {2: (4.0, 0, 40.0, 0), 3: (4.0, 1, 20.0, 0)}


def test_later_inserted_of_two_simultaneous_snapshots_is_used(carried: dict[str, Days]) -> None:
    assert carried["one moment"] == {3: (1.0, 0, 10.0, 0)}


def test_days_end_at_midnight_utc(carried: dict[str, Days]) -> None:
    assert carried["midnight"] == {3: (1.0, 0, 1.0, 0), 4: (2.0, 0, 2.0, 0)}


def test_apy_and_tvl_are_carried_separately_up_to_limit(
    carried: dict[str, Days],
) -> None:
    assert carried["three days"] == {
        1: (1.0, 0, 10.0, 0),
        2: (2.0, 0, 10.0, 1),
        3: (2.0, 1, 10.0, 2),
        4: (2.0, 2, None, None),
        5: (None, None, None, None),
        6: (None, None, 60.0, 0),
    }


def test_active_pool_reaches_run_end_and_inactive_one_does_not(
    carried: dict[str, Days],
) -> None:
    assert (list(carried["alive"]), list(carried["ended"])) == ([1, 2, 3, 4, 5], [1])


def test_pool_older_than_read_rows_starts_with_unknown_values(
    carried: dict[str, Days], not_carried: dict[str, Days]
) -> None:
    assert not_carried["older"] == {
        2: (None, None, None, None),
        3: (None, None, None, None),
        4: (1.0, 0, 10.0, 0),
        5: (None, None, None, None),
    }
    assert carried["older, seen at once"][2] == (1.0, 0, 10.0, 0)
    assert list(carried["older, nothing read"]) == [2, 3, 4, 5]


def test_stored_day_is_used_if_no_raw_row_is_left(
    carried: dict[str, Days],
) -> None:
    assert carried["stored"] == {
        2: (1.0, 0, None, None),
        3: (2.0, 0, None, None),
        4: (2.0, 1, 40.0, 0),
    }


def test_gap_is_unknown_without_carry(not_carried: dict[str, Days]) -> None:
    assert not_carried["three days"][3] == (None,) * 4
