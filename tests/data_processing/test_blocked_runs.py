"""Tests runs that a check blocks, end to end: nothing is written, the ledger has the reason, and a
user may accept the check.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from common.errors import CheckFailed, ConfigurationError
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.checks.catalogue import CATALOGUE, changed_severities, parse_acceptance
from data_processing.checks.row_checks import raw_row_checks
from data_processing.commit.row_accounting import record_counts
from data_processing.ingest.loading.load_files import load_files
from data_processing.planning.run_request import Request
from database.ledger.check_result import Acceptance
from database.ledger.runs import open_run
from sample_data import SAMPLE_FILES
from tests.data_processing.test_metrics_job import assert_equal_to_oracle
from tests.support import metrics_oracle
from tests.support.current_day import midnight_of, today
from tests.support.metrics_oracle import RawRow, World
from tests.support.metrics_store import put, put_rows, rows_of, settings_of, without_jvm
from tests.support.processes import PROJECT, CommandLine

DAY = timedelta(days=1)
POOLS = [f"pool-{number:02d}" for number in range(24)]
SHARES = (
    "max_removed_days_share",
    "max_spike_factor",
    "spike_window_hours",
    "max_missing_pools_share",
    "warn_missing_pools_share",
    "min_pools_ratio",
    "max_null_share",
)
TABLES = (
    "pool_daily_metrics",
    "yieldspark.value_staleness",
    "yieldspark.pool_coverage",
    "yieldspark.market_series",
    "yieldspark.quarantine",
    "yieldspark.observed_days",
    "raw_defillama_pool_history",
)


def this_day() -> datetime:
    """Return the start of the current day, UTC."""
    return midnight_of(today())


def snapshots(pools: list[str], day: datetime, first_id: int) -> list[RawRow]:
    return [
        RawRow(
            first_id + number, pool, day + timedelta(hours=9), {"apy": 4.0 + number, "tvlUsd": 1e6}
        )
        for number, pool in enumerate(pools)
    ]


@pytest.fixture
def incomplete_day(engine: Engine) -> World:
    """Twenty-four pools on two days, and three of them on a third day, one with an invalid
    row too.
    """
    rows = []
    for number in range(2):
        rows += snapshots(POOLS, this_day() - (3 - number) * DAY, 1 + number * 100)
    history = World(rows=rows, now=this_day() + timedelta(hours=6))
    put(engine, history)
    return history


def add_third_day(history: World, engine: Engine) -> None:
    rows = snapshots(POOLS[:3], this_day() - DAY, 501)
    rows.append(
        RawRow(600, POOLS[0], this_day() - DAY + timedelta(hours=10), {"apy": "?", "tvlUsd": 1e6})
    )
    history.rows += rows
    put_rows(engine, rows)


def every_byte(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Return each row with its place and the transaction that wrote it, which show updates to the
    same values too.
    """
    return {
        table: rows_of(
            engine, f"SELECT t.ctid::text, t.xmin::text, t.* FROM {table} AS t ORDER BY t.ctid"
        )
        for table in TABLES
    }


def test_blocked_run_writes_nothing_and_next_run_continues(
    database: Settings, engine: Engine, incomplete_day: World
) -> None:
    settings = settings_of(database, incomplete_day)

    def metrics(**options: Any) -> dict[str, Any]:
        return run_metrics(without_jvm(settings), now=incomplete_day.now, **options)

    assert metrics()["status"] == "succeeded"
    add_third_day(incomplete_day, engine)
    before = every_byte(engine)
    with pytest.raises(CheckFailed, match="many_pools_missing"):
        metrics()
    assert every_byte(engine) == before
    assert rows_of(engine, "SELECT tablename FROM pg_tables WHERE tablename LIKE 'staging%'") == []
    ledger = rows_of(
        engine,
        "SELECT status, rows, checks, error FROM yieldspark.run_ledger ORDER BY started_at DESC"
        " LIMIT 1",
    )[0]
    assert (ledger["status"], ledger["rows"]["inserted"], ledger["rows"]["quarantined"]) == (
        "blocked",
        0,
        1,
    )
    checks = {entry["name"]: entry for entry in ledger["checks"]}
    assert checks["many_pools_missing"]["sample"][0]["missing"] == 21
    assert (checks["apy_not_a_number"]["level"], checks["apy_not_a_number"]["failing"]) == (
        "row",
        1,
    )
    assert all(
        {"name", "level", "severity", "passed", "found"} <= entry.keys()
        for entry in ledger["checks"]
    )

    with pytest.raises(CheckFailed, match="rows_far_below_yesterday"):
        metrics(acceptance=Acceptance(("many_pools_missing",), "ann@desk", "half of the answer"))
    assert every_byte(engine) == before
    let_through = metrics(
        acceptance=Acceptance(
            ("many_pools_missing", "rows_far_below_yesterday"), "ann@desk", "the source says so"
        )
    )
    assert (let_through["status"], let_through["rows"]["quarantined"]) == ("succeeded", 1)
    who = {
        entry["name"]: entry["accepted"] for entry in let_through["checks"] if "accepted" in entry
    }
    assert who["many_pools_missing"] == {"by": "ann@desk", "reason": "the source says so"}
    assert_equal_to_oracle(engine, incomplete_day)
    assert metrics()["status"] == "nothing_to_do"


def test_daily_run_from_command_line(
    run_here: CommandLine, engine: Engine, incomplete_day: World
) -> None:
    assert run_here.json("calculate_metrics")["status"] == "succeeded"
    add_third_day(incomplete_day, engine)
    before = every_byte(engine)
    document = run_here.json("calculate_metrics", code=1)
    assert (document["status"], document["rows"]["inserted"]) == ("blocked", 0)
    assert (
        "--accept-check many_pools_missing --accept-check rows_far_below_yesterday --reason TEXT"
        in document["error"]
    )
    assert every_byte(engine) == before

    accept = [
        "--accept-check",
        "many_pools_missing",
        "--accept-check",
        "rows_far_below_yesterday",
        "--reason",
        "migration at the source",
    ]
    document = run_here.json("calculate_metrics", *accept)
    assert document["status"] == "succeeded"
    accepted, _ = [entry["accepted"] for entry in document["checks"] if "accepted" in entry]
    assert accepted["reason"] == "migration at the source"
    assert "@" in accepted["by"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--accept-check", "many_pools", "--reason", "x"],
            "there is no such check. Allowed: spike, unknown_pool, many_pools_missing",
        ),
        (["--accept-check", "apy_not_a_number", "--reason", "x"], "quarantine"),
        (["--accept-check", "unique_key", "--reason", "x"], "can't accept 'unique_key'"),
        (["--accept-check", "spike"], "--reason TEXT"),
        (["--accept-check", "spike", "--reason", "  "], "--reason TEXT"),
        (["--reason", "because"], "--accept-check NAME"),
    ],
)
def test_rejects_wrong_acceptance(
    run_here: CommandLine, arguments: list[str], message: str
) -> None:
    document = run_here.json("calculate_metrics", *arguments, code=2)
    assert message in document["error"]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"read": 9, "accepted": 9}, None),
        ({"read": 9, "accepted": 8, "tvl_negative": 1}, None),
        (
            {"read": 9, "accepted": 8},
            "accepted_and_quarantined_are_all: 8 accepted and 0 quarantined of 9 read",
        ),
        ({"read": 8, "accepted": 8}, "planned_rows_were_read: 8 read, 9 planned"),
    ],
)
def test_accepted_plus_quarantined_equals_read(
    database: Settings, engine: Engine, counts: dict[str, int], message: str | None
) -> None:
    checks = raw_row_checks(database, this_day())
    none = dict.fromkeys((check.name for check in checks), 0)
    with open_run(engine, job="counts", mode="test") as run:
        run.nothing_to_do()
    if message is None:
        record_counts(run, database, none | counts, checks, 9)
        assert (run.rows["read"], run.rows["quarantined"]) == (9, counts.get("tvl_negative", 0))
        return
    with pytest.raises(CheckFailed, match=message):
        record_counts(run, database, none | counts, checks, 9)


def test_real_history_passes_without_warning(database: Settings) -> None:
    """The sample of the demo. A backfill and a full refresh of it report nothing either."""
    load_files(database, SAMPLE_FILES)
    backfill = Request(start=date(2025, 9, 1), end=date(2025, 9, 30))
    for request in (Request(), backfill, Request(full_refresh=True)):
        row = run_metrics(without_jvm(database), request)
        assert row["status"] == "succeeded"
        assert [entry["name"] for entry in row["checks"] if not entry["passed"]] == []


@pytest.mark.shared_data
def test_old_history_with_ended_pools_passes(database: Settings, shared_data: Path) -> None:
    """487 pools with APYs up to 355,083 %. A few pools end early; none is marked inactive."""
    load_files(database, [shared_data / "defillama_pool_history.parquet"])
    row = run_metrics(without_jvm(database))
    assert (row["status"], [entry["name"] for entry in row["checks"] if not entry["passed"]]) == (
        "succeeded",
        [],
    )


def test_acceptance_has_user_and_reason() -> None:
    assert parse_acceptance([], None, "ann@desk") is None
    assert parse_acceptance(["spike"], " seen ", "ann@desk") == Acceptance(
        ("spike",), "ann@desk", "seen"
    )


@pytest.mark.parametrize(
    ("severities", "message"),
    [
        ("spike", "write NAME=fail, NAME=warn or NAME=off"),
        ("spike=loud", "write NAME=fail, NAME=warn or NAME=off"),
        ("spikes=fail", "there is no such check. Allowed: apy_infinite"),
        ("tvl_negative=warn", "no metric or forecast can be computed from it"),
        ("apy_beyond_limit=off", "change its limit"),
        ("timestamp_in_future=off", "belongs to no day"),
        ("pool_id_missing=off", "can't be stored"),
        ("staged_rows=off", "there is no such check"),
    ],
)
def test_rejects_wrong_severity(database: Settings, severities: str, message: str) -> None:
    wrong = database.model_copy(update={"check_severities": severities})
    with pytest.raises(ConfigurationError, match="CHECK_SEVERITIES") as refused:
        run_metrics(wrong)
    assert message in str(refused.value)


def test_every_adjustable_check_accepts_every_severity(database: Settings) -> None:
    free = [check.name for check in CATALOGUE.values() if check.fixed_reason is None]
    for severity in ("fail", "warn", "off"):
        severities = ",".join(f"{name}={severity}" for name in free)
        assert changed_severities(
            database.model_copy(update={"check_severities": severities})
        ) == dict.fromkeys(free, severity)


def test_row_with_warning_is_used(
    database: Settings, engine: Engine, incomplete_day: World
) -> None:
    """The unusable APY counts as missing and the TVL is used; a row without any usable value is
    left out. A new severity recomputes everything.
    """
    rows = [
        RawRow(301, POOLS[0], this_day() - DAY + timedelta(hours=11), {"apy": "?", "tvlUsd": 7.0}),
        RawRow(302, POOLS[1], this_day() - DAY + timedelta(hours=11), {"apy": "?", "tvlUsd": None}),
        *snapshots(POOLS, this_day() - DAY, 401),
    ]
    put_rows(engine, rows)
    strict = settings_of(database, incomplete_day)
    lenient = strict.model_copy(update={"check_severities": "apy_not_a_number=warn"})
    first = run_metrics(without_jvm(strict), now=incomplete_day.now)
    second = run_metrics(without_jvm(lenient), now=incomplete_day.now)
    assert (first["rows"]["quarantined"], second["rows"]["quarantined"], second["mode"]) == (
        2,
        1,
        "full_refresh",
    )
    severities = {
        entry["name"]: (entry["severity"], entry["failing"])
        for entry in second["checks"]
        if entry["level"] == "row"
    }
    assert severities == {"apy_not_a_number": ("warn", 1), "apy_and_tvl_unusable": ("fail", 1)}
    newest = rows_of(
        engine,
        "SELECT actual_tvl::float8 AS tvl, actual_apy::float8 AS apy FROM pool_daily_metrics WHERE"
        " pool_id = 'pool-00' ORDER BY date DESC LIMIT 1",
    )
    assert newest == [{"tvl": 7.0, "apy": 4.0}]
    incomplete_day.rows += [
        (
            RawRow(row.id, row.pool_id, row.timestamp, {"apy": None, "tvlUsd": 7.0})
            if row.id == 301
            else row
        )
        for row in rows
    ]
    assert metrics_oracle.quarantine(incomplete_day) == {302: "apy_not_a_number"}
    assert_equal_to_oracle(engine, incomplete_day)


def test_every_check_is_in_the_page_for_users_with_its_level_and_severity() -> None:
    page = (PROJECT / "docs" / "quality.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in lines]
    checks = [row for row in rows if len(row) == 5]
    documented = {}
    for row in checks:
        for name in re.findall("`([a-z_0-9]+)`", row[0]):
            documented[name] = (row[1], row[2])
    catalogue = {
        check.name: (
            check.level.replace("_", "-"),
            check.severity + ("" if check.fixed_reason else ", free"),
        )
        for check in CATALOGUE.values()
    }
    assert documented == catalogue
    limits = set(chain.from_iterable(re.findall("`([A-Z_]+)`", row[3]) for row in checks))
    assert limits == {
        name.upper() for name in ("max_apy_percent", "max_tvl_usd", "max_price_usd", *SHARES)
    }
