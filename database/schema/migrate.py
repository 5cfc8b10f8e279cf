"""Bring a database to this version's tables with Alembic: the owner's tables where they are
missing, and the schema `yieldspark`.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, text

from common.errors import DatabaseRefused, SchemaMismatch
from database.connections.engine import checked_connection
from database.schema.metrics_table import create_statements, metrics_table_of
from database.schema.own_schema import MIGRATE, SCHEMA, VERSION_TABLE, require_own_rights
from database.schema.table_facts import table_facts
from database.schema.tables import OWN_SCHEMA

CODE_ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = "database/migrations"

UNRELEASED = {f"{number:04d}" for number in range(1, 11)}
"""Revisions before 0.1.0. The first revision takes their place and upgrades none of them."""
LAST_UPGRADE = "abd826e28f85"
"""The last commit that upgrades them."""


def migrate(engine: Engine) -> bool:
    """Upgrade to the newest revision, and make the metrics table where it is missing and the role
    may; returns whether anything had to be done. Two at once wait for each other.

    Raises: DatabaseRefused where the role may not create schemas or tables, DatabaseUnreachable.
    """
    with checked_connection(engine) as connection:
        upgraded = _upgrade(connection)
        return _make_metrics_table(connection) or upgraded


def _upgrade(connection: Connection) -> bool:
    with _scripts() as folder:
        if _is_current(connection, folder):
            return False
        require_own_rights(connection, to_create=True)
        connection.execute(ONE_AT_A_TIME)
        if connection.execute(
            text("SELECT to_regnamespace(:name) IS NULL"), {"name": OWN_SCHEMA}
        ).scalar_one():
            _require_right_to_create(connection)
            # not `IF NOT EXISTS`: that asks for the right to create even where the schema is
            # there already
            connection.execute(text(f"CREATE SCHEMA {OWN_SCHEMA}"))
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return True


def _make_metrics_table(connection: Connection) -> bool:
    """Not a revision: METRICS_TABLE may name another table tomorrow. Where the role may not create
    tables the schema check gives the statements.
    """
    table = metrics_table_of(connection)
    schema = connection.execute(SCHEMA, {"schema": None}).one()
    if not schema.may_create or _is_there(connection, table, schema.name):
        return False
    connection.execute(ONE_AT_A_TIME)
    if _is_there(connection, table, schema.name):
        return False
    for statement in create_statements(table, schema.name):
        connection.exec_driver_sql(statement)
    return True


def _is_there(connection: Connection, table: Table, schema: str) -> bool:
    return table_facts(connection, table, schema) is not None


ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtext('yieldspark'), hashtext('migrate'))")

_MAY_CREATE = text("""
SELECT has_database_privilege(current_database(), 'CREATE') AS allowed,
    quote_ident(current_database()) AS database,
    quote_ident(current_user) AS role
""")


def _require_right_to_create(connection: Connection) -> None:
    asked = connection.execute(_MAY_CREATE).one()
    if not asked.allowed:
        raise DatabaseRefused(
            f"role {asked.role} may not make the schema {OWN_SCHEMA} in database {asked.database}."
            f" As its owner run: GRANT {asked.role} TO CURRENT_USER;"
            f" CREATE SCHEMA {OWN_SCHEMA} AUTHORIZATION {asked.role};"
        )


def require_current(engine: Engine) -> None:
    """For commands that change nothing.

    Raises: SchemaMismatch where the database has not this version's tables, naming the command that
    makes them; DatabaseRefused with the GRANT statements where the role may not read them.
    """
    with checked_connection(engine) as connection, _scripts() as folder:
        if not _is_current(connection, folder):
            raise SchemaMismatch(
                f"{engine.url.database} has not the tables of this version: {MIGRATE} makes them,"
                " and never alters yours"
            )


def _is_current(connection: Connection, folder: Path) -> bool:
    """Raises: SchemaMismatch for a revision that this version does not know or cannot upgrade;
    DatabaseRefused where the role may not read it.
    """
    require_own_rights(connection)
    scripts, there = ScriptDirectory(str(folder)), current_revision(connection)
    if there in UNRELEASED:
        raise SchemaMismatch(
            f"the schema {OWN_SCHEMA} is at revision {there}, which an unreleased version made and"
            f" this version cannot upgrade: run `db migrate` of commit {LAST_UPGRADE} first, or"
            f" discard its contents by DROP SCHEMA {OWN_SCHEMA} CASCADE (on the embedded server:"
            " `db reset`, which deletes all data), then run `db migrate`"
        )
    if there is not None and there not in {script.revision for script in scripts.walk_revisions()}:
        raise SchemaMismatch(
            f"the database is at revision {there}, which this version does not know: run the newer"
            " version that made it"
        )
    return there == scripts.get_current_head()


@contextmanager
def _scripts() -> Iterator[Path]:
    """The folder of the revisions: in the checkout as it is, out of a release's zip as a copy,
    because Alembic reads folders only.
    """
    if CODE_ROOT.is_dir():
        yield CODE_ROOT / MIGRATIONS
        return
    with tempfile.TemporaryDirectory() as copy, zipfile.ZipFile(CODE_ROOT) as archive:
        archive.extractall(
            copy, [name for name in archive.namelist() if name.startswith(MIGRATIONS)]
        )
        yield Path(copy) / MIGRATIONS


def current_revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE, "version_table_schema": OWN_SCHEMA}
    )
    return context.get_current_revision()
