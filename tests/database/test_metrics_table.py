"""METRICS_TABLE: both jobs read and write the table that it names, and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from common.errors import ConfigurationError, SchemaMismatch, full_message
from config_spark import Settings, load_settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.run_request import Request
from database.connections.engine import make_engine
from database.schema.check import find_table_problems
from database.schema.migrate import migrate
from database.schema.table_use import JOBS_USE
from forecasting.evaluation.evaluate import evaluate
from forecasting.forecast_pools_spark import run_forecast
from reporting.figures.forecasts import forecast_table
from tests.support import metrics_oracle
from tests.support.forecast_panels import SHORT, panel_rows, store
from tests.support.metrics_histories import world
from tests.support.metrics_oracle import World
from tests.support.metrics_store import execute, job_rows, rows_of, settings_of, without_jvm
from tests.support.owner_schema import put_as_owner
from tests.support.processes import CommandLineHere

RESERVED = "order"
"""A name that SQL accepts in quotes only."""


@pytest.fixture
def admin(owner_tables: Settings) -> Engine:
    return make_engine(owner_tables)


def naming(settings: Settings, table: str) -> Settings:
    return settings.model_copy(update={"metrics_table": table})


def metrics(
    settings: Settings,
    source: World,
    session: Callable[[int], SparkSession] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Run in this process, or on Spark with a `session` if the transports ask for it."""
    return run_metrics(
        without_jvm(settings_of(settings, source)),
        Request(**options),
        session=session,
        now=source.now,
    )


@pytest.mark.parametrize(
    "name", ["", "Metrics", "a b", "x; DROP TABLE pools", "1st", "other.metrics", "m" * 64]
)
def test_rejects_name_that_is_no_identifier(name: str, tmp_path: Path) -> None:
    if name == "":
        assert load_settings(_env_file=None, metrics_table="m" * 63).metrics_table == "m" * 63
        return
    with pytest.raises(ConfigurationError) as caught:
        load_settings(_env_file=None, metrics_table=name)
    assert f"METRICS_TABLE={name!r} is wrong" in str(caught.value)
    assert "lower-case letters, digits and _" in str(caught.value)


def test_creates_missing_table_or_reports_the_statement(
    restricted: Settings, admin: Engine, tmp_path: Path
) -> None:
    settings = naming(restricted, RESERVED)
    assert not migrate(make_engine(settings)), "the role may not create tables in public"
    with make_engine(settings).connect() as connection:
        problems = find_table_problems(connection, JOBS_USE)
    assert problems.missing == ['"order"']
    assert problems.creates[0].startswith('CREATE TABLE public."order" ( pool_id TEXT NOT NULL,')
    with pytest.raises(SchemaMismatch) as caught:
        run_metrics(settings)
    assert all(statement in full_message(caught.value) for statement in problems.creates)
    command = CommandLineHere(settings, tmp_path)
    payload = command.json("db", "migrate", code=1, METRICS_TABLE=RESERVED)
    assert (payload["missing"], payload["creates"]) == (problems.missing, problems.creates)
    for statement in problems.creates:
        execute(admin, statement)
    assert run_metrics(settings)["status"] == "nothing_to_do"
    execute(admin, f"GRANT CREATE ON SCHEMA public TO {restricted.db_user}")
    assert migrate(make_engine(naming(restricted, "another")))
    assert not migrate(make_engine(naming(restricted, "another")))
    anew = run_metrics(naming(restricted, "another"), Request(full_refresh=True))
    assert anew["status"] == "nothing_to_do"
    copies = rows_of(admin, "SELECT indexdef FROM pg_indexes WHERE tablename = 'another'")
    assert len(copies) == 2, "the key, and the index by date"


def test_parallel_table_is_separate_and_switching_needs_a_full_refresh(
    owner_database: Settings, spark: SparkSession
) -> None:
    engine = make_engine(owner_database)
    generated = world(41, pools=10, days=40)
    put_as_owner(engine, generated)
    pool = generated.rows[0].pool_id
    execute(
        engine,
        "INSERT INTO pool_daily_metrics (pool_id, date, actual_apy, filter_reason, pool_group)"
        f" VALUES ('{pool}', '2024-03-10', -1, 'by another job', 3), ('{pool}', '2020-01-01', -2,"
        " 'by another job', 3)",
    )
    others = "SELECT xmin::text, t.* FROM pool_daily_metrics AS t ORDER BY date"
    before = rows_of(engine, others)
    parallel = naming(owner_database, RESERVED)
    migrate(make_engine(parallel))
    first = metrics(parallel, generated)
    assert rows_of(engine, others) == before
    expected = metrics_oracle.metrics(generated)
    assert metrics_oracle.differences_of_tables(job_rows(make_engine(parallel)), expected) == []
    assert metrics(parallel, generated)["status"] == "nothing_to_do"
    message = f"METRICS_TABLE changed from {RESERVED} to pool_daily_metrics: run --full-refresh"
    requests: list[dict[str, Any]] = [{}, {"full_refresh": True, "pools": (pool,)}]
    for options in requests:
        with pytest.raises(ConfigurationError, match=message):
            metrics(owner_database, generated, **options)
    with pytest.raises(ConfigurationError, match=message):
        evaluate(owner_database, days=5)
    with pytest.raises(ConfigurationError, match=message):
        run_forecast(owner_database, dry_run=True, session=lambda _: spark)
    refresh = Request(full_refresh=True)
    configured = settings_of(owner_database, generated)
    plan = run_metrics(configured, refresh, dry_run=True, now=generated.now)["plan"]
    assert plan["rows_expected_to_change"] == plan["days"], "the other job's rows are there"
    switched = metrics(owner_database, generated, full_refresh=True)
    plan = run_metrics(configured, refresh, dry_run=True, now=generated.now)["plan"]
    assert plan["rows_expected_to_change"] < plan["days"]
    assert switched["rows"]["inserted"] == first["rows"]["inserted"] - 1
    stored = job_rows(engine)
    row = stored.pop((pool, before[0]["date"]))
    assert (row["actual_apy"], row["filter_reason"]) == (-2, "by another job")
    assert metrics_oracle.differences_of_tables(stored, expected) == []
    assert (stored[pool, before[1]["date"]]["filter_reason"], row["pool_group"]) == (
        "by another job",
        3,
    )
    with pytest.raises(ConfigurationError, match=f"from pool_daily_metrics to {RESERVED}"):
        metrics(parallel, generated)
    back = metrics(parallel, generated, full_refresh=True)
    assert (back["rows"]["inserted"], back["rows"]["updated"]) == (0, 0)


@pytest.mark.parametrize("transport", ["jdbc", "adbc"])
def test_uses_the_foreign_key_of_the_named_table(
    transport: str, owner_database: Settings, spark: SparkSession
) -> None:
    """The owner's table rejects metrics of a pool that `pools` lacks, the parallel table accepts
    them.
    """
    engine = make_engine(owner_database)
    generated = world(42, pools=10, days=20)
    put_as_owner(engine, generated)
    lacking = sorted({row.pool_id for row in generated.rows})[0]
    execute(engine, f"DELETE FROM pools WHERE pool_id = '{lacking}'")
    generated.inactive.discard(lacking)
    of_pool = f"SELECT count(*) AS rows FROM {{}} WHERE pool_id = '{lacking}'"
    parallel = naming(owner_database, "parallel").model_copy(update={"read_transport": transport})
    migrate(make_engine(parallel))
    metrics(parallel, generated, full_refresh=True, session=lambda _: spark)
    assert rows_of(engine, of_pool.format(parallel.metrics_table))[0]["rows"] > 0
    default = parallel.model_copy(update={"metrics_table": "pool_daily_metrics"})
    metrics(default, generated, full_refresh=True, session=lambda _: spark)
    assert rows_of(engine, of_pool.format("pool_daily_metrics"))[0]["rows"] == 0


def test_forecasts_use_the_named_table(database: Settings, spark: SparkSession) -> None:
    settings = naming(database, RESERVED)
    migrate(make_engine(settings))
    store(make_engine(settings), panel_rows(12, 130))
    run = run_forecast(
        settings.model_copy(update=SHORT | {"refit_days": 30}),
        engine="lightgbm",
        session=lambda _: spark,
    )
    assert run["rows"]["inserted"] == 12
    engine = make_engine(settings)
    published = rows_of(
        engine, 'SELECT count(*) AS rows FROM "order" WHERE forecasted_apy IS NOT NULL'
    )
    assert published == [{"rows": 12}]
    assert rows_of(engine, "SELECT * FROM pool_daily_metrics") == []
    assert {row.apy_today is not None for row in forecast_table(engine)} == {True}
