"""Raw rows of a pool that `pools` lacks, with a foreign key of `pool_daily_metrics`: they wait in
quarantine and are used from the run after the pool is in `pools`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.metrics.rolling_metrics import look_back_days
from data_processing.quarantine.queries import Selection, show_row
from data_processing.quarantine.replay import Replay, replay_rows
from tests.data_processing.test_metrics_job import assert_equal_to_oracle
from tests.support.metrics_histories import START
from tests.support.metrics_oracle import RawRow, World
from tests.support.metrics_store import (
    execute,
    put,
    put_rows,
    rows_of,
    run_world,
)
from tests.support.owner_columns import refer_to_pools

DAYS = 50
REASON = "pool_not_in_pools"
STRANGER = "stranger"

Metrics = Callable[..., dict[str, Any]]


def snapshot(number: int, day: int, pool: str) -> RawRow:
    at = datetime.combine(START + timedelta(days=day), time(12), UTC)
    return RawRow(number, pool, at, {"apy": 5.0 + number % 13, "tvlUsd": 1e6 + number})


def now_of(days: int) -> datetime:
    return datetime.combine(START + timedelta(days=days), time(6), UTC)


@pytest.fixture
def history(engine: Engine) -> World:
    """Two pools with fifty days; `pools` has one of them."""
    rows = []
    for day in range(DAYS):
        rows += [snapshot(2 * day + 1, day, "known"), snapshot(2 * day + 2, day, STRANGER)]
    world = World(rows=rows, now=now_of(DAYS))
    put(engine, world)
    execute(engine, "DELETE FROM pools WHERE pool_id = :pool", pool=STRANGER)
    return world


@pytest.fixture
def metrics(database: Settings) -> Metrics:
    return partial(run_world, database)


def add_stranger(engine: Engine) -> None:
    execute(engine, "INSERT INTO pools (pool_id, is_active) VALUES (:pool, true)", pool=STRANGER)


def next_day(engine: Engine, source: World) -> None:
    day = (source.now.date() - START).days
    rows = [
        snapshot(2 * day + number, day, pool)
        for number, pool in enumerate(("known", STRANGER), start=1)
    ]
    put_rows(engine, rows)
    source.rows += rows
    source.now = now_of(day + 1)


def without_stranger(source: World) -> World:
    return World(rows=[row for row in source.rows if row.pool_id != STRANGER], now=source.now)


def quarantined(engine: Engine) -> dict[tuple[str, str | None], int]:
    query = "SELECT reason, resolution, count(*) AS rows FROM yieldspark.quarantine GROUP BY 1, 2"
    return {(row["reason"], row["resolution"]): row["rows"] for row in rows_of(engine, query)}


def test_days_of_an_unknown_pool_wait_for_its_row(
    engine: Engine, history: World, metrics: Metrics
) -> None:
    refer_to_pools(engine)
    first = metrics(history)
    assert (first["status"], first["rows"]["read"], first["rows"]["quarantined"]) == (
        "succeeded",
        2 * DAYS,
        DAYS,
    )
    checks = {check["name"]: check.get("failing") for check in first["checks"]}
    assert (checks[REASON], checks["unknown_pool"]) == (DAYS, 1)
    assert quarantined(engine) == {(REASON, None): DAYS}
    assert_equal_to_oracle(engine, without_stranger(history))
    assert metrics(history)["status"] == "nothing_to_do"

    next_day(engine, history)
    # the new row, and those of the look-back
    assert metrics(history)["rows"]["quarantined"] == 1 + look_back_days(history.max_fill_days)
    assert quarantined(engine) == {(REASON, None): DAYS + 1}
    assert_equal_to_oracle(engine, without_stranger(history))

    add_stranger(engine)
    taken_in = metrics(history)
    assert (taken_in["mode"], taken_in["rows"]["inserted"], taken_in["rows"]["quarantined"]) == (
        "incremental",
        DAYS + 1,
        0,
    )
    assert_equal_to_oracle(engine, history)
    assert quarantined(engine) == {(REASON, "accepted"): DAYS + 1}
    assert metrics(history)["status"] == "nothing_to_do"
    again = metrics(history, full_refresh=True)["rows"]
    assert (again["inserted"], again["updated"], again["removed"]) == (0, 0, 0)


@pytest.mark.parametrize("full_refresh", [False, True])
def test_pool_inserted_during_a_run_is_left_to_the_next_run(
    engine: Engine, history: World, metrics: Metrics, spark: SparkSession, full_refresh: bool
) -> None:
    def insert_pool(_: int) -> SparkSession:
        add_stranger(engine)
        return spark

    refer_to_pools(engine)
    metrics(history)
    next_day(engine, history)
    metrics(history, session=insert_pool, full_refresh=full_refresh)
    metrics(history)
    assert_equal_to_oracle(engine, history)
    assert quarantined(engine).keys() <= {(REASON, "accepted")}
    assert metrics(history)["status"] == "nothing_to_do"


def test_without_foreign_key_all_days_are_written(
    engine: Engine, history: World, metrics: Metrics
) -> None:
    assert metrics(history)["rows"]["quarantined"] == 0
    assert_equal_to_oracle(engine, history)


def test_writes_waiting_rows_after_the_foreign_key_is_dropped(
    engine: Engine, history: World, metrics: Metrics
) -> None:
    refer_to_pools(engine)
    metrics(history)
    execute(
        engine, "ALTER TABLE pool_daily_metrics DROP CONSTRAINT pool_daily_metrics_pool_id_fkey"
    )
    assert metrics(history)["rows"]["inserted"] == DAYS
    assert_equal_to_oracle(engine, history)


def test_replay_needs_the_pool(
    database: Settings, engine: Engine, history: World, metrics: Metrics
) -> None:
    refer_to_pools(engine)
    metrics(history)
    (entry,) = rows_of(engine, "SELECT min(id) AS id FROM yieldspark.quarantine")
    details = show_row(engine, database, entry["id"], now=history.now)
    assert (details["passes_now"], details["reason_now"]) == (False, REASON)
    assert "add its pool to `pools`" in details["what_to_do"]
    replayed = replay_rows(
        database, engine, Replay(Selection((entry["id"],)), "ann@desk"), now=history.now
    )
    assert replayed["outcomes"] == {"still_failing": 1}


def test_pool_inserted_after_pruning_gets_its_days_again(
    engine: Engine, history: World, metrics: Metrics
) -> None:
    """As after a parallel run into a table without the foreign key."""
    metrics(history)
    execute(engine, "DELETE FROM pool_daily_metrics WHERE pool_id = :pool", pool=STRANGER)
    refer_to_pools(engine)
    execute(engine, "DELETE FROM raw_defillama_pool_history WHERE pool_id = :pool", pool=STRANGER)
    assert metrics(history, full_refresh=True)["rows"]["removed"] == DAYS
    assert metrics(history)["status"] == "nothing_to_do"
    add_stranger(engine)
    again = metrics(history)
    assert (again["mode"], again["rows"]["inserted"]) == ("incremental", DAYS)
    assert_equal_to_oracle(engine, history)
    assert metrics(history)["status"] == "nothing_to_do"
