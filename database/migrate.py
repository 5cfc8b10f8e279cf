"""Bring a database to this version's tables with Alembic: the owner's tables where they are missing, and the schema `yieldspark`."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from database.connection import checked_connection
from database.tables import OWN_SCHEMA

MIGRATIONS = Path(__file__).with_name("migrations")
VERSION_TABLE = "alembic_version"


def migrate(engine: Engine) -> bool:
    """Upgrade to the newest revision; returns whether anything had to be done. Two at once wait for each other.

    Raises: DatabaseRefused where the role may not create schemas or tables, DatabaseUnreachable.
    """
    with checked_connection(engine) as connection:
        if current_revision(connection) == newest_revision():
            return False
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('yieldspark'), hashtext('migrate'))"))
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {OWN_SCHEMA}"))
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return True


def current_revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "version_table_schema": OWN_SCHEMA})
    return context.get_current_revision()


def newest_revision() -> str | None:
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()
