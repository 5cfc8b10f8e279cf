"""Writes generated histories to a real database, and reads the job's tables as Python values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any

from psycopg2.extras import execute_values
from pyspark.sql import SparkSession
from sqlalchemy import Connection, Engine, text

from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.metrics.pool_metrics import STALENESS
from data_processing.planning.run_request import Request
from data_processing.raw.observed_days import snapshot_identity
from database.schema.metrics_table import metrics_name
from tests.support.metrics_oracle import RawRow, World


def settings_of(database: Settings, world: World) -> Settings:
    limits = ("max_fill_days", "max_apy_percent", "max_tvl_usd", "max_price_usd")
    return database.model_copy(update={name: getattr(world, name) for name in limits})


def without_jvm(settings: Settings) -> Settings:
    """Return settings of a run without a JVM, for tests of what both executors share: the plan, the
    checks and the commit. `test_executors.py` compares the executors.
    """
    return settings.model_copy(update={"executor": "inprocess"})


def run_world(
    settings: Settings,
    source: World,
    session: Callable[[int], SparkSession] | None = None,
    *,
    dry_run: bool = False,
    **request: Any,
) -> dict[str, Any]:
    """Run the metrics job in this process, or on Spark with a `session`, which is called after the
    plan.
    """
    settings = settings_of(settings, source)
    return run_metrics(
        settings if session else without_jvm(settings),
        Request(**request),
        session=session,
        now=source.now,
        dry_run=dry_run,
    )


def put_rows(engine: Engine, rows: Iterable[RawRow]) -> None:
    """Insert raw rows with their own ids in one transaction that begins now."""
    with engine.begin() as connection:
        insert_rows(connection, rows)


def insert_rows(connection: Connection, rows: Iterable[RawRow]) -> None:
    """Insert raw rows inside the connection's transaction."""
    insert_at_once(
        connection,
        "raw_defillama_pool_history (id, pool_id, timestamp, raw_json_data) OVERRIDING SYSTEM VALUE"
        " VALUES %s",
        [(row.id, row.pool_id, row.timestamp, json.dumps(row.document)) for row in rows],
    )


def insert_at_once(connection: Connection, into: str, rows: list[tuple[Any, ...]]) -> None:
    """Insert rows by one statement, `INSERT INTO {into}`, whose %s is the rows. One statement for
    each row takes five times as long.
    """
    if rows:
        cursor = connection.connection.cursor()
        execute_values(cursor, f"INSERT INTO {into}", rows, page_size=len(rows))


def put_market(engine: Engine, world: World) -> None:
    """Upsert prices, gas, and which pools are active."""
    prices = [
        (at, symbol, json.dumps({"USD": {"close": close}}))
        for (at, symbol), close in world.prices.items()
    ]
    pools = {row.pool_id for row in world.rows}
    upserts: tuple[tuple[str, str, str, list[tuple[Any, ...]]], ...] = (
        (
            "raw_coinmarketcap_ohlcv (data_timestamp, symbol, raw_json_data)",
            "data_timestamp, symbol",
            "raw_json_data",
            prices,
        ),
        (
            "gas_fees_daily (date, actual_avg_gas_gwei)",
            "date",
            "actual_avg_gas_gwei",
            list(world.gas.items()),
        ),
        (
            "pools (pool_id, is_active)",
            "pool_id",
            "is_active",
            [(pool, pool not in world.inactive) for pool in pools],
        ),
    )
    with engine.begin() as connection:
        for into, key, column, rows in upserts:
            insert_at_once(
                connection,
                f"{into} VALUES %s ON CONFLICT ({key}) DO UPDATE SET {column} = excluded.{column}",
                rows,
            )


def put_price(engine: Engine, at: datetime, symbol: str, close: Any) -> None:
    """Upsert one close."""
    upsert = (
        "VALUES (:at, :symbol, :document) ON CONFLICT (data_timestamp, symbol) DO UPDATE SET"
        " raw_json_data = excluded.raw_json_data"
    )
    document = json.dumps({"USD": {"close": close}})
    execute(
        engine,
        f"INSERT INTO raw_coinmarketcap_ohlcv (data_timestamp, symbol, raw_json_data) {upsert}",
        at=at,
        symbol=symbol,
        document=document,
    )


def put(engine: Engine, world: World) -> None:
    put_rows(engine, world.rows)
    put_market(engine, world)


def job_rows(engine: Engine) -> dict[tuple[str, date], dict[str, Any]]:
    """Return the metrics table with the ages of each day, every column; numbers are exact as
    stored.
    """
    ages = ", ".join(
        f"CASE WHEN o.pool_id IS NULL AND c.pool_id IS NOT NULL THEN 0 ELSE o.{name} END AS {name}"
        for name in STALENESS
    )
    query = (
        f"SELECT m.*, {ages} FROM {metrics_name(engine)} AS m"
        " LEFT JOIN yieldspark.value_staleness AS o ON o.pool_id = m.pool_id AND o.date = m.date"
        " LEFT JOIN yieldspark.pool_coverage AS c ON"
        " c.pool_id = m.pool_id AND m.date BETWEEN c.first_day AND c.last_day"
    )
    with engine.connect() as connection:
        return {
            (row["pool_id"], row["date"]): dict(row)
            for row in connection.execute(text(query)).mappings()
        }


def quarantined_raw_rows(engine: Engine) -> dict[int, dict[str, Any]]:
    """Return entries of quarantine by the present id of their raw row; copies of a row share one
    entry.
    """
    query = (
        "SELECT h.id AS raw_id, q.* FROM yieldspark.quarantine AS q JOIN raw_defillama_pool_history"
        f" AS h ON h.pool_id = q.pool_id AND {snapshot_identity('h')}::text = q.source_id WHERE"
        " q.source_table = 'raw_defillama_pool_history'"
    )
    return {row["raw_id"]: row for row in rows_of(engine, query)}


def put_into_quarantine(
    engine: Engine, raw_id: int, reason: str, resolution: str | None = None, at: Any = None
) -> None:
    """Quarantine a raw row like a run that rejects it, or like a person who decides at `at`."""
    execute(
        engine,
        "INSERT INTO yieldspark.quarantine (run_id, source_table, source_id, pool_id, timestamp,"
        " reason, raw_json_data, resolution, resolved_at) SELECT 'r', 'raw_defillama_pool_history',"
        f" {snapshot_identity('h')}, pool_id, timestamp, :reason, raw_json_data, :resolution, :at"
        " FROM raw_defillama_pool_history AS h WHERE id = :id",
        id=raw_id,
        reason=reason,
        resolution=resolution,
        at=at,
    )


def rows_of(engine: Engine, query: str, **parameters: Any) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(query), parameters).mappings()]


def execute(engine: Engine, statement: str, **parameters: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), parameters)
