"""After a backfill, or a run of some pools, the next incremental run still makes the table that a full one would make.

Each case was once wrong. They were found by reading, while the random histories of `test_incremental_histories` were written: these meet them too
rarely.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.plan_request import Request
from tests import metrics_oracle
from tests.changing_world import ChangingWorld, pool_name
from tests.metrics_changes import Activity, Change, Days, Limits, Price, Snapshots
from tests.metrics_oracle import differences_of_tables
from tests.metrics_store import job_rows, settings_of

QUIET, DAILY = 0, 1


def daily(pool: int, back: int, count: int) -> Snapshots:
    """`count` days in a row, the first one `back` days ago."""
    return Snapshots(pool, back, count, 1, 0, "both", backwards=False, slot=None)


Act = Callable[..., dict[str, Any]]


@pytest.fixture
def changing(engine: Engine) -> ChangingWorld:
    """Two pools with a row for each of the last 20 days."""
    made = ChangingWorld(engine)
    made.apply([daily(QUIET, 20, 20), daily(DAILY, 20, 20)])
    return made


@pytest.fixture
def act(spark: SparkSession, database: Settings, changing: ChangingWorld) -> Act:
    """Changes, then a run. The interval counts days backward from today."""

    def change_and_run(*changes: Change, interval: tuple[int, int] | None = None, pools: tuple[str, ...] | None = None) -> dict[str, Any]:
        changing.apply(changes)
        start, end = (changing.today - timedelta(days=back) for back in interval) if interval else (None, None)
        asked = Request(start=start, end=end, pools=pools)
        return run_metrics(settings_of(database, changing.world), asked, session=lambda rows: spark, now=changing.world.now)

    return change_and_run


def assert_equal_to_full(changing: ChangingWorld) -> None:
    assert differences_of_tables(job_rows(changing.engine), metrics_oracle.metrics(changing.world)) == []


SOME = (pool_name(QUIET),)


@pytest.mark.parametrize("how", [{"interval": (10, 0)}, {"pools": SOME}], ids=["backfill", "some pools"])
def test_a_price_that_changed_and_changed_back(act: Act, changing: ChangingWorld, how: dict[str, Any]) -> None:
    act(Price("ETH", 30, 1000))
    act(Price("ETH", 8, 2000), **how)
    act(Price("ETH", 8, None))
    assert_equal_to_full(changing)


@pytest.mark.parametrize("how", [{"interval": (10, 0)}, {"pools": SOME}], ids=["backfill", "some pools"])
def test_a_price_that_changed_after_days_that_only_a_part_of_the_runs_has_made(act: Act, changing: ChangingWorld, how: dict[str, Any]) -> None:
    act(Price("ETH", 30, 1000))
    act(Days(8), daily(DAILY, 1, 1), **how)
    act(Price("ETH", 5, 2000))
    assert_equal_to_full(changing)


@pytest.mark.parametrize("limits", [Limits(2, 1e6), Limits(7, 30.0)], ids=["fill", "apy"])
@pytest.mark.parametrize("how", [{"interval": (5, 0)}, {"pools": SOME}], ids=["backfill", "some pools"])
def test_limits_that_changed_and_changed_back(act: Act, changing: ChangingWorld, how: dict[str, Any], limits: Limits) -> None:
    act(Days(6), daily(DAILY, 1, 1))
    assert act(limits, **how)["status"] == "succeeded"
    assert act(Limits(7, 1e6))["mode"] == "full_refresh"
    assert_equal_to_full(changing)


def test_a_pool_that_was_inactive_during_a_backfill(act: Act, changing: ChangingWorld) -> None:
    act(Days(10), daily(DAILY, 1, 1))
    act(Activity(QUIET, False), interval=(6, 3))
    act(Activity(QUIET, True))
    assert_equal_to_full(changing)


def test_a_backfill_of_days_long_before_a_pools_first_one(act: Act, changing: ChangingWorld) -> None:
    act()
    act(daily(QUIET, 90, 1), interval=(85, 80))
    act()
    assert_equal_to_full(changing)


def test_two_backfills_of_a_pool_that_no_run_has_seen(act: Act, changing: ChangingWorld) -> None:
    act()
    act(daily(5, 90, 1), interval=(10, 0))
    act(interval=(70, 60))
    act()
    assert_equal_to_full(changing)
