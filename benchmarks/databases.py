"""Databases of the benchmarks: an embedded server, a database for each history, and a copy (`CREATE
DATABASE .. TEMPLATE`) for each run that changes rows, so that repeats start from the same state.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, Numeric

from benchmarks.peer_rules import PEERS, PEERS_SCHEMA
from benchmarks.processes import PROJECT
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.embedded.folders import locate_folders
from database.embedded.resolve import resolve_database
from database.embedded.server import EmbeddedServer
from database.schema.migrate import migrate
from database.schema.own_schema import VERSION_TABLE
from database.schema.own_tables import OWN_SCHEMA
from database.schema.owner_tables import METRIC_COLUMNS, pool_daily_metrics
from spark.jar_sets import jars_folder


@contextmanager
def temporary_server() -> Iterator[Settings]:
    """Run an embedded server in a temporary folder, with a migrated empty database and the user's
    jars.

    Yields:
        Its settings.
    """
    user_settings = load_settings()
    with tempfile.TemporaryDirectory(prefix="yieldspark-benchmark-") as folder:
        server_settings = load_settings(
            _env_file=None,
            yieldspark_home=Path(folder),
            jars_dir=jars_folder(user_settings),
            db_host=None,
        )
        try:
            settings = resolve_database(server_settings)
            migrate(make_engine(settings))
            yield settings
        finally:
            EmbeddedServer(server_settings.yieldspark_home).reset()


def server_process(settings: Settings) -> int | None:
    """Return the process id of the server's postmaster; None if it does not run."""
    recorded = locate_folders(settings.yieldspark_home).data / "postmaster.pid"
    return int(recorded.read_text().split()[0]) if recorded.exists() else None


@contextmanager
def copied_database(settings: Settings, name: str) -> Iterator[Settings]:
    """Copy a database while the block runs. The original must have no connections.

    Yields:
        Settings of the copy.
    """
    admin = make_engine(settings.model_copy(update={"db_name": "postgres"})).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} TEMPLATE {settings.db_name} STRATEGY file_copy"
        )
        try:
            yield settings.model_copy(update={"db_name": name})
        finally:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def environment(settings: Settings) -> Mapping[str, str]:
    """Return the variables of a process that uses this database."""
    names = (
        "db_host",
        "db_port",
        "db_name",
        "db_user",
        "db_sslmode",
        "yieldspark_home",
        "jars_dir",
    )
    password = settings.db_password.get_secret_value() if settings.db_password else ""
    values = {name.upper(): str(getattr(settings, name)) for name in names}
    return os.environ | values | {"DB_PASSWORD": password, "PYTHONPATH": str(PROJECT)}


def make_peer_tables(engine: Engine) -> None:
    """Create a table like `pool_daily_metrics` for each peer."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {PEERS_SCHEMA}")
        for peer in PEERS:
            connection.exec_driver_sql(
                f"CREATE TABLE {PEERS_SCHEMA}.{peer} (LIKE pool_daily_metrics INCLUDING ALL)"
            )


def empty_products_tables(engine: Engine) -> None:
    """Delete metrics, run ledger and the product's other rows, as before the first run."""
    # the catalogue has the current tables, so that none is assumed here
    query = f"""
        SELECT string_agg(format('%%I.%%I', schemaname, tablename), ', ')
        FROM pg_tables
        WHERE schemaname = '{OWN_SCHEMA}'
            AND tablename <> '{VERSION_TABLE}'
    """
    with engine.begin() as connection:
        tables = connection.exec_driver_sql(query).scalar_one()
        connection.exec_driver_sql(f"TRUNCATE pool_daily_metrics, {tables}")


def empty_peer(engine: Engine, peer: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(f"TRUNCATE {PEERS_SCHEMA}.{peer}")


def settle(engine: Engine) -> None:
    """Finish background work before a measurement: vacuum, analyze, write to disk."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
        connection.exec_driver_sql("CHECKPOINT")
    os.sync()


def differing_rows(engine: Engine, peer: str) -> int:
    """Count the rows that only one of the product and the peer has, or whose values differ by more
    than the last stored decimal.
    """
    different = " OR ".join(
        f"(t.{name} IS NULL) <> (p.{name} IS NULL) OR abs(t.{name} - p.{name}) > 1.1 *"
        f" {last_decimal(name)}"
        for name in METRIC_COLUMNS
    )
    query = f"""
        SELECT count(*)
        FROM pool_daily_metrics AS t
        FULL JOIN {PEERS_SCHEMA}.{peer} AS p USING (pool_id, date)
        WHERE t.pool_id IS NULL
            OR p.pool_id IS NULL
            OR {different}
    """
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(query).scalar_one())


def last_decimal(column: str) -> str:
    """Return the smallest step of a metric's column, as a number in SQL and Python."""
    kind = pool_daily_metrics.c[column].type
    assert isinstance(kind, Numeric), "every metric is a decimal"
    return f"1e-{kind.scale}"
