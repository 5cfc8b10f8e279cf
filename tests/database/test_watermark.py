"""The next run starts at the oldest open transaction, whose rows no earlier run has seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from config_spark import Settings
from data_processing.planning.plan import plan_metrics
from data_processing.planning.plan_sql import read_watermark
from data_processing.planning.run_request import Request
from database.connections.engine import make_engine
from tests.support.metrics_store import execute

TABLE = "yieldspark.a_plan"


@contextmanager
def open_transaction(engine: Engine) -> Iterator[datetime]:
    with engine.connect() as connection, connection.begin():
        yield connection.execute(text("SELECT now()")).scalar_one()


def test_watermark_is_the_start_of_the_oldest_open_transaction(
    database: Settings, engine: Engine
) -> None:
    with (
        open_transaction(engine) as older,
        open_transaction(engine),
        engine.connect() as connection,
    ):
        assert read_watermark(connection) == (older, False)
    with engine.connect() as connection:
        now = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        assert now <= read_watermark(connection)[0] <= now + timedelta(seconds=1)


def test_watermark_includes_prepared_transactions(database: Settings, engine: Engine) -> None:
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("BEGIN"))
        started_at = connection.execute(text("SELECT now()")).scalar_one()
        connection.execute(text("CREATE TABLE late (id int)"))
        connection.execute(text(f"PREPARE TRANSACTION '{database.db_name}'"))
        try:
            assert started_at - timedelta(days=1) <= read_watermark(connection)[0] <= started_at
        finally:
            connection.execute(text(f"ROLLBACK PREPARED '{database.db_name}'"))


def test_role_without_statistics_rights_reads_one_more_day(
    database: Settings, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    role = f"reader_{database.db_name}"
    password = "only-for-this-test"
    execute(engine, f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    execute(engine, f"GRANT USAGE, CREATE ON SCHEMA yieldspark TO {role}")
    everywhere = "ALL TABLES IN SCHEMA yieldspark, public"
    execute(engine, f"GRANT SELECT, INSERT, UPDATE, DELETE ON {everywhere} TO {role}")
    limited = make_engine(
        database.model_copy(update={"db_user": role, "db_password": SecretStr(password)})
    )
    try:
        with open_transaction(engine):
            plan = plan_metrics(database, limited, Request(), table=TABLE, dry_run=True)
        assert (
            timedelta(hours=23) < datetime.now(UTC) - plan.decision.watermark < timedelta(hours=25)
        )
        assert "pg_read_all_stats" in caplog.text
    finally:
        execute(engine, f"DROP OWNED BY {role}")
        execute(engine, f"DROP ROLE {role}")
