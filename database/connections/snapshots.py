"""A snapshot that several connections share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text

from config_spark import Settings
from database.connections.engine import checked_connection, make_engine, translate_errors


@contextmanager
def exported_snapshot(settings: Settings) -> Iterator[str]:
    """Export a snapshot, so that all partitions of all tables see one state of the database.

    Spark reads lazily: run the actions that read inside the block.

    Yields:
        Id of the snapshot (`pg_export_snapshot`), valid until the block ends.
    """
    engine = make_engine(settings)
    with (
        translate_errors(engine.url),
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
    ):
        yield str(connection.execute(text("SELECT pg_export_snapshot()")).scalar_one())


@contextmanager
def at_snapshot(settings: Settings, snapshot: str) -> Iterator[Connection]:
    """Yield a transaction in the state of an exported snapshot, as Spark's reads see it."""
    engine = make_engine(settings).execution_options(isolation_level="REPEATABLE READ")
    with checked_connection(engine) as connection:
        # PostgreSQL imports a snapshot before the first query of a transaction only
        connection.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        yield connection
