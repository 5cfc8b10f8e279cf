"""A snapshot that several connections share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from config_spark import Settings
from database.connections.engine import make_engine, translate_errors


@contextmanager
def exported_snapshot(settings: Settings) -> Iterator[str]:
    """Export a snapshot, so that all partitions of all tables see one state
    (`pg_export_snapshot`).

    It lives as long as the block: read inside it.
    """
    engine = make_engine(settings)
    with (
        translate_errors(engine.url),
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
    ):
        yield str(connection.execute(text("SELECT pg_export_snapshot()")).scalar_one())
