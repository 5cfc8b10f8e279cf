"""Tests that an incremental run after a backfill, a run of some pools or a retry gives the table of
a full run, and that a full run leaves no trace of deleted rows.

Each case was a bug, which the random histories of `test_incremental_histories` reach too rarely.
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
from data_processing.planning.run_request import Request
from tests.support import metrics_oracle
from tests.support.changing_sources import ChangingWorld, pool_name
from tests.support.metrics_changes import Activity, Change, Days, Deleted, Limits, Price, Snapshots
from tests.support.metrics_oracle import differences_of_tables
from tests.support.metrics_store import job_rows, settings_of, without_jvm

QUIET, DAILY = 0, 1


def daily(pool: int, back: int, count: int) -> Snapshots:
    """Snapshots of `count` successive days, the first one `back` days ago."""
    return Snapshots(pool, back, count, 1, 0, "both", backwards=False, slot=None)


Act = Callable[..., dict[str, Any]]


@pytest.fixture
def changing(engine: Engine) -> ChangingWorld:
    """Two pools with a row for each of the last 20 days."""
    source = ChangingWorld(engine)
    source.apply([daily(QUIET, 20, 20), daily(DAILY, 20, 20)])
    return source


@pytest.fixture
def act(database: Settings, changing: ChangingWorld) -> Act:
    """Apply changes, then run. The interval counts days backward from today."""

    def change_and_run(
        *changes: Change,
        interval: tuple[int, int] | None = None,
        pools: tuple[str, ...] | None = None,
        full: bool = False,
        retire: bool = False,
        clock: timedelta = timedelta(0),
        retry: str | None = None,
        session: Callable[[int], SparkSession] | None = None,
    ) -> dict[str, Any]:
        changing.apply(changes)
        start, end = (
            (changing.today - timedelta(days=back) for back in interval)
            if interval
            else (None, None)
        )
        request = Request(
            full_refresh=full, start=start, end=end, pools=pools, retire_missing=retire
        )
        settings = settings_of(database, changing.world)
        return run_metrics(
            settings if session else without_jvm(settings),
            request,
            retry=retry,
            session=session,
            now=changing.world.now + clock,
        )

    return change_and_run


def assert_equal_to_full(changing: ChangingWorld) -> None:
    assert (
        differences_of_tables(job_rows(changing.engine), metrics_oracle.metrics(changing.world))
        == []
    )


SOME = (pool_name(QUIET),)


@pytest.mark.parametrize(
    "how", [{"interval": (10, 0)}, {"pools": SOME}], ids=["backfill", "some pools"]
)
def test_price_that_changed_and_changed_back(
    act: Act, changing: ChangingWorld, how: dict[str, Any]
) -> None:
    act(Price("ETH", 30, 1000))
    act(Price("ETH", 8, 2000), **how)
    act(Price("ETH", 8, None))
    assert_equal_to_full(changing)


@pytest.mark.parametrize(
    "how", [{"interval": (10, 0)}, {"pools": SOME}], ids=["backfill", "some pools"]
)
def test_price_changed_after_days_of_partial_runs(
    act: Act, changing: ChangingWorld, how: dict[str, Any]
) -> None:
    act(Price("ETH", 30, 1000))
    act(Days(8), daily(DAILY, 1, 1), **how)
    act(Price("ETH", 5, 2000))
    assert_equal_to_full(changing)


@pytest.mark.parametrize(
    ("how", "limits"),
    [({"interval": (5, 0)}, Limits(2, 1e6)), ({"pools": SOME}, Limits(7, 30.0))],
    ids=["backfill, fill", "some pools, apy"],
)
def test_limits_that_changed_and_changed_back(
    act: Act, changing: ChangingWorld, how: dict[str, Any], limits: Limits
) -> None:
    act(Days(6), daily(DAILY, 1, 1))
    assert act(limits, **how)["status"] == "succeeded"
    assert act(Limits(7, 1e6))["mode"] == "full_refresh"
    assert_equal_to_full(changing)


def test_pool_inactive_during_backfill(act: Act, changing: ChangingWorld) -> None:
    act(Days(10), daily(DAILY, 1, 1))
    act(Activity(QUIET, False), interval=(6, 3))
    act(Activity(QUIET, True))
    assert_equal_to_full(changing)


def test_backfill_long_before_first_day_of_pool(act: Act, changing: ChangingWorld) -> None:
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


def no_session(_: int) -> SparkSession:
    raise ZeroDivisionError


def fail(act: Act, *changes: Change, **options: Any) -> str:
    """Run a job that fails in its session stage; returns its run id."""
    with pytest.raises(ZeroDivisionError) as error:
        act(*changes, session=no_session, **options)
    return str(error.value.failed_run[1])  # type: ignore[attr-defined]


def test_retry_after_later_run(act: Act, changing: ChangingWorld) -> None:
    act()
    failed = fail(act, Days(1), daily(DAILY, 1, 1))
    act(Days(1), daily(DAILY, 1, 1))
    act(daily(QUIET, 1, 1), retry=failed)
    act()
    assert_equal_to_full(changing)


def test_retried_full_refresh_after_later_run_of_some_pools(
    act: Act, changing: ChangingWorld
) -> None:
    """The retry removes no existing day."""
    failed = fail(act, full=True)
    act(Days(8), daily(DAILY, 1, 1), pools=(pool_name(DAILY),))
    act(retry=failed)
    assert_equal_to_full(changing)


def test_retried_full_refresh_after_later_run(act: Act, changing: ChangingWorld) -> None:
    act()
    failed = fail(act, Days(1), daily(DAILY, 1, 1), full=True)
    act(Days(10), daily(DAILY, 10, 10))
    act(daily(QUIET, 13, 1), retry=failed)
    act()
    assert_equal_to_full(changing)


def test_clock_behind_that_of_last_run(
    act: Act, changing: ChangingWorld, caplog: pytest.LogCaptureFixture
) -> None:
    act(Days(1), daily(DAILY, 1, 1))
    assert act(daily(QUIET, 1, 1), clock=-timedelta(hours=13))["rows"]["quarantined"] == 0
    assert "clock" in caplog.text
    act()
    assert_equal_to_full(changing)


FIRST_DAYS, LAST_DAYS, ALL = Deleted(QUIET, 20, 5), Deleted(QUIET, 3, 3), Deleted(QUIET, 20, 20)


@pytest.mark.parametrize(
    ("gone", "how"),
    [
        (FIRST_DAYS, {}),
        (LAST_DAYS, {"full": True}),
        (ALL, {}),
        (ALL, {"pools": SOME}),
        (FIRST_DAYS, {"interval": (25, 0)}),
        (ALL, {"interval": (25, 0)}),
    ],
)
def test_retiring_missing_days_removes_days_of_deleted_rows(
    act: Act, changing: ChangingWorld, gone: Deleted, how: dict[str, Any]
) -> None:
    act()
    act(gone, **how, retire=True)
    assert_equal_to_full(changing)
    # the run after a partial one notices that rows of its overlap are gone and recomputes them
    again = act()["rows"]
    assert (again["inserted"], again["updated"], again["removed"]) == (0, 0, 0)
    assert act()["status"] == "nothing_to_do"


def test_the_newest_day_deleted_of_all_pools(act: Act, changing: ChangingWorld) -> None:
    act()
    act(Deleted(QUIET, 2, 2), Deleted(DAILY, 2, 2), retire=True)
    assert_equal_to_full(changing)
    act(daily(DAILY, 1, 1))
    assert_equal_to_full(changing)


def test_backfill_retires_missing_days_only_inside_its_interval(
    act: Act, changing: ChangingWorld
) -> None:
    """A calendar has no gap: the days carry earlier values."""
    act()
    before = job_rows(changing.engine)
    act(Deleted(QUIET, 20, 10), interval=(16, 14), retire=True)
    act(full=True)
    rows = {day: row for (pool, day), row in job_rows(changing.engine).items() if pool == SOME[0]}
    ages = {(changing.today - day).days: row["apy_staleness_days"] for day, row in rows.items()}
    assert ages == {back: {16: 1, 15: 2}.get(back, 0) for back in range(1, 21)}
    last_kept = changing.today - timedelta(days=17)
    assert rows[last_kept] == before[SOME[0], last_kept]


def test_last_observed_day_is_found_after_its_rows_are_gone(
    act: Act, changing: ChangingWorld
) -> None:
    act(Deleted(QUIET, 13, 6), Deleted(QUIET, 6, 6))
    act(Deleted(QUIET, 7, 1), interval=(7, 0), retire=True)
    act(Activity(QUIET, False))
    assert_equal_to_full(changing)
