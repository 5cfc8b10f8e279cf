"""`undo` restores what a metrics run replaced, and the next run continues from the run before."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from common.errors import CheckFailed, ConfigurationError, RunInProgress
from config_spark import Settings
from database.connections.engine import make_engine
from database.ledger.runs import open_run
from database.undo.undo import undo_run
from tests.support.killed_process import kill_at_each
from tests.support.metrics_histories import START, world
from tests.support.metrics_oracle import RawRow, World, differences_of_tables, metrics
from tests.support.metrics_store import execute, job_rows, put, put_rows, rows_of, run_world
from tests.support.processes import CommandLineHere
from tests.support.undone_runs import contents, last_run_id, undo_in_process

DAYS = 60
NOW = START + timedelta(days=DAYS)


@pytest.fixture
def source(engine: Engine) -> World:
    generated = world(3, pools=10, days=DAYS)
    put(engine, generated)
    return generated


def next_day(engine: Engine, source: World, *, apy: float = 3.0) -> None:
    """A day later: new rows of all pools, a correction of an old day, and another gas value."""
    number = 1 + max(row.id for row in source.rows)
    pools = sorted({row.pool_id for row in source.rows})
    rows = [
        RawRow(number + place, pool, source.now + timedelta(hours=1), {"apy": apy, "tvlUsd": 5.0})
        for place, pool in enumerate(pools)
    ]
    late = source.now - timedelta(days=30)
    rows.append(RawRow(number + len(pools), pools[0], late, {"apy": 8.0, "tvlUsd": 7.0}))
    rows.append(RawRow(number + len(pools) + 1, pools[1], late, {"apy": "oops", "tvlUsd": 7.0}))
    put_rows(engine, rows)
    source.rows += rows
    day = (source.now - timedelta(days=20)).date()
    source.gas[day] = apy
    execute(
        engine,
        "INSERT INTO gas_fees_daily (date, actual_avg_gas_gwei) VALUES (:day, :gas) ON CONFLICT"
        " (date) DO UPDATE SET actual_avg_gas_gwei = :gas",
        day=day,
        gas=apy,
    )
    source.now += timedelta(days=1)


def undo(engine: Engine, run_id: str, **options: Any) -> dict[str, Any]:
    return undo_run(engine, run_id, by="tester@host", **options)


def test_undo_restores_every_table_and_the_next_run_equals_a_full_one(
    database: Settings, engine: Engine, source: World
) -> None:
    run_world(database, source)
    before = contents(engine)
    next_day(engine, source)
    wrong = run_world(database, source)
    assert wrong["rows"]["inserted"] and wrong["rows"]["updated"]
    assert contents(engine) != before
    result = undo(engine, wrong["run_id"])
    assert (result["status"], result["runs"]) == ("undone", [wrong["run_id"]])
    assert contents(engine) == before
    again = run_world(database, source)
    assert again["mode"] == "incremental"
    assert again["rows"] == wrong["rows"]
    assert differences_of_tables(job_rows(engine), metrics(source)) == []


def test_undo_of_the_first_run_leaves_empty_tables(
    database: Settings, engine: Engine, source: World
) -> None:
    empty = contents(engine)
    first = run_world(database, source)
    result = undo(engine, first["run_id"])
    assert result["continues_from"] is None
    assert contents(engine) == empty
    assert run_world(database, source)["mode"] == "full_refresh"
    assert differences_of_tables(job_rows(engine), metrics(source)) == []
