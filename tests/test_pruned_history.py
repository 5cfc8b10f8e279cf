"""Raw history that is pruned, rewritten or fetched again: no metric is lost, and nothing that was
decided about a row is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from config_spark import Settings, Transport
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.plan_request import Request
from tests.metrics_histories import START, world
from tests.metrics_oracle import RawRow, World
from tests.metrics_store import execute, put, put_rows, settings_of
from tests.test_metrics_job import assert_equal_to_oracle

HISTORY = "raw_defillama_pool_history"
DAYS = 90
NOW = datetime.combine(START + timedelta(days=DAYS), time(6), UTC)
TRANSPORTS: tuple[Transport, ...] = ("jdbc", "adbc")

Metrics = Callable[..., dict[str, Any]]


@pytest.fixture
def metrics(spark: SparkSession, database: Settings) -> Metrics:
    def run(
        of: World, meanwhile: Callable[[], object] = lambda: None, **asked: Any
    ) -> dict[str, Any]:
        def session(_: int) -> SparkSession:
            meanwhile()
            return spark

        settings = settings_of(database, of).model_copy(update=asked.pop("settings", {}))
        dry_run = asked.pop("dry_run", False)
        return run_metrics(settings, Request(**asked), session=session, now=of.now, dry_run=dry_run)

    return run


def refetch(engine: Engine, condition: str = "true") -> None:
    """What the owner's fetcher does each night: everything deleted, and what passes its filter
    fetched again, under new ids.
    """
    execute(engine, f"CREATE TABLE fetched AS SELECT * FROM {HISTORY} WHERE {condition}")
    execute(engine, f"DELETE FROM {HISTORY}")
    execute(
        engine,
        f"INSERT INTO {HISTORY} (pool_id, timestamp, raw_json_data) SELECT pool_id, timestamp,"
        " raw_json_data FROM fetched ORDER BY id",
    )
    execute(engine, "DROP TABLE fetched")


@pytest.fixture
def generated(engine: Engine) -> World:
    made = world(5, pools=20, days=DAYS)
    put(engine, made)
    execute(engine, f"SELECT setval(pg_get_serial_sequence('{HISTORY}', 'id'), 1000000)")
    return made


@pytest.mark.parametrize("gone", ["older than a day", "every second pool", "everything"])
def test_pruned_days_keep_their_metrics_and_serve_those_after_them(
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
    full = metrics(generated, full_refresh=True)["rows"]
    assert (full["inserted"], full["updated"], full["removed"]) == (0, 0, 0)
    new = [
        RawRow(2_000_000 + number, pool, NOW + timedelta(hours=1), {"apy": 3.0 + number})
        for number, pool in enumerate(sorted({row.pool_id for row in generated.rows}))
    ]
    put_rows(engine, new)
    generated.rows += new
    generated.gas[START + timedelta(days=20)] = 77.0
    execute(
        engine,
        "INSERT INTO gas_fees_daily VALUES (:day, 77) ON CONFLICT (date) DO UPDATE SET"
        " actual_avg_gas_gwei = 77",
        day=START + timedelta(days=20),
    )
    generated.now += timedelta(days=1)
    assert metrics(generated)["mode"] == "incremental"
    assert_equal_to_oracle(engine, generated)
