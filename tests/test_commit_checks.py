"""The checks of a commit, on a real PostgreSQL: staging as a run would leave it, and what each check finds in it. No Spark is needed for that."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.check_catalogue import CATALOGUE
from data_processing.commit_checks import commit_checks
from data_processing.plan import JOB, Plan, plan_metrics
from data_processing.plan_request import Request
from database import batch_checks
from database.batch_checks import run_checks
from database.merge_sql import create_staging
from database.run_ledger import Acceptance, Run, open_run
from database.staging import staging_name
from database.tables import METRIC_COLUMNS
from product_errors import CheckFailed
from tests.metrics_oracle import RawRow
from tests.metrics_store import execute, put_rows, rows_of
from tests.test_metrics_plan import add_calendar, add_run

NOW = datetime(2024, 6, 3, 6, tzinfo=UTC)
TODAY = NOW.date()
DAY = timedelta(days=1)
NEWEST = TODAY - DAY
FIRST = NEWEST - 5 * DAY
POOLS = [f"pool-{number:02d}" for number in range(40)]


def at(day: date, hour: float = 12) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour)


def history(pools: list[str], first: date, end: date, **document: Any) -> list[RawRow]:
    days = (end - first).days
    return [RawRow(0, pool, at(first + number * DAY), document or {"apy": 5.0, "tvlUsd": 1e6}) for number in range(days) for pool in pools]


def numbered(rows: list[RawRow]) -> list[RawRow]:
    return [RawRow(number, row.pool_id, row.timestamp, row.document) for number, row in enumerate(rows, start=1)]


class Night:
    """A database whose pools are complete up to `written`, raw rows beyond it, and the run that takes them in."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings, self.engine = settings, engine

    def before(self, pools: list[str] = POOLS, *, written: date = NEWEST) -> None:
        put_rows(self.engine, numbered(history(pools, FIRST, written)))
        execute(self.engine, "INSERT INTO pools (pool_id) SELECT unnest(CAST(:pools AS text[]))", pools=pools)
        execute(
            self.engine,
            "INSERT INTO yieldspark.market_series (date) SELECT d::date FROM generate_series(DATE '2018-01-01', :last, interval '1 day') AS d",
            last=TODAY,
        )
        for pool in pools:
            add_calendar(self.engine, pool, FIRST, written - DAY)
        add_run(self.engine, self.settings, datetime.now(UTC), written)

    def delivers(self, rows: list[RawRow]) -> None:
        start = rows_of(self.engine, "SELECT coalesce(max(id), 0) AS id FROM raw_defillama_pool_history")[0]["id"]
        put_rows(self.engine, [RawRow(start + number, row.pool_id, row.timestamp, row.document) for number, row in enumerate(rows, start=1)])

    def checks(
        self, request: Request | None = None, *, acceptance: Acceptance | None = None, nulls: dict[str, float] | None = None
    ) -> dict[str, Any]:
        """Plan, stage what the plan asks for, run the checks; the entries by name. Raises what they raise."""
        with open_run(self.engine, job=JOB, mode="incremental") as run:
            run.acceptance = acceptance
            plan = plan_metrics(self.settings, self.engine, request or Request(), table=staging_name(run, "plan"), now=NOW)
            self._stage(run, plan, nulls or {})
            with run.connection.begin():
                run_checks(run, commit_checks(self.settings, plan, staging_name(run, 0)))
            run.nothing_to_do()
        return {entry["name"]: entry for entry in run.checks}

    def _stage(self, run: Run, plan: Plan, nulls: dict[str, float]) -> None:
        """A row for each planned day, observed where there is a raw row; `nulls`: the share of pools in which a column is null."""
        doubles = dict.fromkeys(METRIC_COLUMNS, "double precision")
        types = {"pool_id": "text", "date": "date", **doubles, "apy_age_days": "integer", "tvl_age_days": "integer"}
        staging = staging_name(run, 0)
        number = "coalesce(substring(p.pool_id FROM '^pool-([0-9]+)$')::integer, 99)"
        values = ", ".join(f"CASE WHEN {number} >= {nulls.get(name, 0.0) * len(POOLS)} THEN 1.0 END" for name in METRIC_COLUMNS)
        first_day = "SELECT min(timestamp AT TIME ZONE 'UTC')::date FROM raw_defillama_pool_history AS h WHERE h.pool_id = p.pool_id"
        execute(self.engine, create_staging(staging, types))
        execute(
            self.engine,
            f"INSERT INTO {staging} SELECT p.pool_id, d::date, {values}, CASE WHEN seen THEN 0 ELSE 1 END, CASE WHEN seen THEN 0 ELSE 1 END, 0, 0 "
            f"FROM {plan.table} AS p CROSS JOIN LATERAL generate_series(greatest(p.write_from, ({first_day})), p.write_end - 1, "
            "interval '1 day') AS d CROSS JOIN LATERAL ("
            "SELECT EXISTS (SELECT FROM raw_defillama_pool_history AS h "
            "WHERE h.pool_id = p.pool_id AND (h.timestamp AT TIME ZONE 'UTC')::date = d) AS seen) AS s",
        )


@pytest.fixture
def night(database: Settings, engine: Engine) -> Night:
    return Night(database, engine)


def failing(entries: dict[str, Any]) -> set[str]:
    return {name for name, entry in entries.items() if not entry["passed"]}


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
    with pytest.raises(CheckFailed, match=r"many_pools_missing.*MAX_MISSING_POOLS_SHARE \(50%\).*pools_before 40, pools 4, missing 36") as stopped:
        night.checks()
    assert "--accept-check many_pools_missing --accept-check rows_far_below_yesterday --reason" in str(stopped.value)
    ledger = rows_of(night.engine, "SELECT status, checks FROM yieldspark.run_ledger ORDER BY started_at DESC LIMIT 1")[0]
    found = {entry["name"]: entry for entry in ledger["checks"]}
    assert (ledger["status"], failing(found)) == ("blocked", {"many_pools_missing", "rows_far_below_yesterday"})
    sample = found["many_pools_missing"]["sample"]
    assert [(row["day"], row["pools_before"], row["pools"], row["missing"]) for row in sample] == [(NEWEST.isoformat(), 40, 4, 36)]
    assert set(sample[0]["such_as"]) <= set(POOLS[4:])


def test_the_night_after_a_blocked_one_is_no_better_for_it(night: Night) -> None:
    """The newest day is as bad as the day before: the day before is new too, and judged beside the last good one."""
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
    night.settings = night.settings.model_copy(update={"check_severities": "many_pools_missing=off,rows_far_below_yesterday=off"})
    night.before()
    night.delivers(history(POOLS[:4], NEWEST, TODAY))
    assert failing(night.checks()) == {"some_pools_missing"}


def test_a_pool_that_went_inactive_is_not_missing(night: Night) -> None:
    night.before()
    night.delivers(history(POOLS[:20], NEWEST, TODAY))
    execute(night.engine, "UPDATE pools SET is_active = false WHERE pool_id >= 'pool-20'")
    assert failing(night.checks()) == set()


def test_a_pool_that_ended_inactive_is_not_missing_in_a_full_refresh(night: Night) -> None:
    put_rows(night.engine, numbered(history(POOLS, FIRST, NEWEST) + history(POOLS[:20], NEWEST, TODAY)))
    execute(night.engine, "INSERT INTO pools (pool_id, is_active) SELECT p, p < 'pool-20' FROM unnest(CAST(:pools AS text[])) AS p", pools=POOLS)
    assert failing(night.checks(Request(full_refresh=True))) == set()


def test_new_ids_for_all_pools_are_missing_pools(night: Night) -> None:
    night.before()
    night.delivers([RawRow(0, f"new-{row.pool_id}", row.timestamp, row.document) for row in history(POOLS, NEWEST, TODAY)])
    with pytest.raises(CheckFailed, match="many_pools_missing") as stopped:
        night.checks()
    assert "rows_far_below_yesterday" not in str(stopped.value)


def test_fewer_rows_are_judged_by_their_own_limit(night: Night) -> None:
    night.settings = night.settings.model_copy(update={"max_missing_pools_share": 1.0, "warn_missing_pools_share": 1.0})
    night.before()
    night.delivers(history(POOLS[:19], NEWEST, TODAY))
    with pytest.raises(CheckFailed, match=r"rows_far_below_yesterday.*\(50%\)"):
        night.checks()


@pytest.mark.parametrize(("share", "pools", "blocked"), [(0.3, 15, False), (0.9, 35, True)])
def test_fewer_rows_by_setting(night: Night, share: float, pools: int, blocked: bool) -> None:
    limits = {"max_missing_pools_share": 1.0, "warn_missing_pools_share": 1.0, "min_rows_share_of_yesterday": share}
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
    """History as `load` brings it: pools that ended and that nobody called inactive. A full refresh has no day before but those of its own."""
    put_rows(night.engine, numbered(history(POOLS[20:], FIRST, NEWEST - 5 * DAY) + history(POOLS[:20], FIRST, TODAY)))
    assert failing(night.checks(Request(full_refresh=True))) == set()


def test_a_pool_that_was_carried_the_day_before_is_not_missing(night: Night) -> None:
    """Their calendars go on, for nobody called them inactive; on the day before they were not observed."""
    night.before()
    dead = POOLS[20:]
    execute(
        night.engine,
        "INSERT INTO yieldspark.observation_age SELECT unnest(CAST(:pools AS text[])), CAST(:day AS date), NULL, 9",
        pools=dead,
        day=NEWEST - DAY,
    )
    night.delivers(history(POOLS[:20], NEWEST, TODAY))
    assert failing(night.checks()) == set()


def test_some_pools_are_no_night(night: Night) -> None:
    night.before()
    night.delivers(history(POOLS[:4], NEWEST, TODAY))
    assert set(night.checks(Request(pools=tuple(POOLS[10:])))) == {"unknown_pool", "spike"}


def test_a_full_refresh_judges_the_newest_day(night: Night) -> None:
    put_rows(night.engine, numbered(history(POOLS, FIRST, NEWEST) + history(POOLS[:4], NEWEST, TODAY)))
    with pytest.raises(CheckFailed, match="many_pools_missing"):
        night.checks(Request(full_refresh=True))


def test_a_backfill_judges_the_newest_day_only_where_it_has_it(night: Night) -> None:
    night.before()
    night.delivers(history(POOLS[:4], NEWEST, TODAY))
    entries = night.checks(Request(start=FIRST, end=NEWEST - DAY))
    assert set(entries) == {"unknown_pool", "spike"}
    with pytest.raises(CheckFailed, match="many_pools_missing"):
        night.checks(Request(start=FIRST, end=TODAY))


def test_a_late_correction_has_no_new_day(night: Night) -> None:
    night.before(written=TODAY)
    night.delivers(history(POOLS[:1], FIRST, FIRST + DAY))
    assert set(night.checks()) == {"unknown_pool", "spike"}


@pytest.mark.parametrize(("column", "blocked"), [("actual_apy", True), ("eth_open", True), ("btc_open", False), ("rolling_apy_7d", False)])
def test_null_shares_by_column(night: Night, column: str, blocked: bool) -> None:
    """ETH was known to the last run, BTC never was; and metrics of pools that young are not asked for."""
    night.before()
    execute(night.engine, "UPDATE yieldspark.market_series SET eth_open = 3000 WHERE date = '2024-05-31'")
    night.delivers(history(POOLS, NEWEST, TODAY))
    if not blocked:
        assert failing(night.checks(nulls={column: 0.51})) == set()
        return
    with pytest.raises(CheckFailed, match=rf"null_share.*column_name {column}, nulls 21, rows 40, share 0.525"):
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


def test_in_an_ordinary_night_pools_older_than_what_is_read_must_have_their_metrics(night: Night) -> None:
    long_ago = history(POOLS, FIRST - 60 * DAY, FIRST - 59 * DAY)
    put_rows(night.engine, [RawRow(1_000_000 + number, row.pool_id, row.timestamp, row.document) for number, row in enumerate(long_ago)])
    night.before()
    night.delivers(history(POOLS, NEWEST, TODAY))
    with pytest.raises(CheckFailed, match=r"null_share.*column_name rolling_apy_7d, nulls 21, rows 40"):
        night.checks(nulls={"rolling_apy_7d": 0.51})


def test_a_metric_of_old_pools_must_not_be_null(night: Night) -> None:
    a_month_ago = NEWEST - 31 * DAY
    put_rows(night.engine, numbered(history(POOLS[:20], a_month_ago, a_month_ago + DAY) + history(POOLS[:20], NEWEST, TODAY)))
    with pytest.raises(CheckFailed, match=r"null_share.*stddev_apy_30d, nulls 20, rows 20"):
        night.checks(Request(full_refresh=True), nulls={"stddev_apy_30d": 1.0})


def test_a_pool_without_a_row_in_pools_is_reported(night: Night) -> None:
    night.before()
    night.delivers(history([*POOLS, "stranger"], NEWEST, TODAY))
    entry = night.checks()["unknown_pool"]
    assert (entry["passed"], entry["severity"], entry["sample"]) == (False, "warn", [{"pool_id": "stranger"}])


def test_where_pools_is_empty_nobody_is_unknown(night: Night) -> None:
    put_rows(night.engine, numbered(history(POOLS, FIRST, TODAY)))
    assert failing(night.checks()) == set()


def test_severities_by_setting(night: Night) -> None:
    night.settings = night.settings.model_copy(
        update={"check_severities": "unknown_pool=fail, rows_far_below_yesterday = off,many_pools_missing=warn"}
    )
    night.before()
    night.delivers(history([*POOLS[:19], "stranger"], NEWEST, TODAY))
    with pytest.raises(CheckFailed, match=r"unknown_pool.*stranger") as stopped:
        night.checks()
    assert "pools_missing" not in str(stopped.value)
    ledger = rows_of(night.engine, "SELECT checks FROM yieldspark.run_ledger ORDER BY started_at DESC LIMIT 1")[0]
    found = {entry["name"]: entry for entry in ledger["checks"]}
    assert failing(found) == {"many_pools_missing", "unknown_pool"}
    assert "rows_far_below_yesterday" not in found


def test_an_accepted_check_lets_the_run_through_and_says_who_did(night: Night) -> None:
    night.before()
    night.delivers(history(POOLS[:4], NEWEST, TODAY))
    acceptance = Acceptance(("many_pools_missing", "rows_far_below_yesterday", "null_share"), "ann@desk", "the source is migrating")
    entries = night.checks(acceptance=acceptance)
    said = {name: entry["accepted"] for name, entry in entries.items() if "accepted" in entry}
    who = {"by": "ann@desk", "reason": "the source is migrating"}
    assert said == {"many_pools_missing": who, "rows_far_below_yesterday": who}
    with pytest.raises(CheckFailed, match="rows_far_below_yesterday"):
        night.checks(acceptance=Acceptance(("many_pools_missing",), "ann@desk", "only half of it"))


Snapshots = list[tuple[float, Any]]

SPIKES: dict[str, Snapshots] = {
    "there and back": [(0, 100_000), (2, 1_100_000), (4, 101_000)],
    "down and back": [(0, 100_000), (2, 9_000), (4, 101_000)],
    "to zero and back": [(0, 100_000), (2, 0), (4, 101_000)],
    "over midnight": [(-3, 100_000), (-1, 2_000_000), (0.5, 100_000)],
    "an unusable row between": [(0, 100_000), (1, "bad"), (2, 1_100_000), (4, 101_000)],
    "a missing value between": [(0, 100_000), (1, None), (2, 1_100_000), (4, 101_000)],
}

NO_SPIKES: dict[str, Snapshots] = {
    "no more than the factor": [(0, 100_000), (2, 1_000_000), (4, 101_000)],
    "it stays": [(0, 100_000), (2, 1_100_000), (4, 1_100_000)],
    "six hours": [(0, 100_000), (2, 1_100_000), (6, 101_000)],
    "two snapshots": [(0, 100_000), (2, 1_100_000)],
    "from nothing to little": [(0, 1), (2, 999), (4, 1)],
    "corrected at the same moment": [(0, 100_000), (2, 1_100_000), (2, 101_000), (4, 100_000)],
    "already in quarantine": [(0, 100_000), (2, 2e12), (4, 101_000)],
}


@pytest.mark.parametrize("measure", ["apy", "tvlUsd"])
def test_what_a_spike_is(night: Night, monkeypatch: pytest.MonkeyPatch, measure: str) -> None:
    """1 % is to an APY what 1,000 USD are to a TVL, and the limits are as far away."""
    monkeypatch.setattr(batch_checks, "SAMPLE_ROWS", 100)
    kinds = SPIKES | NO_SPIKES
    unit = 0.001 if measure == "apy" else 1.0
    night.settings = night.settings.model_copy(update={"max_apy_percent": 1e6})
    night.before(list(kinds))
    for pool, snapshots in kinds.items():
        values = [(hour, value * unit if isinstance(value, int | float) else value) for hour, value in snapshots]
        night.delivers([RawRow(0, pool, at(NEWEST, hour), {measure: value, "apyBase": 1}) for hour, value in values])
    entry = night.checks()["spike"]
    assert {row["pool_id"] for row in entry["sample"]} == set(SPIKES)
    assert {row["measure"] for row in entry["sample"]} == {measure.removesuffix("Usd")}
    assert entry["failing"] == len(SPIKES)


@pytest.mark.parametrize(
    ("setting", "value", "kind", "is_one"),
    [
        ("spike_hours", 7.0, "six hours", True),
        ("spike_hours", 3.0, "there and back", False),
        ("max_spike_factor", 5.0, "no more than the factor", True),
        ("max_spike_factor", 20.0, "there and back", False),
    ],
)
def test_a_spike_by_setting(night: Night, setting: str, value: float, kind: str, is_one: bool) -> None:
    night.settings = night.settings.model_copy(update={setting: value})
    night.before([kind])
    night.delivers([RawRow(0, kind, at(NEWEST, hour), {"tvlUsd": tvl}) for hour, tvl in (SPIKES | NO_SPIKES)[kind]])
    assert night.checks()["spike"]["passed"] is not is_one


def test_a_known_spike_is_not_reported_again(night: Night) -> None:
    night.before(POOLS[:1])
    night.delivers([RawRow(0, POOLS[0], at(NEWEST, hour), {"tvlUsd": value}) for hour, value in ((1, 1e6), (2, 1e8), (3, 1e6))])
    assert not night.checks()["spike"]["passed"]
    add_run(night.engine, night.settings, datetime.now(UTC), TODAY - DAY)
    night.delivers([RawRow(0, POOLS[0], at(NEWEST, 4), {"tvlUsd": 1.1e6})])
    assert night.checks()["spike"]["passed"]


def test_a_spike_says_whether_the_day_is_known_by_it(night: Night) -> None:
    night.before(POOLS[:1])
    night.delivers([RawRow(0, POOLS[0], at(NEWEST, hour), {"tvlUsd": value}) for hour, value in ((21, 1e6), (23.9, 1e8), (25, 1e6))])
    (spike,) = night.checks()["spike"]["sample"]
    assert (spike["before"], spike["spike"], spike["after"], spike["is_value_of_its_day"]) == (1e6, 1e8, 1e6, True)


def test_without_a_predecessor_the_newest_days_are_looked_at(night: Night) -> None:
    old, new = (
        [RawRow(0, "p", at(day, hour), {"tvlUsd": value}) for hour, value in ((1, 1e6), (2, 1e8), (3, 1e6))] for day in (NEWEST - 8 * DAY, NEWEST)
    )
    put_rows(night.engine, numbered(old + new))
    entry = night.checks()["spike"]
    assert (entry["failing"], entry["sample"][0]["timestamp"][:10]) == (1, NEWEST.isoformat())
