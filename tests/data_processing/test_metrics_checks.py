"""Tests the checks of a commit on a real PostgreSQL, with staging as a run fills it.

Needs no Spark.
"""

from __future__ import annotations

from itertools import chain

import pytest
from sqlalchemy import Engine

from common.errors import CheckFailed
from config_spark import Settings
from data_processing.checks.catalogue import CATALOGUE
from data_processing.planning.run_request import Request
from database.ledger.check_result import Acceptance
from tests.support.commit_runs import (
    DAY,
    FIRST,
    NEWEST,
    POOLS,
    TODAY,
    DailyRun,
    at,
    failing,
    history,
    numbered,
)
from tests.support.metrics_oracle import RawRow
from tests.support.metrics_store import execute, put_rows, rows_of

OF_ALL_DAYS = {"unknown_pool", "spike", "many_days_removed"}
"""Checks that want no new day."""


@pytest.fixture
def daily_run(database: Settings, engine: Engine) -> DailyRun:
    return DailyRun(database, engine)


def test_complete_day_passes(daily_run: DailyRun) -> None:
    daily_run.store_history()
    daily_run.insert_rows(history(POOLS, NEWEST, TODAY))
    entries = daily_run.run_checks()
    assert failing(entries) == set()
    assert set(entries) == {check.name for check in CATALOGUE.values() if check.level != "row"}
    assert {entry["found"] for entry in entries.values()} == {"nothing"}


def test_day_with_tenth_of_pools_is_blocked(daily_run: DailyRun) -> None:
    daily_run.store_history()
    daily_run.insert_rows(history(POOLS[:4], NEWEST, TODAY))
    with pytest.raises(
        CheckFailed,
        match=(
            r"many_pools_missing.*MAX_MISSING_POOLS_SHARE \(50%\).*pools_before 40, pools 4,"
            r" missing 36"
        ),
    ) as stopped:
        daily_run.run_checks()
    assert (
        "--accept-check many_pools_missing --accept-check rows_far_below_yesterday --reason"
        in str(stopped.value)
    )
    ledger = rows_of(
        daily_run.engine,
        "SELECT status, checks FROM yieldspark.run_ledger ORDER BY started_at DESC LIMIT 1",
    )[0]
    checks = {entry["name"]: entry for entry in ledger["checks"]}
    assert (ledger["status"], failing(checks)) == (
        "blocked",
        {"many_pools_missing", "rows_far_below_yesterday"},
    )
    sample = checks["many_pools_missing"]["sample"]
    assert [(row["day"], row["pools_before"], row["pools"], row["missing"]) for row in sample] == [
        (NEWEST.isoformat(), 40, 4, 36)
    ]
    assert sample[0]["such_as"] == sorted(POOLS[4:])[:3]


def test_run_after_blocked_run_is_blocked_too(daily_run: DailyRun) -> None:
    """The newest day is as incomplete as the day before, which is new too and compared with the
    last complete day.
    """
    daily_run.store_history(written=NEWEST - DAY)
    daily_run.insert_rows(history(POOLS[:4], NEWEST - DAY, TODAY))
    with pytest.raises(CheckFailed, match=f"day {NEWEST - DAY}, pools_before 40"):
        daily_run.run_checks()


def test_some_missing_pools_are_only_reported(daily_run: DailyRun) -> None:
    daily_run.store_history()
    daily_run.insert_rows(history(POOLS[:35], NEWEST, TODAY))
    entries = daily_run.run_checks()
    assert failing(entries) == {"some_pools_missing"}
    assert "pools_before 40, pools 35, missing 5" in entries["some_pools_missing"]["found"]


def test_warning_names_days_that_failing_check_does_not(daily_run: DailyRun) -> None:
    daily_run.settings = daily_run.settings.model_copy(
        update={"check_severities": "many_pools_missing=off,rows_far_below_yesterday=off"}
    )
    daily_run.store_history()
    daily_run.insert_rows(history(POOLS[:4], NEWEST, TODAY))
    assert failing(daily_run.run_checks()) == {"some_pools_missing"}


@pytest.mark.parametrize(("share", "blocked"), [(0.05, True), (0.5, False)])
def test_pruned_raw_history_does_not_remove_metrics(
    daily_run: DailyRun, share: float, blocked: bool
) -> None:
    """The run removes missing days: 40 pools lose 30 of their 125 days."""
    daily_run.settings = daily_run.settings.model_copy(update={"max_removed_days_share": share})
    daily_run.store_history()
    execute(
        daily_run.engine,
        "UPDATE yieldspark.pool_coverage SET first_day = :first",
        first=FIRST - 120 * DAY,
    )
    daily_run.insert_rows(history(POOLS, FIRST - 90 * DAY, FIRST) + history(POOLS, NEWEST, TODAY))
    assert "many_days_removed" not in failing(daily_run.run_checks(Request(full_refresh=True)))
    if blocked:
        with pytest.raises(
            CheckFailed,
            match=(
                r"many_days_removed.*MAX_REMOVED_DAYS_SHARE \(5%\).*removed 1200, known 5000, share"
                r" 0.24"
            ),
        ):
            daily_run.run_checks(Request(retire_missing=True))
    else:
        assert "many_days_removed" not in failing(
            daily_run.run_checks(Request(retire_missing=True))
        )


def test_covered_days_that_lose_values_count_as_removed(daily_run: DailyRun) -> None:
    """The days keep a row with carried values."""
    daily_run.store_history()
    execute(
        daily_run.engine,
        "UPDATE yieldspark.pool_coverage SET first_day = :first",
        first=FIRST - 120 * DAY,
    )
    intervals = (
        (FIRST - 120 * DAY, FIRST - 119 * DAY),
        (FIRST - 90 * DAY, FIRST),
        (NEWEST, TODAY),
    )
    daily_run.insert_rows(list(chain.from_iterable(history(POOLS, *days) for days in intervals)))
    execute(
        daily_run.engine,
        "INSERT INTO yieldspark.observed_days SELECT pool_id, d::date, d, 1, 5, 1e6 FROM pools"
        " CROSS JOIN generate_series(CAST(:first AS timestamptz), :last, interval '1 day') AS d",
        first=at(FIRST - 119 * DAY),
        last=at(FIRST - 91 * DAY),
    )
    assert "many_days_removed" not in failing(daily_run.run_checks(Request(full_refresh=True)))
    with pytest.raises(CheckFailed, match=r"many_days_removed.*removed 1160, known 5000"):
        daily_run.run_checks(Request(retire_missing=True))


def test_pool_that_became_inactive_is_not_missing(daily_run: DailyRun) -> None:
    daily_run.store_history()
    daily_run.insert_rows(history(POOLS[:20], NEWEST, TODAY))
    execute(daily_run.engine, "UPDATE pools SET is_active = false WHERE pool_id >= 'pool-20'")
    assert failing(daily_run.run_checks()) == set()


def test_inactive_pool_is_not_missing_in_full_refresh(daily_run: DailyRun) -> None:
    put_rows(
        daily_run.engine,
        numbered(history(POOLS, FIRST, NEWEST) + history(POOLS[:20], NEWEST, TODAY)),
    )
    execute(
        daily_run.engine,
        "INSERT INTO pools (pool_id, is_active) SELECT p, p < 'pool-20' FROM unnest(CAST(:pools AS"
        " text[])) AS p",
        pools=POOLS,
    )
    assert failing(daily_run.run_checks(Request(full_refresh=True))) == set()


def test_new_ids_for_all_pools_count_as_missing_pools(daily_run: DailyRun) -> None:
    daily_run.store_history()
    daily_run.insert_rows(
        [
            RawRow(0, f"new-{row.pool_id}", row.timestamp, row.document)
            for row in history(POOLS, NEWEST, TODAY)
        ]
    )
    with pytest.raises(CheckFailed, match="many_pools_missing") as stopped:
        daily_run.run_checks()
    assert "rows_far_below_yesterday" not in str(stopped.value)


def test_fewer_rows_have_their_own_limit(daily_run: DailyRun) -> None:
    daily_run.settings = daily_run.settings.model_copy(
        update={"max_missing_pools_share": 1.0, "warn_missing_pools_share": 1.0}
    )
    daily_run.store_history()
    daily_run.insert_rows(history(POOLS[:19], NEWEST, TODAY))
    with pytest.raises(CheckFailed, match=r"rows_far_below_yesterday.*\(50%\)"):
        daily_run.run_checks()


@pytest.mark.parametrize(("share", "pools", "blocked"), [(0.3, 15, False), (0.9, 35, True)])
def test_fewer_rows_by_setting(
    daily_run: DailyRun, share: float, pools: int, blocked: bool
) -> None:
    limits = {
        "max_missing_pools_share": 1.0,
        "warn_missing_pools_share": 1.0,
        "min_pools_ratio": share,
    }
    daily_run.settings = daily_run.settings.model_copy(update=limits)
    daily_run.store_history()
    daily_run.insert_rows(history(POOLS[:pools], NEWEST, TODAY))
    if not blocked:
        assert failing(daily_run.run_checks()) == set()
        return
    with pytest.raises(CheckFailed, match=rf"rows_far_below_yesterday.*\({share:.0%}\)"):
        daily_run.run_checks()


def test_few_pools_may_be_missing(daily_run: DailyRun) -> None:
    daily_run.store_history(POOLS[:19])
    daily_run.insert_rows(history(POOLS[:1], NEWEST, TODAY))
    assert failing(daily_run.run_checks()) == set()


def test_pools_that_ended_long_ago_are_not_missing(daily_run: DailyRun) -> None:
    """History as `load` stores it, with pools that ended and are not marked inactive.

    A full refresh compares with days of its own.
    """
    put_rows(
        daily_run.engine,
        numbered(history(POOLS[20:], FIRST, NEWEST - 5 * DAY) + history(POOLS[:20], FIRST, TODAY)),
    )
    assert failing(daily_run.run_checks(Request(full_refresh=True))) == set()


def test_pool_carried_on_day_before_is_not_missing(daily_run: DailyRun) -> None:
    """Their calendars continue, because they are not marked inactive; they were not observed on the
    day before.
    """
    daily_run.store_history()
    dead = POOLS[20:]
    execute(
        daily_run.engine,
        "INSERT INTO yieldspark.value_staleness SELECT unnest(CAST(:pools AS text[])), CAST(:day AS"
        " date), NULL, 9",
        pools=dead,
        day=NEWEST - DAY,
    )
    daily_run.insert_rows(history(POOLS[:20], NEWEST, TODAY))
    assert failing(daily_run.run_checks()) == set()


def test_run_of_some_pools_is_not_checked_for_missing_pools(daily_run: DailyRun) -> None:
    daily_run.store_history()
    daily_run.insert_rows(history(POOLS[:4], NEWEST, TODAY))
    assert set(daily_run.run_checks(Request(pools=tuple(POOLS[10:])))) == OF_ALL_DAYS


def test_full_refresh_checks_newest_day(daily_run: DailyRun) -> None:
    put_rows(
        daily_run.engine,
        numbered(history(POOLS, FIRST, NEWEST) + history(POOLS[:4], NEWEST, TODAY)),
    )
    with pytest.raises(CheckFailed, match="many_pools_missing"):
        daily_run.run_checks(Request(full_refresh=True))


def test_backfill_checks_newest_day_only_inside_its_interval(daily_run: DailyRun) -> None:
    daily_run.store_history()
    daily_run.insert_rows(history(POOLS[:4], NEWEST, TODAY))
    entries = daily_run.run_checks(Request(start=FIRST, end=NEWEST - DAY))
    assert set(entries) == OF_ALL_DAYS
    with pytest.raises(CheckFailed, match="many_pools_missing"):
        daily_run.run_checks(Request(start=FIRST, end=TODAY))


def test_late_correction_has_no_new_day(daily_run: DailyRun) -> None:
    daily_run.store_history(written=TODAY)
    daily_run.insert_rows(history(POOLS[:1], FIRST, FIRST + DAY))
    assert set(daily_run.run_checks()) == OF_ALL_DAYS


@pytest.mark.parametrize(
    ("column", "blocked"),
    [("actual_apy", True), ("eth_open", True), ("btc_open", False), ("rolling_apy_7d", False)],
)
def test_null_shares_by_column(daily_run: DailyRun, column: str, blocked: bool) -> None:
    """The last run had ETH, and no run had BTC.

    Metrics that young pools cannot have are not checked.
    """
    daily_run.store_history()
    execute(
        daily_run.engine,
        "UPDATE yieldspark.market_series SET eth_open = 3000 WHERE date = '2024-05-31'",
    )
    daily_run.insert_rows(history(POOLS, NEWEST, TODAY))
    if not blocked:
        assert failing(daily_run.run_checks(nulls={column: 0.51})) == set()
        return
    with pytest.raises(
        CheckFailed, match=rf"null_share.*column_name {column}, nulls 21, rows 40, share 0.525"
    ):
        daily_run.run_checks(nulls={column: 0.51})
    assert failing(daily_run.run_checks(nulls={column: 0.5})) == set()


@pytest.mark.parametrize(("limit", "share", "blocked"), [(0.6, 0.55, False), (0.2, 0.25, True)])
def test_null_shares_by_setting(
    daily_run: DailyRun, limit: float, share: float, blocked: bool
) -> None:
    daily_run.settings = daily_run.settings.model_copy(update={"max_null_share": limit})
    daily_run.store_history()
    daily_run.insert_rows(history(POOLS, NEWEST, TODAY))
    if not blocked:
        assert failing(daily_run.run_checks(nulls={"actual_apy": share})) == set()
        return
    with pytest.raises(CheckFailed, match=rf"null_share.*MAX_NULL_SHARE \({limit:.0%}\)"):
        daily_run.run_checks(nulls={"actual_apy": share})


@pytest.mark.parametrize(("pools", "blocked"), [(19, False), (20, True)])
def test_few_rows_may_be_null(daily_run: DailyRun, pools: int, blocked: bool) -> None:
    daily_run.store_history(POOLS[:pools])
    daily_run.insert_rows(history(POOLS[:pools], NEWEST, TODAY))
    if not blocked:
        assert failing(daily_run.run_checks(nulls={"actual_apy": 1.0})) == set()
        return
    with pytest.raises(CheckFailed, match=f"null_share.*nulls {pools}, rows {pools}"):
        daily_run.run_checks(nulls={"actual_apy": 1.0})


def test_daily_run_requires_metrics_of_pools_older_than_read_rows(
    daily_run: DailyRun,
) -> None:
    long_ago = history(POOLS, FIRST - 60 * DAY, FIRST - 59 * DAY)
    put_rows(
        daily_run.engine,
        [
            RawRow(1_000_000 + number, row.pool_id, row.timestamp, row.document)
            for number, row in enumerate(long_ago)
        ],
    )
    daily_run.store_history()
    daily_run.insert_rows(history(POOLS, NEWEST, TODAY))
    with pytest.raises(
        CheckFailed, match=r"null_share.*column_name rolling_apy_7d, nulls 21, rows 40"
    ):
        daily_run.run_checks(nulls={"rolling_apy_7d": 0.51})


def test_metric_of_old_pool_must_not_be_null(daily_run: DailyRun) -> None:
    a_month_ago = NEWEST - 31 * DAY
    put_rows(
        daily_run.engine,
        numbered(
            history(POOLS[:20], a_month_ago, a_month_ago + DAY) + history(POOLS[:20], NEWEST, TODAY)
        ),
    )
    with pytest.raises(CheckFailed, match=r"null_share.*stddev_apy_30d, nulls 20, rows 20"):
        daily_run.run_checks(Request(full_refresh=True), nulls={"stddev_apy_30d": 1.0})


def test_pool_without_row_in_pools_is_reported(daily_run: DailyRun) -> None:
    daily_run.store_history()
    daily_run.insert_rows(history([*POOLS, "stranger"], NEWEST, TODAY))
    entry = daily_run.run_checks()["unknown_pool"]
    assert (entry["passed"], entry["severity"], entry["sample"]) == (
        False,
        "warn",
        [{"pool_id": "stranger"}],
    )


def test_empty_pools_table_has_no_unknown_pool(daily_run: DailyRun) -> None:
    put_rows(daily_run.engine, numbered(history(POOLS, FIRST, TODAY)))
    assert failing(daily_run.run_checks()) == set()


def test_severities_by_setting(daily_run: DailyRun) -> None:
    daily_run.settings = daily_run.settings.model_copy(
        update={
            "check_severities": (
                "unknown_pool=fail, rows_far_below_yesterday = off,many_pools_missing=warn"
            )
        }
    )
    daily_run.store_history()
    daily_run.insert_rows(history([*POOLS[:19], "stranger"], NEWEST, TODAY))
    with pytest.raises(CheckFailed, match=r"unknown_pool.*stranger") as stopped:
        daily_run.run_checks()
    assert "pools_missing" not in str(stopped.value)
    ledger = rows_of(
        daily_run.engine,
        "SELECT checks FROM yieldspark.run_ledger ORDER BY started_at DESC LIMIT 1",
    )[0]
    checks = {entry["name"]: entry for entry in ledger["checks"]}
    assert failing(checks) == {"many_pools_missing", "unknown_pool"}
    assert "rows_far_below_yesterday" not in checks


def test_accepted_check_passes_run_and_records_user(daily_run: DailyRun) -> None:
    daily_run.store_history()
    daily_run.insert_rows(history(POOLS[:4], NEWEST, TODAY))
    acceptance = Acceptance(
        ("many_pools_missing", "rows_far_below_yesterday", "null_share"),
        "ann@desk",
        "the source is migrating",
    )
    entries = daily_run.run_checks(acceptance=acceptance)
    acceptances = {
        name: entry["accepted"] for name, entry in entries.items() if "accepted" in entry
    }
    who = {"by": "ann@desk", "reason": "the source is migrating"}
    assert acceptances == {"many_pools_missing": who, "rows_far_below_yesterday": who}
    with pytest.raises(CheckFailed, match="rows_far_below_yesterday"):
        daily_run.run_checks(
            acceptance=Acceptance(("many_pools_missing",), "ann@desk", "only half of it")
        )
