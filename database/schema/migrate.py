"""Creates and upgrades the tables of this version with Alembic: missing tables of the owner, and
the schema `yieldspark`.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, Table, text

from common.errors import DatabaseRefused, SchemaMismatch
from database.connections.advisory_locks import MIGRATION_LOCK, lock_in_transaction
from database.connections.engine import checked_connection
from database.schema.catalog import read_catalog_table
from database.schema.metrics_table import create_statements, metrics_table_of
from database.schema.own_schema import MIGRATE, SCHEMA, VERSION_TABLE, require_own_rights
from database.schema.own_tables import OWN_SCHEMA

CODE_ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = "database/migrations"

NEWEST_REVISION = "0014"
"""The head of the revisions. A database that has it needs no Alembic, whose import and search for
the head would take a third of the time of `status`.
"""

UNRELEASED = {f"{number:04d}" for number in range(1, 11)}
"""Revisions before 0.1.0. The first revision takes their place and upgrades none of them."""
LAST_UPGRADE = "abd826e28f85"
"""The last commit that upgrades them."""


def migrate(engine: Engine) -> bool:
    """Upgrade to the newest revision, and create the metrics table if the role may.

    Returns:
        Whether anything was changed. Concurrent calls wait for each other.

    Raises:
        DatabaseRefused: the role may not create schemas or tables.
        DatabaseUnreachable: the server does not answer.
    """
    with checked_connection(engine) as connection:
        upgraded = _upgrade(connection)
        return _make_metrics_table(connection) or upgraded


def _upgrade(connection: Connection) -> bool:
    if _has_newest_revision(connection):
        return False
    from alembic import command
    from alembic.config import Config

    with _scripts() as folder:
        if _is_current(connection, folder):
            return False
        require_own_rights(connection, to_create=True)
        # a session that waited here finds the newest revision: Alembic then does nothing
        lock_in_transaction(connection, MIGRATION_LOCK)
        if connection.execute(
            text("SELECT to_regnamespace(:name) IS NULL"), {"name": OWN_SCHEMA}
        ).scalar_one():
            _require_right_to_create(connection)
            # not `IF NOT EXISTS`, which needs the right to create even if the schema exists
            connection.execute(text(f"CREATE SCHEMA {OWN_SCHEMA}"))
        config = Config()
        config.set_main_option("script_location", str(folder))
        # Alembic would open a connection of its own, outside of the lock's transaction
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return True


def _make_metrics_table(connection: Connection) -> bool:
    """Create the metrics table if it is missing. No revision does it, because METRICS_TABLE may
    change.
    """
    table = metrics_table_of(connection)
    schema = connection.execute(SCHEMA, {"schema": None}).one()
    if not schema.may_create or _table_exists(connection, table, schema.name):
        return False
    lock_in_transaction(connection, MIGRATION_LOCK)
    # again: another session may have created it while this one waited
    if _table_exists(connection, table, schema.name):
        return False
    for statement in create_statements(table, schema.name):
        connection.exec_driver_sql(statement)
    return True


def _table_exists(connection: Connection, table: Table, schema: str) -> bool:
    return read_catalog_table(connection, table, schema) is not None


_MAY_CREATE = text("""
SELECT has_database_privilege(current_database(), 'CREATE') AS allowed,
    quote_ident(current_database()) AS database,
    quote_ident(current_user) AS role
""")


def _require_right_to_create(connection: Connection) -> None:
    row = connection.execute(_MAY_CREATE).one()
    if not row.allowed:
        raise DatabaseRefused(
            f"role {row.role} may not create the schema {OWN_SCHEMA} in database {row.database}. As"
            f" its owner run: GRANT {row.role} TO CURRENT_USER;"
            f" CREATE SCHEMA {OWN_SCHEMA} AUTHORIZATION {row.role};"
        )


def prepare_tables(engine: Engine, *, is_embedded: bool, changes: bool) -> None:
    """Migrate the database; a command that changes nothing only checks a database of the user's.

    Raises: as `migrate` and `require_current`.
    """
    if is_embedded or changes:
        migrate(engine)
    else:
        require_current(engine)


def require_current(engine: Engine) -> None:
    """Check that the database has the tables of this version; for commands that change nothing.

    Raises:
        SchemaMismatch: the tables are of another version; the message has the command that upgrades
            them.
        DatabaseRefused: the role may not read them; the message has the GRANT statements.
    """
    with checked_connection(engine) as connection:
        if _has_newest_revision(connection):
            return
        with _scripts() as folder:
            is_current = _is_current(connection, folder)
        if not is_current:
            raise SchemaMismatch(
                f"{engine.url.database} does not have the tables of this version: {MIGRATE} creates"
                " them, and never alters yours"
            )


def _has_newest_revision(connection: Connection) -> bool:
    """Whether the database has NEWEST_REVISION; other revisions are Alembic's business."""
    require_own_rights(connection)
    table = f"{OWN_SCHEMA}.{VERSION_TABLE}"
    exists = text("SELECT to_regclass(:table) IS NOT NULL")
    if not connection.execute(exists, {"table": table}).scalar_one():
        return False
    revisions = connection.exec_driver_sql(f"SELECT version_num FROM {table}").scalars().all()
    return revisions == [NEWEST_REVISION]


def _is_current(connection: Connection, folder: Path) -> bool:
    """Whether the database has the newest revision.

    Raises: SchemaMismatch for a revision that this version does not know or cannot upgrade.
    """
    from alembic.script import ScriptDirectory

    scripts, revision = ScriptDirectory(str(folder)), current_revision(connection)
    if revision in UNRELEASED:
        raise SchemaMismatch(
            f"the schema {OWN_SCHEMA} is at revision {revision}, which an unreleased version made"
            f" and this version cannot upgrade: run `db migrate` of commit {LAST_UPGRADE} first, or"
            f" discard its contents by DROP SCHEMA {OWN_SCHEMA} CASCADE (on the embedded server:"
            " `db reset`, which deletes all data), then run `db migrate`"
        )
    revisions = {script.revision for script in scripts.walk_revisions()}
    if revision is not None and revision not in revisions:
        raise SchemaMismatch(
            f"the database is at revision {revision}, which this version does not have: run the"
            " newer version that created it"
        )
    return revision == scripts.get_current_head()


@contextmanager
def _scripts() -> Iterator[Path]:
    """Yield the folder of the revisions. Alembic reads folders only, so the zip of a release is
    extracted.
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
    """Return the Alembic revision of the database, None if it has none."""
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE, "version_table_schema": OWN_SCHEMA}
    )
    return context.get_current_revision()
