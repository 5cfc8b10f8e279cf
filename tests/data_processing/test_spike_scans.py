"""Tests that the spike check scans raw history a fixed number of times, with any indexes and
statistics. `python -m benchmarks.spikes` measures its speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from benchmarks.metrics_data import drop_secondary_indexes
from config_spark import Settings
from data_processing.commit.spikes import spike_preparation, spike_query
from data_processing.planning.plan import plan_metrics
from data_processing.planning.run_request import Request
from tests.support.commit_runs import DAY, NEWEST, NOW, POOLS, DailyRun, at
from tests.support.metrics_oracle import RawRow
from tests.support.metrics_store import execute

TABLE = "yieldspark.a_plan"

MOST_SCANS = 6
"""One of the new rows, one of those around them, each by up to three processes."""


@pytest.mark.parametrize("analyzed_before", [True, False])
def test_without_an_index_raw_history_is_scanned_a_few_times(
    database: Settings, engine: Engine, analyzed_before: bool
) -> None:
    """Statistics from before the new rows show none of them."""
    drop_secondary_indexes(engine)
    daily_run = DailyRun(database, engine)
    daily_run.store_history()
    if analyzed_before:
        execute(engine, "ANALYZE raw_defillama_pool_history")
    daily_run.insert_rows(
        [
            RawRow(0, pool, at(NEWEST - DAY, 4 * hour), {"tvlUsd": 1e6 + hour})
            for pool, hour in product(POOLS, range(6))
        ]
    )
    plan = plan_metrics(database, engine, Request(), table=TABLE, now=NOW)
    query, parameters = spike_query(database, plan)
    with engine.connect() as connection:
        scans = 0
        for statement in spike_preparation(database, plan):
            if statement.startswith("ANALYZE"):
                connection.execute(text(statement))
            else:
                scans += _scans(connection, statement, {})
        scans += _scans(connection, query, parameters)
    assert 2 <= scans <= MOST_SCANS


@pytest.mark.parametrize("indexed", [True, False])
def test_few_new_rows_are_looked_up_by_index(
    database: Settings, engine: Engine, indexed: bool
) -> None:
    """Both ways give the same spikes."""
    if not indexed:
        drop_secondary_indexes(engine)
    daily_run = DailyRun(database, engine)
    daily_run.store_history()
    daily_run.insert_rows(
        [
            RawRow(0, POOLS[0], at(NEWEST - DAY, hour), {"tvlUsd": value})
            for hour, value in ((1, 1e6), (2, 1e8), (3, 1e6))
        ]
    )
    execute(
        engine,
        "INSERT INTO raw_defillama_pool_history (id, pool_id, timestamp, raw_json_data,"
        " insertion_timestamp) SELECT 100000 + n, 'old', '2020-01-01'::timestamptz + n * interval"
        " '1 hour', '{}', '2021-01-01' FROM generate_series(1, 20000) AS n",
    )
    execute(engine, "ANALYZE raw_defillama_pool_history")
    assert daily_run.run_checks()["spike"]["failing"] == 1
    plan = plan_metrics(database, engine, Request(), table=TABLE, now=NOW)
    with engine.connect() as connection:
        for statement in spike_preparation(database, plan):
            connection.execute(text(statement))
        nodes = _nodes(_explained(connection, *spike_query(database, plan)))
    used = {
        node["Node Type"]
        for node in nodes
        if node.get("Relation Name") == "raw_defillama_pool_history" and node["Actual Loops"]
    }
    assert ("Seq Scan" not in used) == indexed


def test_rows_beyond_work_mem_take_no_longer_each(database: Settings, engine: Engine) -> None:
    """One pool with a snapshot every four seconds.

    It took minutes when each row read its window again from disk.
    """
    daily_run = DailyRun(database, engine)
    daily_run.store_history(POOLS[:1])
    execute(
        engine,
        "INSERT INTO raw_defillama_pool_history (id, pool_id, timestamp, raw_json_data) SELECT"
        " 100000 + n, :pool, :midnight + n * interval '4 seconds', jsonb_build_object('tvlUsd',"
        " CASE n WHEN 9999 THEN 1e8 ELSE 1e6 END, 'poolMeta', repeat('x', 1000))"
        " FROM generate_series(1, 20000) AS n",
        pool=POOLS[0],
        midnight=at(NEWEST, 0),
    )
    plan = plan_metrics(database, engine, Request(), table=TABLE, now=NOW)
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL work_mem = '64kB'"))
        connection.execute(text("SET LOCAL statement_timeout = '60s'"))
        for statement in spike_preparation(database, plan):
            connection.execute(text(statement))
        query, parameters = spike_query(database, plan)
        assert len(connection.execute(text(query), parameters).all()) == 1


def _scans(connection: Connection, statement: str, parameters: dict[str, Any]) -> int:
    """Return how often the statement scans raw history, by PostgreSQL's own report."""
    return sum(
        node["Actual Loops"]
        for node in _nodes(_explained(connection, statement, parameters))
        if node.get("Relation Name") == "raw_defillama_pool_history"
    )


def _explained(
    connection: Connection, statement: str, parameters: dict[str, Any]
) -> dict[str, Any]:
    explain = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
    plan: dict[str, Any] = connection.execute(explain, parameters).scalar_one()[0]["Plan"]
    return plan


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
