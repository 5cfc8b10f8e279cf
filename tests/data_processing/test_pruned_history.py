"""Tests raw history that is pruned, rewritten or inserted again: no metric and no decision on a row
is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from time import sleep
from types import MappingProxyType
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from common.errors import CheckFailed
from common.settings.spark import Transport
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.changed_pools import REWRITTEN_SOURCE
from data_processing.planning.run_request import Request
from data_processing.quarantine.queries import Selection, show_row
from data_processing.quarantine.replay import Replay, drop_rows, replay_rows
from database.connections.engine import make_engine
from tests.data_processing.test_metrics_job import assert_equal_to_oracle
from tests.support import metrics_oracle
from tests.support.metrics_histories import START, world
from tests.support.metrics_oracle import RawRow, World, differences_of_tables
from tests.support.metrics_store import (
    execute,
    job_rows,
    put,
    put_rows,
    rows_of,
    run_world,
    settings_of,
    without_jvm,
)
from tests.support.owner_schema import put_as_owner

HISTORY = "raw_defillama_pool_history"
DAYS = 90
NOW = datetime.combine(START + timedelta(days=DAYS), time(6), UTC)

Metrics = Callable[..., dict[str, Any]]


@pytest.fixture
def metrics(database: Settings) -> Metrics:
    def run(
        source: World, settings: Mapping[str, Any] = MappingProxyType({}), **options: Any
    ) -> dict[str, Any]:
        return run_world(database.model_copy(update=dict(settings)), source, **options)

    return run


def refetch(engine: Engine, condition: str = "true") -> None:
    """Delete all rows and insert those that pass the filter again, under new ids, as the owner's
    daily fetch does.
    """
    execute(engine, f"CREATE TABLE fetched AS SELECT * FROM {HISTORY} WHERE {condition}")
    execute(engine, f"TRUNCATE {HISTORY} RESTART IDENTITY")
    execute(
        engine,
        f"INSERT INTO {HISTORY} (pool_id, timestamp, raw_json_data) SELECT pool_id, timestamp,"
        " raw_json_data FROM fetched ORDER BY pool_id DESC, id",
    )
    execute(engine, "DROP TABLE fetched")


def change_gas(engine: Engine, day: date) -> None:
    execute(
        engine,
        "INSERT INTO gas_fees_daily (date, actual_avg_gas_gwei) VALUES (:day, 77) ON CONFLICT"
        " (date) DO UPDATE SET actual_avg_gas_gwei = 77",
        day=day,
    )


def unchanged(result: dict[str, Any]) -> bool:
    rows = result["rows"]
    return (result["status"], rows["inserted"], rows["updated"], rows["removed"]) == (
        "succeeded",
        0,
        0,
        0,
    )


def last_plan(engine: Engine) -> dict[str, Any]:
    newest = "SELECT plan FROM yieldspark.run_ledger ORDER BY started_at DESC LIMIT 1"
    plan: dict[str, Any] = rows_of(engine, newest)[0]["plan"]
    return plan


@pytest.fixture
def generated(engine: Engine) -> World:
    source = world(5, pools=20, days=DAYS)
    put(engine, source)
    execute(engine, f"SELECT setval(pg_get_serial_sequence('{HISTORY}', 'id'), 1000000)")
    return source


@pytest.mark.parametrize(
    "gone",
    [
        "older than a day",
        pytest.param("every second pool", marks=pytest.mark.long),
        pytest.param("everything", marks=pytest.mark.long),
    ],
)
def test_pruned_days_keep_metrics_and_are_read_by_later_windows(
    engine: Engine, generated: World, metrics: Metrics, gone: str
) -> None:
    metrics(generated)
    execute(
        engine,
        f"DELETE FROM {HISTORY} WHERE "
        + {
            "older than a day": f"timestamp < '{START + timedelta(days=60)}'",
            "every second pool": "right(pool_id, 1) IN ('0', '2', '4', '6', '8')",
            "everything": "true",
        }[gone],
    )
    assert unchanged(metrics(generated, full_refresh=True))
    pools = sorted({row.pool_id for row in generated.rows})
    new = [
        RawRow(2_000_000 + number, pool, NOW + timedelta(hours=1), {"apy": 3.0 + number})
        for number, pool in enumerate(pools)
    ]
    put_rows(engine, new)
    generated.rows += new
    generated.gas[START + timedelta(days=20)] = 77.0
    change_gas(engine, START + timedelta(days=20))
    generated.now += timedelta(days=1)
    assert metrics(generated)["mode"] == "incremental"
    assert_equal_to_oracle(engine, generated)


@pytest.mark.parametrize("transport", ["adbc", pytest.param("jdbc", marks=pytest.mark.long)])
def test_refetch_and_changed_gas_value_empty_no_day(
    transport: Transport, restricted: Settings, owner_tables: Settings, spark: SparkSession
) -> None:
    admin, source = make_engine(owner_tables), world(31, pools=20, days=50)
    put_as_owner(admin, source)
    settings = settings_of(restricted, source).model_copy(
        update={"read_transport": transport, "write_transport": transport}
    )

    def daily_run() -> dict[str, Any]:
        return run_metrics(
            without_jvm(settings), Request(), session=lambda _: spark, now=source.now
        )

    daily_run()
    assert REWRITTEN_SOURCE not in last_plan(admin)["warnings"]
    refetch(admin, "right(pool_id, 1) IN ('1', '4', '7')")
    source.gas[START + timedelta(days=10)] = 77.0
    change_gas(admin, START + timedelta(days=10))
    result = daily_run()
    assert (result["mode"], result["rows"]["removed"]) == ("incremental", 0)
    assert result["rows"]["updated"] > 0
    assert differences_of_tables(job_rows(admin), metrics_oracle.metrics(source)) == []
    refetch(admin)
    again = daily_run()
    assert (unchanged(again), last_plan(admin)["warnings"]) == (True, [REWRITTEN_SOURCE])
    raw = rows_of(admin, f"SELECT count(*) AS rows FROM {HISTORY}")
    assert again["rows"]["read"] <= raw[0]["rows"]


def test_decisions_apply_to_rows_inserted_again_under_other_ids(
    database: Settings, engine: Engine, generated: World, metrics: Metrics
) -> None:
    """Ids are reused too: another row may have the id of a dropped one."""
    bad = [
        RawRow(3_000_000 + day, "decided", at(day, 18), {"apy": 2e6 + day, "tvlUsd": 5.0})
        for day in (10, 12, 14)
    ]
    good = [RawRow(4_000_000 + day, "decided", at(day), {"apy": 2.0}) for day in range(9, 14)]
    put_rows(engine, [*good, *bad])
    metrics(generated)
    entries = {
        row["timestamp"]: row["id"]
        for row in rows_of(engine, "SELECT * FROM yieldspark.quarantine WHERE pool_id = 'decided'")
    }
    dropped, replaced, undecided = (entries[row.timestamp] for row in bad)
    drop_rows(database, engine, Selection((dropped,)), by="ann@desk", note="seen")
    corrected = Replay(Selection((replaced,)), "ann@desk", {replaced: '{"apy": 20.0}'})
    replay_rows(database, engine, corrected, now=NOW)
    metrics(generated)
    # the source does not have the row that the replay created
    refetch(engine, "raw_json_data ->> 'apy' IS DISTINCT FROM '20.0'")
    before = resolutions(engine)
    assert before == {(2e6 + 10): "dropped", (2e6 + 12): "replayed", (2e6 + 14): None}
    assert unchanged(metrics(generated))
    assert resolutions(engine) == before
    assert show_row(engine, database, undecided, now=NOW)["raw_rows"] == [
        row["id"] for row in rows_of(engine, f"SELECT id FROM {HISTORY} WHERE {HAS_UNDECIDED_APY}")
    ]
    looser = replace(generated, max_apy_percent=3e6)
    result = metrics(looser)
    assert result["mode"] == "full_refresh"
    assert {check["name"] for check in result["checks"]} >= {"row_dropped", "row_replaced"}
    assert resolutions(engine) == before | {(2e6 + 14): "accepted"}
    replayed_row = RawRow(5_000_000, "decided", at(12, 18), {"apy": 20.0, "tvlUsd": 5.0})
    looser.rows += [*good, replayed_row, bad[2]]
    assert_equal_to_oracle(engine, looser)


HAS_UNDECIDED_APY = "raw_json_data ->> 'apy' = '2000014.0'"


def at(day: int, hour: int = 12) -> datetime:
    return datetime.combine(START + timedelta(days=day), time(hour), UTC)


def resolutions(engine: Engine) -> dict[float, str | None]:
    """Return resolutions by APY. Entries with another reason have the same resolution."""
    rows = rows_of(engine, "SELECT * FROM yieldspark.quarantine WHERE pool_id = 'decided'")
    return {row["raw_json_data"]["apy"]: row["resolution"] for row in rows}


def test_open_row_that_is_gone_stays_open(
    engine: Engine, generated: World, metrics: Metrics
) -> None:
    put_rows(engine, [RawRow(3_000_000, "decided", at(10), {"apy": 2e6})])
    metrics(generated)
    execute(engine, f"DELETE FROM {HISTORY} WHERE pool_id = 'decided'")
    assert metrics(replace(generated, max_apy_percent=3e6))["mode"] == "full_refresh"
    assert resolutions(engine) == {2e6: None}


def test_day_whose_row_was_rewritten_to_bad_one_keeps_its_value(
    engine: Engine, generated: World, metrics: Metrics
) -> None:
    """A row with other content is another row, and the row that counted is gone."""
    rows = [RawRow(3_000_000 + day, "decided", at(day), {"apy": day}) for day in range(9, 14)]
    put_rows(engine, rows)
    generated.rows += rows
    metrics(generated)
    bad = """SET raw_json_data = '{"apy": 2e6}' WHERE pool_id = 'decided'"""
    execute(engine, f"UPDATE {HISTORY} {bad}")
    assert unchanged(metrics(generated, full_refresh=True))
    assert_equal_to_oracle(engine, generated)
    assert set(resolutions(engine).values()) == {None}


def test_rows_that_are_deleted_between_plan_and_read_lose_no_metric(
    engine: Engine, generated: World, metrics: Metrics, spark: SparkSession
) -> None:
    def delete_rows(_: int) -> SparkSession:
        execute(engine, f"DELETE FROM {HISTORY} WHERE pool_id < '5-pool-010'")
        return spark

    metrics(generated)
    result = metrics(generated, session=delete_rows, full_refresh=True)
    assert unchanged(result)
    assert 0 < result["rows"]["read"] < last_plan(engine)["rows_to_read"]
    assert_equal_to_oracle(engine, generated)


def test_rows_that_are_deleted_between_read_and_commit_lose_no_metric(
    engine: Engine, generated: World, metrics: Metrics
) -> None:
    """A session delays the commit until it has deleted all rows."""
    waiting = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as pool, engine.connect() as fetcher:
        fetcher.exec_driver_sql("LOCK TABLE pool_daily_metrics IN EXCLUSIVE MODE")
        running = pool.submit(metrics, generated)
        here = f"{waiting} AND datname = current_database()"
        while not running.done() and not rows_of(engine, here)[0]["n"]:
            sleep(0.1)
        fetcher.exec_driver_sql(f"CREATE TABLE fetched AS SELECT * FROM {HISTORY}")
        fetcher.exec_driver_sql(f"DELETE FROM {HISTORY}")
        fetcher.commit()
        assert running.result()["status"] == "succeeded"
    assert_equal_to_oracle(engine, generated)
    assert unchanged(metrics(generated, full_refresh=True))
    without = "SELECT count(*) AS n FROM yieldspark.quarantine WHERE raw_json_data IS NULL"
    assert rows_of(engine, without)[0]["n"] > 0
    execute(
        engine,
        f"INSERT INTO {HISTORY} (pool_id, timestamp, raw_json_data) SELECT pool_id, timestamp,"
        " raw_json_data FROM fetched",
    )
    assert unchanged(metrics(generated))
    assert rows_of(engine, without)[0]["n"] == 0


def test_missing_days_are_removed_on_request(
    engine: Engine, generated: World, metrics: Metrics
) -> None:
    steady = generated.rows[0].pool_id
    metrics(generated)
    condition = f"pool_id = '{steady}' AND timestamp >= '{START + timedelta(days=30)}'"
    execute(engine, f"DELETE FROM {HISTORY} WHERE {condition}")
    foreseen = metrics(generated, retire_missing=True, dry_run=True)["plan"]
    stored = f"SELECT count(*) AS n FROM yieldspark.observed_days WHERE {condition}"
    missing = rows_of(engine, stored)[0]["n"]
    assert foreseen["days_without_raw_rows"] == missing > 0
    assert metrics(generated, retire_missing=True)["rows"]["removed"] == missing
    generated.rows = [
        row
        for row in generated.rows
        if row.pool_id != steady or row.timestamp.date() < START + timedelta(days=30)
    ]
    assert_equal_to_oracle(engine, generated)
    assert rows_of(engine, stored)[0]["n"] == 0
    assert unchanged(metrics(generated, full_refresh=True))


def test_spikes_of_a_rewritten_source_are_reported_once(
    engine: Engine, generated: World, metrics: Metrics
) -> None:
    def spike(day: int, number: int) -> list[RawRow]:
        return [
            RawRow(number + hour, "spiked", at(day) + timedelta(hours=hour), {"tvlUsd": tvl})
            for hour, tvl in enumerate((1e6, 1e8, 1e6))
        ]

    strict = {"check_severities": "spike=fail"}
    put_rows(engine, spike(60, 3_000_000))
    metrics(generated)
    refetch(engine)
    assert metrics(generated, settings=strict)["status"] == "succeeded"
    put_rows(engine, spike(DAYS, 4_000_000))
    refetch(engine)
    generated.now += timedelta(days=1)
    with pytest.raises(CheckFailed, match="spike"):
        metrics(generated, settings=strict)


def without_observed_days(engine: Engine) -> None:
    """Remove the observed values, as a version that did not store them leaves them."""
    execute(engine, "DELETE FROM yieldspark.observed_days")
    execute(
        engine,
        "UPDATE yieldspark.run_ledger SET plan = jsonb_set(plan, '{rules,metric_rules}', '1')",
    )


def test_days_pruned_before_stored_values_existed_keep_metrics(
    database: Settings, engine: Engine, generated: World, metrics: Metrics
) -> None:
    metrics(generated)
    before = job_rows(engine)
    without_observed_days(engine)
    execute(engine, f"DELETE FROM {HISTORY} WHERE timestamp < '{START + timedelta(days=60)}'")
    assert unchanged(metrics(generated))
    assert job_rows(engine) == before
    change_gas(engine, START + timedelta(days=20))
    metrics(generated)
    others = {"gas_price_gwei"}
    after = job_rows(engine)
    assert after != before
    for key, row in before.items():
        assert {**row, **{name: after[key][name] for name in others}} == after[key]
    assert unchanged(metrics(generated, full_refresh=True))


def test_rows_of_another_job_are_read_by_later_windows_and_unchanged(
    engine: Engine, metrics: Metrics
) -> None:
    """The pandas job's rows of days before the pool's first raw row."""
    values = {day: 4.0 + day / 8 for day in range(DAYS)}
    rows = [RawRow(day, "p", at(day), {"apy": values[day], "tvlUsd": 1e6}) for day in range(DAYS)]
    source = World(rows=rows[40:], now=NOW)
    put(engine, source)
    execute(
        engine,
        "INSERT INTO pool_daily_metrics (pool_id, date, actual_apy, actual_tvl) SELECT 'p', DATE"
        f" '{START}' + day, 4 + day / 8.0, CASE WHEN day = 3 THEN 'NaN'::numeric ELSE"
        " 1000000 END FROM"
        " generate_series(0, 39) AS day",
    )
    theirs = job_rows(engine)
    expected = metrics_oracle.metrics(replace(source, rows=rows))
    for options in ({}, {"full_refresh": True}):
        metrics(source, **options)
        stored = job_rows(engine)
        # compared as text, because NaN does not equal itself
        assert {key: str(stored[key]) for key in theirs} == {k: str(r) for k, r in theirs.items()}
        ours = {key: row for key, row in stored.items() if key not in theirs}
        expected_of_ours = {key: row for key, row in expected.items() if key not in theirs}
        assert differences_of_tables(ours, expected_of_ours) == []
