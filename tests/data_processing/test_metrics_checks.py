"""The checks of a commit, on a real PostgreSQL: staging as a run would leave it, and what each
check finds in it. No Spark is needed for that.
"""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from common.errors import CheckFailed
from config_spark import Settings
from data_processing.checks.catalogue import CATALOGUE
from data_processing.planning.run_request import Request
from database.ledger.runs import Acceptance
from tests.support.commit_runs import (
    DAY,
    FIRST,
    NEWEST,
    POOLS,
    TODAY,
    Night,
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
def night(database: Settings, engine: Engine) -> Night:
    return Night(database, engine)


def test_a_full_night_passes(night: Night) -> None:
    night.before()
    night.delivers(history(POOLS, NEWEST, TODAY))
    entries = night.checks()
    assert failing(entries) == set()
    assert set(entries) == {check.name for check in CATALOGUE.values() if check.level != "row"}
    assert {entry["found"] for entry in entries.values()} == {"nothing"}


def test_a_night_with_a_tenth_of_the_pools_is_blocked(night: Night) -> None:
    night.before()
    night.delivers(history(POOLS[:4], NEWEST, TODAY))
    with pytest.raises(
        CheckFailed,
        match=(
            r"many_pools_missing.*MAX_MISSING_POOLS_SHARE \(50%\).*pools_before 40, pools 4,"
            r" missing 36"
        ),
    ) as stopped:
        night.checks()
    assert (
        "--accept-check many_pools_missing --accept-check rows_far_below_yesterday --reason"
        in str(stopped.value)
    )
    ledger = rows_of(
        night.engine,
        "SELECT status, checks FROM yieldspark.run_ledger ORDER BY started_at DESC LIMIT 1",
    )[0]
    found = {entry["name"]: entry for entry in ledger["checks"]}
    assert (ledger["status"], failing(found)) == (
        "blocked",
        {"many_pools_missing", "rows_far_below_yesterday"},
    )
    sample = found["many_pools_missing"]["sample"]
    assert [(row["day"], row["pools_before"], row["pools"], row["missing"]) for row in sample] == [
        (NEWEST.isoformat(), 40, 4, 36)
    ]
    assert set(sample[0]["such_as"]) <= set(POOLS[4:])


def test_the_night_after_a_blocked_one_is_no_better_for_it(night: Night) -> None:
    """The newest day is as bad as the day before: the day before is new too, and judged beside the
    last good one.
    """
    night.before(written=NEWEST - DAY)
    night.delivers(history(POOLS[:4], NEWEST - DAY, TODAY))
    with pytest.raises(CheckFailed, match=f"day {NEWEST - DAY}, pools_before 40"):
        night.checks()


def test_some_missing_pools_are_reported_and_stop_nothing(night: Night) -> None:
    night.before()
    night.delivers(history(POOLS[:35], NEWEST, TODAY))
    entries = night.checks()
    assert failing(entries) == {"some_pools_missing"}
    assert "pools_before 40, pools 35, missing 5" in entries["some_pools_missing"]["found"]


def test_what_no_one_else_names_is_named_by_the_smaller_check(night: Night) -> None:
    night.settings = night.settings.model_copy(
        update={"check_severities": "many_pools_missing=off,rows_far_below_yesterday=off"}
    )
    night.before()
    night.delivers(history(POOLS[:4], NEWEST, TODAY))
    assert failing(night.checks()) == {"some_pools_missing"}


@pytest.mark.parametrize(("share", "blocked"), [(0.05, True), (0.5, False)])
def test_raw_history_that_was_cut_away_does_not_take_the_metrics_with_it(
    night: Night, share: float, blocked: bool
) -> None:
    """Missing days are wanted to go: 40 pools lose 30 of their 125 days."""
    night.settings = night.settings.model_copy(update={"max_removed_days_share": share})
    night.before()
    execute(
        night.engine,
        "UPDATE yieldspark.pool_coverage SET first_day = :first",
        first=FIRST - 120 * DAY,
    )
    night.delivers(history(POOLS, FIRST - 90 * DAY, FIRST) + history(POOLS, NEWEST, TODAY))
    assert "many_days_removed" not in failing(night.checks(Request(full_refresh=True)))
    if blocked:
        with pytest.raises(
            CheckFailed,
            match=(
                r"many_days_removed.*MAX_REMOVED_DAYS_SHARE \(5%\).*removed 1200, known 5000, share"
                r" 0.24"
            ),
        ):
            night.checks(Request(retire_missing=True))
    else:
        assert "many_days_removed" not in failing(night.checks(Request(retire_missing=True)))


def test_days_inside_a_calendar_that_lose_their_values_count_as_removed(night: Night) -> None:
    """They keep a row, with what is carried."""
    night.before()
    execute(
        night.engine,
        "UPDATE yieldspark.pool_coverage SET first_day = :first",
        first=FIRST - 120 * DAY,
    )
    kept = (FIRST - 120 * DAY, FIRST - 119 * DAY), (FIRST - 90 * DAY, FIRST), (NEWEST, TODAY)
    night.delivers([row for first, end in kept for row in history(POOLS, first, end)])
    execute(
        night.engine,
        "INSERT INTO yieldspark.observed_days SELECT pool_id, d::date, d, 1, 5, 1e6 FROM pools"
        " CROSS JOIN generate_series(CAST(:first AS timestamptz), :last, interval '1 day') AS d",
        first=at(FIRST - 119 * DAY),
        last=at(FIRST - 91 * DAY),
    )
    assert "many_days_removed" not in failing(night.checks(Request(full_refresh=True)))
    with pytest.raises(CheckFailed, match=r"many_days_removed.*removed 1160, known 5000"):
        night.checks(Request(retire_missing=True))


def test_a_pool_that_went_inactive_is_not_missing(night: Night) -> None:
    night.before()
    night.delivers(history(POOLS[:20], NEWEST, TODAY))
    execute(night.engine, "UPDATE pools SET is_active = false WHERE pool_id >= 'pool-20'")
    assert failing(night.checks()) == set()


def test_a_pool_that_ended_inactive_is_not_missing_in_a_full_refresh(night: Night) -> None:
    put_rows(
        night.engine, numbered(history(POOLS, FIRST, NEWEST) + history(POOLS[:20], NEWEST, TODAY))
    )
    execute(
        night.engine,
        "INSERT INTO pools (pool_id, is_active) SELECT p, p < 'pool-20' FROM unnest(CAST(:pools AS"
        " text[])) AS p",
        pools=POOLS,
    )
    assert failing(night.checks(Request(full_refresh=True))) == set()


def test_new_ids_for_all_pools_are_missing_pools(night: Night) -> None:
    night.before()
    night.delivers(
        [
            RawRow(0, f"new-{row.pool_id}", row.timestamp, row.document)
            for row in history(POOLS, NEWEST, TODAY)
        ]
    )
    with pytest.raises(CheckFailed, match="many_pools_missing") as stopped:
        night.checks()
    assert "rows_far_below_yesterday" not in str(stopped.value)


def test_fewer_rows_are_judged_by_their_own_limit(night: Night) -> None:
    night.settings = night.settings.model_copy(
        update={"max_missing_pools_share": 1.0, "warn_missing_pools_share": 1.0}
    )
    night.before()
    night.delivers(history(POOLS[:19], NEWEST, TODAY))
    with pytest.raises(CheckFailed, match=r"rows_far_below_yesterday.*\(50%\)"):
        night.checks()


@pytest.mark.parametrize(("share", "pools", "blocked"), [(0.3, 15, False), (0.9, 35, True)])
def test_fewer_rows_by_setting(night: Night, share: float, pools: int, blocked: bool) -> None:
    limits = {
        "max_missing_pools_share": 1.0,
        "warn_missing_pools_share": 1.0,
        "min_pools_ratio": share,
    }
    night.settings = night.settings.model_copy(update=limits)
    night.before()
    night.delivers(history(POOLS[:pools], NEWEST, TODAY))
    if not blocked:
        assert failing(night.checks()) == set()
        return
    with pytest.raises(CheckFailed, match=rf"rows_far_below_yesterday.*\({share:.0%}\)"):
        night.checks()


def test_of_a_handful_of_pools_any_may_be_missing(night: Night) -> None:
    night.before(POOLS[:19])
    night.delivers(history(POOLS[:1], NEWEST, TODAY))
    assert failing(night.checks()) == set()


def test_pools_that_died_long_ago_are_not_missing(night: Night) -> None:
    """History as `load` brings it: pools that ended and that nobody called inactive. A full refresh
    has no day before but those of its own.
    """
    put_rows(
        night.engine,
        numbered(history(POOLS[20:], FIRST, NEWEST - 5 * DAY) + history(POOLS[:20], FIRST, TODAY)),
    )
    assert failing(night.checks(Request(full_refresh=True))) == set()


def test_a_pool_that_was_carried_the_day_before_is_not_missing(night: Night) -> None:
    """Their calendars go on, for nobody called them inactive; on the day before they were not
    observed.
    """
    night.before()
    dead = POOLS[20:]
    execute(
        night.engine,
        "INSERT INTO yieldspark.value_staleness SELECT unnest(CAST(:pools AS text[])), CAST(:day AS"
        " date), NULL, 9",
        pools=dead,
        day=NEWEST - DAY,
    )
    night.delivers(history(POOLS[:20], NEWEST, TODAY))
    assert failing(night.checks()) == set()


def test_some_pools_are_no_night(night: Night) -> None:
    night.before()
    night.delivers(history(POOLS[:4], NEWEST, TODAY))
    assert set(night.checks(Request(pools=tuple(POOLS[10:])))) == OF_ALL_DAYS


def test_a_full_refresh_judges_the_newest_day(night: Night) -> None:
    put_rows(
        night.engine, numbered(history(POOLS, FIRST, NEWEST) + history(POOLS[:4], NEWEST, TODAY))
    )
    with pytest.raises(CheckFailed, match="many_pools_missing"):
        night.checks(Request(full_refresh=True))


def test_a_backfill_judges_the_newest_day_only_where_it_has_it(night: Night) -> None:
    night.before()
    night.delivers(history(POOLS[:4], NEWEST, TODAY))
    entries = night.checks(Request(start=FIRST, end=NEWEST - DAY))
    assert set(entries) == OF_ALL_DAYS
    with pytest.raises(CheckFailed, match="many_pools_missing"):
        night.checks(Request(start=FIRST, end=TODAY))


def test_a_late_correction_has_no_new_day(night: Night) -> None:
    night.before(written=TODAY)
    night.delivers(history(POOLS[:1], FIRST, FIRST + DAY))
    assert set(night.checks()) == OF_ALL_DAYS


@pytest.mark.parametrize(
    ("column", "blocked"),
    [("actual_apy", True), ("eth_open", True), ("btc_open", False), ("rolling_apy_7d", False)],
)
def test_null_shares_by_column(night: Night, column: str, blocked: bool) -> None:
    """ETH was known to the last run, BTC never was; and metrics of pools that young are not asked
    for.
    """
    night.before()
    execute(
        night.engine,
        "UPDATE yieldspark.market_series SET eth_open = 3000 WHERE date = '2024-05-31'",
    )
    night.delivers(history(POOLS, NEWEST, TODAY))
    if not blocked:
        assert failing(night.checks(nulls={column: 0.51})) == set()
        return
    with pytest.raises(
        CheckFailed, match=rf"null_share.*column_name {column}, nulls 21, rows 40, share 0.525"
    ):
        night.checks(nulls={column: 0.51})
    assert failing(night.checks(nulls={column: 0.5})) == set()


@pytest.mark.parametrize(("limit", "share", "blocked"), [(0.6, 0.55, False), (0.2, 0.25, True)])
def test_null_shares_by_setting(night: Night, limit: float, share: float, blocked: bool) -> None:
    night.settings = night.settings.model_copy(update={"max_null_share": limit})
    night.before()
    night.delivers(history(POOLS, NEWEST, TODAY))
    if not blocked:
        assert failing(night.checks(nulls={"actual_apy": share})) == set()
        return
    with pytest.raises(CheckFailed, match=rf"null_share.*MAX_NULL_SHARE \({limit:.0%}\)"):
        night.checks(nulls={"actual_apy": share})


@pytest.mark.parametrize(("pools", "blocked"), [(19, False), (20, True)])
def test_of_a_handful_of_rows_all_may_be_null(night: Night, pools: int, blocked: bool) -> None:
    night.before(POOLS[:pools])
    night.delivers(history(POOLS[:pools], NEWEST, TODAY))
    if not blocked:
        assert failing(night.checks(nulls={"actual_apy": 1.0})) == set()
        return
    with pytest.raises(CheckFailed, match=f"null_share.*nulls {pools}, rows {pools}"):
        night.checks(nulls={"actual_apy": 1.0})


def test_in_an_ordinary_night_pools_older_than_what_is_read_must_have_their_metrics(
    night: Night,
) -> None:
    long_ago = history(POOLS, FIRST - 60 * DAY, FIRST - 59 * DAY)
    put_rows(
        night.engine,
        [
            RawRow(1_000_000 + number, row.pool_id, row.timestamp, row.document)
            for number, row in enumerate(long_ago)
        ],
    )
    night.before()
    night.delivers(history(POOLS, NEWEST, TODAY))
    with pytest.raises(
        CheckFailed, match=r"null_share.*column_name rolling_apy_7d, nulls 21, rows 40"
    ):
        night.checks(nulls={"rolling_apy_7d": 0.51})


def test_a_metric_of_old_pools_must_not_be_null(night: Night) -> None:
    a_month_ago = NEWEST - 31 * DAY
    put_rows(
        night.engine,
        numbered(
            history(POOLS[:20], a_month_ago, a_month_ago + DAY) + history(POOLS[:20], NEWEST, TODAY)
        ),
    )
    with pytest.raises(CheckFailed, match=r"null_share.*stddev_apy_30d, nulls 20, rows 20"):
        night.checks(Request(full_refresh=True), nulls={"stddev_apy_30d": 1.0})


def test_a_pool_without_a_row_in_pools_is_reported(night: Night) -> None:
    night.before()
    night.delivers(history([*POOLS, "stranger"], NEWEST, TODAY))
    entry = night.checks()["unknown_pool"]
    assert (entry["passed"], entry["severity"], entry["sample"]) == (
        False,
        "warn",
        [{"pool_id": "stranger"}],
    )


def test_where_pools_is_empty_nobody_is_unknown(night: Night) -> None:
    put_rows(night.engine, numbered(history(POOLS, FIRST, TODAY)))
    assert failing(night.checks()) == set()


def test_severities_by_setting(night: Night) -> None:
    night.settings = night.settings.model_copy(
        update={
            "check_severities": (
                "unknown_pool=fail, rows_far_below_yesterday = off,many_pools_missing=warn"
            )
        }
    )
    night.before()
    night.delivers(history([*POOLS[:19], "stranger"], NEWEST, TODAY))
    with pytest.raises(CheckFailed, match=r"unknown_pool.*stranger") as stopped:
        night.checks()
    assert "pools_missing" not in str(stopped.value)
    ledger = rows_of(
        night.engine, "SELECT checks FROM yieldspark.run_ledger ORDER BY started_at DESC LIMIT 1"
    )[0]
    found = {entry["name"]: entry for entry in ledger["checks"]}
    assert failing(found) == {"many_pools_missing", "unknown_pool"}
    assert "rows_far_below_yesterday" not in found


def test_an_accepted_check_lets_the_run_through_and_says_who_did(night: Night) -> None:
    night.before()
    night.delivers(history(POOLS[:4], NEWEST, TODAY))
    acceptance = Acceptance(
        ("many_pools_missing", "rows_far_below_yesterday", "null_share"),
        "ann@desk",
        "the source is migrating",
    )
    entries = night.checks(acceptance=acceptance)
    said = {name: entry["accepted"] for name, entry in entries.items() if "accepted" in entry}
    who = {"by": "ann@desk", "reason": "the source is migrating"}
    assert said == {"many_pools_missing": who, "rows_far_below_yesterday": who}
    with pytest.raises(CheckFailed, match="rows_far_below_yesterday"):
        night.checks(acceptance=Acceptance(("many_pools_missing",), "ann@desk", "only half of it"))
