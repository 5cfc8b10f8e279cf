"""Tests the plan as data: SQL makes it before a Spark session exists."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Engine

from common.errors import ConfigurationError, SchemaMismatch
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.decision import metric_rules
from data_processing.planning.dry_run import rows_to_read
from data_processing.planning.plan import plan_metrics
from data_processing.planning.plan_statistics import PlanReason
from data_processing.planning.run_request import Request
from data_processing.raw.history import select_rows_to_read
from tests.support.metrics_oracle import RawRow
from tests.support.metrics_plans import (
    NOW,
    TABLE,
    TODAY,
    add_calendar,
    add_run,
    midnight,
    planned,
    raw,
)
from tests.support.metrics_store import execute, put_into_quarantine, put_rows, rows_of
from workflows.spec.job_options import JobOptions

LOOK_BACK = timedelta(days=37)
REACH = timedelta(days=38)


@pytest.fixture
def settled(database: Settings, engine: Engine) -> Settings:
    """Three pools that a successful run completed to the end of May 2024; `old` is inactive since
    April.
    """
    rows = []
    for n in range(152):
        for k, pool in enumerate(("a", "b", "old")):
            if pool != "old" or n < 100:
                rows.append(raw(n * 3 + k, pool, date(2024, 1, 1) + timedelta(days=n)))
    put_rows(engine, rows)
    execute(engine, "INSERT INTO pools (pool_id, is_active) VALUES ('old', false), ('b', NULL)")
    for pool in ("a", "b"):
        add_calendar(engine, pool, date(2024, 1, 1), date(2024, 5, 31))
    add_calendar(engine, "old", date(2024, 1, 1), date(2024, 4, 9))
    execute(
        engine,
        "INSERT INTO yieldspark.market_series (date) SELECT d::date FROM"
        " generate_series('2018-01-01'::date, '2024-05-31', interval '1 day') AS d",
    )
    add_run(engine, database, datetime.now(UTC), TODAY)
    return database


def test_the_first_run_is_a_full_one_up_to_the_last_complete_day(
    database: Settings, engine: Engine
) -> None:
    put_rows(
        engine,
        [
            raw(1, "a", date(2024, 5, 1)),
            raw(2, "a", date(2024, 5, 20)),
            raw(3, "b", TODAY),
            raw(4, "c", date(1999, 1, 1)),
            raw(5, "a", date(2030, 1, 1)),
        ],
    )
    plan, pools = planned(database)
    assert (
        plan.decision.mode,
        plan.statistics.start,
        plan.decision.end,
        plan.statistics.pools,
        plan.statistics.rows_to_read,
    ) == (
        "full_refresh",
        date(2024, 5, 1),
        date(2024, 5, 21),
        1,
        4,
    )
    assert pools["a"]["write_from"] == date(2024, 5, 1)
    assert pools["a"]["known_from"] is None


def test_nothing_new_is_an_empty_plan(settled: Settings) -> None:
    plan, pools = planned(settled)
    assert (plan.decision.mode, plan.is_empty, plan.decision.end, pools) == (
        "incremental",
        True,
        TODAY,
        {},
    )


def test_late_row_affects_its_pool_from_its_day_on(settled: Settings, engine: Engine) -> None:
    put_rows(engine, [raw(1000, "a", date(2024, 5, 10))])
    plan, pools = planned(settled)
    assert list(pools) == ["a"]
    assert pools["a"]["write_from"] == date(2024, 5, 10)
    assert pools["a"]["read_from"] == midnight(date(2024, 5, 10) - LOOK_BACK)
    assert pools["a"]["known_from"] == date(2024, 5, 10) - LOOK_BACK
    assert plan.pools_by_reason == {"late correction": 1, "look-back": 1}
    assert (
        plan.statistics.rows_to_read
        == (date(2024, 5, 31) - (date(2024, 5, 10) - LOOK_BACK)).days + 1 + 1
    )


def test_only_accepted_rows_make_a_pool_known(settled: Settings, engine: Engine) -> None:
    put_rows(
        engine,
        [
            raw(1000, "new", date(2024, 1, 1), apy="?", tvlUsd=1),
            raw(1001, "new", date(2024, 5, 30)),
        ],
    )
    execute(
        engine,
        "UPDATE raw_defillama_pool_history SET insertion_timestamp = '2024-01-01' WHERE id = 1000",
    )
    _, pools = planned(settled)
    assert pools["new"]["known_from"] is None


def test_new_day_affects_every_active_pool(settled: Settings, engine: Engine) -> None:
    put_rows(engine, [raw(1000, "a", TODAY)])
    plan, pools = planned(settled, now=NOW + timedelta(days=1))
    assert plan.decision.end == TODAY + timedelta(days=1)
    assert {pool: row["write_from"] for pool, row in pools.items()} == {"a": TODAY, "b": TODAY}
    assert plan.pools_by_reason == {"new raw rows": 1, "new days": 2, "look-back": 2}


def test_row_of_partial_day_is_used_when_day_is_complete(settled: Settings, engine: Engine) -> None:
    put_rows(engine, [raw(1000, "new", TODAY)])
    assert planned(settled)[0].is_empty
    add_run(engine, settled, datetime.now(UTC), TODAY, status="nothing_to_do")
    _, pools = planned(settled, now=NOW + timedelta(days=1))
    assert pools["new"]["write_from"] == TODAY


def test_reactivated_pool_is_filled_up_to_new_day(settled: Settings, engine: Engine) -> None:
    put_rows(engine, [raw(1000, "old", date(2024, 5, 1))])
    _, pools = planned(settled)
    assert (pools["old"]["write_from"], pools["old"]["open_end"]) == (date(2024, 4, 10), None)


def test_pools_that_were_deactivated_and_reactivated(settled: Settings, engine: Engine) -> None:
    execute(engine, "UPDATE pools SET is_active = true WHERE pool_id = 'old'")
    execute(engine, "INSERT INTO pools (pool_id, is_active) VALUES ('a', false)")
    execute(
        engine,
        "UPDATE yieldspark.pool_coverage SET last_observed_day = '2024-05-28' WHERE pool_id = 'a'",
    )
    plan, pools = planned(settled)
    assert {pool: row["write_from"] for pool, row in pools.items()} == {
        "old": date(2024, 4, 10),
        "a": date(2024, 5, 29),
    }
    assert plan.pools_by_reason == {"new days": 1, "no longer active": 1, "look-back": 2}


def test_changed_price_affects_every_pool_from_its_day_on(
    settled: Settings, engine: Engine
) -> None:
    execute(
        engine,
        "INSERT INTO raw_coinmarketcap_ohlcv VALUES ('2024-03-03 23:59Z', 'ETH', '{\"USD\":"
        ' {"close": 3000}}\')',
    )
    plan, pools = planned(settled)
    assert {pool: row["write_from"] for pool, row in pools.items()} == dict.fromkeys(
        ("a", "b", "old"), date(2024, 3, 4)
    )
    execute(engine, "DELETE FROM raw_coinmarketcap_ohlcv")
    execute(engine, "INSERT INTO gas_fees_daily VALUES ('2024-04-20', 7)")
    plan, pools = planned(settled)
    assert {pool: row["write_from"] for pool, row in pools.items()} == dict.fromkeys(
        ("a", "b"), date(2024, 4, 20)
    )
    assert plan.pools_by_reason == {"gas of 2024-04-20 changed": 2, "look-back": 2}


def test_other_rules_make_a_full_run(settled: Settings) -> None:
    plan, pools = planned(settled.model_copy(update={"max_fill_days": 3}))
    assert (plan.decision.mode, plan.decision.since, set(pools)) == (
        "full_refresh",
        None,
        {"a", "b", "old"},
    )


def test_failed_runs_and_backfills_are_not_last_good_run(settled: Settings, engine: Engine) -> None:
    put_rows(engine, [raw(1000, "a", date(2024, 5, 10))])
    for status, mode in (
        ("failed", "incremental"),
        ("cancelled", "incremental"),
        ("blocked", "full_refresh"),
        ("succeeded", "backfill"),
    ):
        add_run(engine, settled, datetime.now(UTC), TODAY, status=status, mode=mode)
    assert list(planned(settled)[1]) == ["a"]


def test_row_of_impossible_day_is_read_and_affects_no_pool(
    settled: Settings, engine: Engine
) -> None:
    put_rows(engine, [raw(1000, "a", date(1970, 1, 1)), raw(1001, "a", date(2099, 1, 1))])
    plan, pools = planned(settled)
    assert (pools, plan.statistics.rows_to_read, plan.is_empty) == ({}, 2, False)


def test_correction_is_recomputed_only_within_its_reach(settled: Settings, engine: Engine) -> None:
    put_rows(
        engine,
        [
            raw(1000, "a", date(2024, 2, 1)),
            raw(1001, "a", date(2024, 2, 3)),
            raw(1002, "b", date(2024, 5, 20)),
        ],
    )
    plan, pools = planned(settled)
    assert (pools["a"]["write_from"], pools["a"]["write_end"]) == (
        date(2024, 2, 1),
        date(2024, 2, 3) + REACH,
    )
    assert (pools["a"]["read_end"], pools["a"]["open_end"]) == (
        midnight(pools["a"]["write_end"]),
        pools["a"]["write_end"],
    )
    assert pools["b"]["write_end"] == TODAY
    correction, look_back = plan.statistics.parts
    assert correction == PlanReason(
        "late correction", 2, date(2024, 2, 1), TODAY, 2 + REACH.days + 12
    )
    assert (look_back.reason, look_back.pools, look_back.days) == ("look-back", 1, LOOK_BACK.days)
    assert (plan.statistics.days_missing, plan.statistics.rows_expected_to_change) == (
        0,
        REACH.days + 12,
    )


def test_missing_days_and_new_rows_are_counted(settled: Settings, engine: Engine) -> None:
    put_rows(engine, [raw(1000, "new", date(2024, 5, 20)), raw(1001, "new", date(2024, 5, 29))])
    plan, _ = planned(settled)
    assert (
        plan.statistics.days,
        plan.statistics.days_missing,
        plan.statistics.rows_expected_to_change,
    ) == (12, 10, 12)


def test_row_without_insertion_timestamp_is_always_new(settled: Settings, engine: Engine) -> None:
    """The owner's column may allow nulls and lack a default."""
    execute(
        engine, "ALTER TABLE raw_defillama_pool_history ALTER insertion_timestamp DROP NOT NULL"
    )
    put_rows(
        engine,
        [
            raw(1000, "a", date(2024, 5, 10)),
            raw(1001, "a", date(1970, 1, 1)),
            raw(1002, "a", TODAY),
        ],
    )
    execute(
        engine, "UPDATE raw_defillama_pool_history SET insertion_timestamp = NULL WHERE id >= 1000"
    )
    plan, pools = planned(settled)
    assert (pools["a"]["write_from"], plan.decision.unused_since) == (date(2024, 5, 10), None)
    add_run(engine, settled, datetime.now(UTC), TODAY, unused_since=None)
    assert planned(settled, now=NOW + timedelta(days=1))[1]["a"]["write_end"] == TODAY + timedelta(
        days=1
    )
    full, _ = planned(settled, Request(full_refresh=True))
    assert full.statistics.rows_to_read == 152 * 2 + 100 + 2


def test_rows_inserted_after_plan_are_left_to_next_run(settled: Settings, engine: Engine) -> None:
    """Their timestamp is later than the plan's time, but not impossible."""
    put_rows(engine, [raw(1000, "a", date(2099, 1, 1))])
    for request in (Request(), Request(full_refresh=True)):
        plan, _ = planned(settled, request)
        selection = select_rows_to_read(TABLE, plan.out_of_range_rows)
        query = f"SELECT id FROM ({selection}) AS h ORDER BY id"
        before = rows_of(engine, query)
        assert (len(before), before[-1]["id"]) == (plan.statistics.rows_to_read, 1000)
        put_rows(engine, [RawRow(1001, "a", NOW + timedelta(seconds=30), {"apy": 1.0})])
        assert rows_of(engine, query) == before
        execute(engine, "DELETE FROM raw_defillama_pool_history WHERE id = 1001")


def test_rows_of_unfinished_day_are_found_by_insertion(settled: Settings, engine: Engine) -> None:
    """They were inserted before the last run's watermark, and finding them needs no scan of all raw
    rows.
    """
    put_rows(engine, [raw(1000, "new", TODAY)])
    first, _ = planned(settled)
    assert first.decision.unused_since is not None
    add_run(
        engine,
        settled,
        datetime.now(UTC),
        TODAY,
        status="nothing_to_do",
        unused_since=first.decision.unused_since.isoformat(),
    )
    later = NOW + timedelta(days=1)
    second, pools = planned(settled, now=later)
    assert (set(pools), second.decision.unused_since) == ({"a", "b", "new"}, None)
    add_run(engine, settled, datetime.now(UTC), TODAY, status="nothing_to_do", unused_since=None)
    assert "new" not in planned(settled, now=later)[1]


def test_future_row_is_used_when_its_day_is_over(settled: Settings, engine: Engine) -> None:
    put_rows(engine, [raw(1000, "new", TODAY + timedelta(days=3))])
    put_into_quarantine(engine, 1000, "timestamp_in_future")
    add_run(engine, settled, datetime.now(UTC), TODAY, unused_since=None)
    assert "new" not in planned(settled, now=NOW + timedelta(days=3))[1]
    assert planned(settled, now=NOW + timedelta(days=4))[1]["new"][
        "write_from"
    ] == TODAY + timedelta(days=3)


def test_tables_of_another_schema_are_refused(settled: Settings, engine: Engine) -> None:
    """All schemas share the ledger and the calendars, so an incremental run must not continue from
    those of other tables.
    """
    elsewhere = settled.model_copy(update={"db_schema": "copies"})
    assert run_metrics(settled, now=NOW)["status"] == "nothing_to_do"
    with pytest.raises(
        ConfigurationError,
        match=r"DB_SCHEMA=copies: the last good run of this database had DB_SCHEMA=public",
    ):
        run_metrics(elsewhere, now=NOW)
    execute(engine, "UPDATE yieldspark.run_ledger SET plan = plan - 'schema'")
    with pytest.raises(SchemaMismatch):
        run_metrics(elsewhere, now=NOW)


def test_duration_is_estimated_from_past_runs(settled: Settings, engine: Engine) -> None:
    put_rows(engine, [raw(1000, "a", date(2024, 5, 10))])
    guess, _ = planned(settled)
    rows = json.dumps({"read": 1000, "inserted": 0, "updated": 0, "unchanged": 0})
    add_run(engine, settled, datetime.now(UTC) - timedelta(days=1), TODAY, run_id="measured")
    execute(
        engine,
        "UPDATE yieldspark.run_ledger SET rows = CAST(:rows AS json), seconds = 60, cost_usd = 0.5,"
        " jvm_started = true",
        rows=rows,
    )
    plan, _ = planned(settled)
    assert 59 < plan.statistics.estimated_seconds < 61
    assert (guess.statistics.estimated_cost_usd, plan.statistics.estimated_cost_usd) == (0.0, 0.0)
    paid, _ = planned(settled.model_copy(update={"environment": "production"}))
    assert paid.statistics.estimated_cost_usd == pytest.approx(0.5, rel=0.02)
    assert guess.statistics.estimated_seconds < 20


def test_dry_run_writes_nothing(settled: Settings, engine: Engine) -> None:
    put_rows(engine, [raw(1000, "a", date(2024, 5, 10), apy="?"), raw(1001, "a", date(1970, 1, 1))])
    before = rows_of(engine, "SELECT count(*) AS n FROM pg_class")
    plan = plan_metrics(settled, engine, Request(), table=TABLE, now=NOW, dry_run=True)
    assert (plan.statistics.pools, plan.statistics.rows_to_quarantine) == (1, 2)
    assert json.loads(json.dumps(plan.to_json()))["rules"] == metric_rules(settled)
    assert rows_of(engine, "SELECT count(*) AS n FROM pg_class") == before


def test_error_names_missing_table(database: Settings, engine: Engine) -> None:
    execute(engine, "DROP TABLE gas_fees_daily")
    with pytest.raises(SchemaMismatch, match="gas_fees_daily is missing"):
        planned(database)


def test_rows_to_read_rejects_wrong_severities_as_the_job_does(server: Settings) -> None:
    wrong = server.model_copy(update={"check_severities": "no_such_check=warn"})
    with pytest.raises(ConfigurationError, match="no_such_check"):
        rows_to_read(wrong, JobOptions())
