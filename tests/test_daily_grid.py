"""The dense calendar: the day's last snapshot, the bounded carry, and where a pool begins and ends."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from pyspark.sql import SparkSession

from data_processing.market_series import market_columns
from data_processing.pool_days import CALENDAR, SCHEMA, Provenance, by_pool, pool_days

SNAPSHOTS = "id bigint, pool_id string, timestamp timestamp, apy double, tvl double, reason string, warning string"
ALWAYS = (date(2018, 1, 1), date(2024, 2, 1))


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2024, 1, day, hour, tzinfo=UTC)


def grid(spark: SparkSession, snapshots: list[tuple[Any, ...]], calendar: tuple[Any, ...], max_fill_days: int = 2) -> dict[int, tuple[Any, ...]]:
    """Day of January 2024 -> (apy, its age, tvl, its age)."""
    parsed = [(*snapshot, None, None) for snapshot in snapshots]
    snapshots_by_pool = by_pool(spark.createDataFrame(parsed, SNAPSHOTS), spark.createDataFrame([calendar], CALENDAR))
    rows = snapshots_by_pool.mapInArrow(pool_days(max_fill_days, market_columns(()), Provenance("raw", "run")), SCHEMA).collect()
    assert len({row.date for row in rows}) == len(rows)
    return {row.date.day: (row.actual_apy, row.apy_age_days, row.actual_tvl, row.tvl_age_days) for row in rows}


def test_the_last_snapshot_is_the_day_even_where_it_lacks_a_value(spark: SparkSession) -> None:
    snapshots = [(5, "p", at(3, 22), 1.0, 10.0), (9, "p", at(3, 23), None, 20.0), (2, "p", at(3, 1), 3.0, 30.0), (7, "p", at(2), 4.0, 40.0)]
    assert grid(spark, snapshots, ("p", None, None, *ALWAYS)) == {2: (4.0, 0, 40.0, 0), 3: (4.0, 1, 20.0, 0)}


def test_of_two_snapshots_at_one_moment_the_later_inserted_counts(spark: SparkSession) -> None:
    snapshots = [(11, "p", at(3), 1.0, 10.0), (10, "p", at(3), 2.0, 20.0)]
    assert grid(spark, snapshots, ("p", None, None, *ALWAYS)) == {3: (1.0, 0, 10.0, 0)}


def test_days_end_at_midnight_utc(spark: SparkSession) -> None:
    snapshots = [(1, "p", datetime(2024, 1, 3, 23, 59, 59, 999999, tzinfo=UTC), 1.0, 1.0), (2, "p", at(4, 0), 2.0, 2.0)]
    assert grid(spark, snapshots, ("p", None, None, *ALWAYS)) == {3: (1.0, 0, 1.0, 0), 4: (2.0, 0, 2.0, 0)}


def test_each_value_is_carried_its_own_way_over_no_more_than_the_limit(spark: SparkSession) -> None:
    snapshots = [(1, "p", at(1), 1.0, 10.0), (2, "p", at(2), 2.0, None), (3, "p", at(6), None, 60.0)]
    assert grid(spark, snapshots, ("p", None, None, *ALWAYS)) == {
        1: (1.0, 0, 10.0, 0),
        2: (2.0, 0, 10.0, 1),
        3: (2.0, 1, 10.0, 2),
        4: (2.0, 2, None, None),
        5: (None, None, None, None),
        6: (None, None, 60.0, 0),
    }


def test_a_pool_that_is_alive_goes_on_to_the_end_and_another_one_does_not(spark: SparkSession) -> None:
    snapshots = [(1, "p", at(1), 1.0, 10.0)]
    assert list(grid(spark, snapshots, ("p", None, date(2024, 1, 6), *ALWAYS))) == [1, 2, 3, 4, 5]
    assert list(grid(spark, snapshots, ("p", None, None, *ALWAYS))) == [1]


def test_a_pool_older_than_what_was_read_starts_there_with_nothing_known(spark: SparkSession) -> None:
    calendar = ("p", date(2024, 1, 2), date(2024, 1, 6), *ALWAYS)
    assert grid(spark, [(1, "p", at(4), 1.0, 10.0)], calendar, max_fill_days=0) == {
        2: (None, None, None, None),
        3: (None, None, None, None),
        4: (1.0, 0, 10.0, 0),
        5: (None, None, None, None),
    }
    assert grid(spark, [(1, "p", at(2, 0), 1.0, 10.0)], calendar)[2] == (1.0, 0, 10.0, 0)
    assert list(grid(spark, [], calendar)) == [2, 3, 4, 5]


def test_without_any_carry_a_gap_is_unknown(spark: SparkSession) -> None:
    assert grid(spark, [(1, "p", at(1), 1.0, 1.0), (2, "p", at(3), 3.0, 3.0)], ("p", None, None, *ALWAYS), max_fill_days=0)[2] == (None,) * 4
