"""Both jobs on the owner's own tables, as a role with exactly the documented rights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from common.settings.spark import Transport
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.run_request import Request
from database.connections.engine import make_engine
from forecasting.forecast_pools_spark import run_forecast
from tests.support import metrics_oracle
from tests.support.forecast_panels import END, SHORT, panel_rows, store
from tests.support.metrics_histories import world
from tests.support.metrics_oracle import World
from tests.support.metrics_store import (
    execute,
    job_rows,
    quarantined_raw_rows,
    rows_of,
    settings_of,
)
from tests.support.owner_schema import put_as_owner

TRANSPORTS = ["adbc", "jdbc"]


def over(settings: Settings, transport: Transport) -> Settings:
    return settings.model_copy(update={"read_transport": transport, "write_transport": transport})


def metrics(
    spark: SparkSession, settings: Settings, source: World, **options: Any
) -> dict[str, Any]:
    return run_metrics(
        settings_of(settings, source),
        Request(**options),
        session=lambda rows: spark,
        now=source.now,
    )


def differences(engine: Engine, source: World) -> list[str]:
    return metrics_oracle.differences_of_tables(job_rows(engine), metrics_oracle.metrics(source))


@pytest.fixture
def admin(owner_tables: Settings) -> Engine:
    return make_engine(owner_tables)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_metrics_job_accepts_integer_ids(
    transport: Transport, restricted: Settings, admin: Engine, spark: SparkSession
) -> None:
    generated = world(31, pools=20, days=50)
    put_as_owner(admin, generated)
    settings = over(restricted, transport)
    first = metrics(spark, settings, generated)
    assert differences(admin, generated) == []
    rejected = metrics_oracle.quarantine(generated)
    quarantined = quarantined_raw_rows(admin)
    assert {number: row["reason"] for number, row in quarantined.items()} == rejected
    assert len(rejected) > 5
    assert metrics(spark, settings, generated)["status"] == "nothing_to_do"
    again = metrics(spark, settings, generated, full_refresh=True)
    assert again["rows"] == first["rows"] | {
        "inserted": 0,
        "updated": 0,
        "unchanged": first["rows"]["inserted"],
    }


TYPES = {
    "narrow numbers": [
        "DROP VIEW pool_metrics_extended",
        "ALTER TABLE pool_daily_metrics ALTER COLUMN eth_open TYPE numeric(12,2), ALTER COLUMN"
        " rolling_apy_7d TYPE numeric(18,1), ALTER COLUMN actual_tvl TYPE bigint, ALTER COLUMN"
        " stddev_apy_7d TYPE real, ALTER COLUMN stddev_apy_30d TYPE double precision",
        "ALTER TABLE raw_defillama_pool_history ALTER COLUMN id TYPE numeric(20)",
    ],
    "fixed texts, and raw rows without ids": [
        "DROP VIEW pool_metrics_extended",
        "ALTER TABLE raw_defillama_pool_history ALTER COLUMN pool_id TYPE char(40), DROP CONSTRAINT"
        " raw_defillama_pool_history_pkey, ALTER COLUMN id DROP DEFAULT, ALTER COLUMN id DROP NOT"
        " NULL",
        "ALTER TABLE pools ALTER COLUMN pool_id TYPE char(60)",
        "ALTER TABLE pool_daily_metrics ALTER COLUMN pool_id TYPE char(60)",
    ],
    "partitions": [
        "DROP VIEW pool_metrics_extended",
        "DROP TABLE raw_defillama_pool_history, pool_daily_metrics",
        "CREATE TABLE raw_defillama_pool_history (id serial, pool_id varchar(255) NOT NULL,"
        " timestamp timestamptz, raw_json_data jsonb, insertion_timestamp timestamptz DEFAULT"
        " now()) PARTITION BY HASH (pool_id)",
        "CREATE TABLE raw_0 PARTITION OF raw_defillama_pool_history FOR VALUES WITH (MODULUS 2,"
        " REMAINDER 0)",
        "CREATE TABLE raw_1 PARTITION OF raw_defillama_pool_history FOR VALUES WITH (MODULUS 2,"
        " REMAINDER 1)",
        "CREATE TABLE pool_daily_metrics (id serial, pool_id varchar(255) NOT NULL, date date NOT"
        " NULL, actual_apy numeric(20,4), forecasted_apy numeric(20,4), actual_tvl numeric(20,2),"
        " forecasted_tvl numeric(20,2), eth_open numeric(20,8), btc_open numeric(20,8),"
        " gas_price_gwei numeric(20,4), is_filtered_out boolean DEFAULT false, filter_reason text,"
        " rolling_apy_7d numeric(20,4), rolling_apy_30d numeric(20,4), apy_delta_today_yesterday"
        " numeric(20,4), stddev_apy_7d numeric(20,4), stddev_apy_30d numeric(20,4),"
        " stddev_apy_7d_delta numeric(20,4), stddev_apy_30d_delta numeric(20,4), pool_group"
        " integer, UNIQUE (pool_id, date)) PARTITION BY RANGE (date)",
        "CREATE TABLE metrics_old PARTITION OF pool_daily_metrics FOR VALUES FROM ('2018-01-01') TO"
        " ('2024-03-20')",
        "CREATE TABLE metrics_new PARTITION OF pool_daily_metrics FOR VALUES FROM ('2024-03-20') TO"
        " ('2030-01-01')",
    ],
}


@pytest.mark.parametrize("kind", TYPES)
def test_other_widths_and_partitions_are_idempotent(
    kind: str, owner_database: Settings, spark: SparkSession
) -> None:
    engine = make_engine(owner_database)
    for statement in TYPES[kind]:
        execute(engine, statement)
    generated = world(32, pools=20, days=50)
    put_as_owner(engine, generated)
    first = metrics(spark, owner_database, generated)
    if kind != "narrow numbers":
        stored = {(pool.rstrip(), day): row for (pool, day), row in job_rows(engine).items()}
        expected = metrics_oracle.metrics(generated)
        assert metrics_oracle.differences_of_tables(stored, expected) == []
    assert first["rows"]["inserted"] == len(job_rows(engine)) > 500
    again = metrics(spark, owner_database, generated, full_refresh=True)
    assert (again["rows"]["inserted"], again["rows"]["updated"]) == (0, 0)
    locked = rows_of(engine, "SELECT count(*) AS rows FROM pool_daily_metrics WHERE xmax <> '0'")
    assert locked == [{"rows": 0}], "an upsert locks a row that differs in what is not stored"


def test_removes_a_day_although_its_row_has_a_serial_id(
    owner_database: Settings, spark: SparkSession
) -> None:
    engine = make_engine(owner_database)
    generated = world(33, pools=10, days=40)
    put_as_owner(engine, generated)
    metrics(spark, owner_database, generated)
    execute(engine, "UPDATE pools SET is_active = false")
    inactive = replace(generated, inactive={row.pool_id for row in generated.rows})
    assert metrics(spark, owner_database, inactive)["rows"]["removed"] > 0
    assert differences(engine, inactive) == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_forecast_job_reads_an_integer_group(
    transport: Transport, restricted: Settings, admin: Engine, spark: SparkSession
) -> None:
    rows = panel_rows(12, 130)
    rows["pool_group"] = rows["pool_group"].map({"stable": 2, None: None})
    execute(
        admin,
        "INSERT INTO pools (pool_id, name, chain, protocol, symbol) SELECT pool, pool, 'Base',"
        " 'aave-v3', 'USDC' FROM unnest(CAST(:pools AS text[])) AS pool",
        pools=sorted(set(rows["pool_id"])),
    )
    store(admin, rows.astype(object).where(pd.notna(rows), None))
    settings = over(restricted, transport).model_copy(update=SHORT | {"refit_days": 30})
    row = run_forecast(settings, engine="lightgbm", session=lambda _: spark)
    assert (row["status"], row["as_of"], row["rows"]["inserted"]) == (
        "succeeded",
        END.isoformat(),
        12,
    )
    groups = rows_of(admin, "SELECT DISTINCT pool_group FROM pool_daily_metrics ORDER BY 1")
    assert [group["pool_group"] for group in groups] == [2, None]
    again = run_forecast(settings, engine="lightgbm", full_refresh=True, session=lambda _: spark)
    assert (again["rows"]["inserted"], again["rows"]["updated"]) == (0, 0)
