"""Databases of the tests: copies of the session's migrated one, each with a name of its own.

A copy takes 0.1 s of the processor, emptying a used one a third of that. So a database is reused if
the test has not altered tables, indexes, rights, functions or settings, and deleted otherwise.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from common.errors import DatabaseError
from config_spark import Settings
from database.connections.engine import make_engine

TEMPLATE = "yieldspark"
FIRST_OWN_OID = 16_384
"""PostgreSQL's FirstNormalObjectId: objects of users have this oid or a larger one."""

CLASS_COLUMNS = (
    "oid, relname, relnamespace, reltype, relowner, relam, reltablespace, relpersistence, relkind,"
    " relnatts, relchecks, relhasrules, relhastriggers, relrowsecurity, relforcerowsecurity,"
    " relispopulated, relreplident, relispartition, relacl::text, reloptions"
)
"""Columns of pg_class that filling and emptying a table do not change."""

CATALOGS = (
    f"SELECT ({CLASS_COLUMNS})::text FROM pg_class WHERE oid >= {FIRST_OWN_OID}",
    f"SELECT a::text FROM pg_attribute a WHERE attrelid >= {FIRST_OWN_OID}",
    f"SELECT i::text FROM pg_index i WHERE indexrelid >= {FIRST_OWN_OID}",
    *(
        f"SELECT c::text FROM {catalog} c WHERE oid >= {FIRST_OWN_OID}"
        for catalog in (
            *("pg_attrdef", "pg_constraint", "pg_trigger", "pg_proc", "pg_type", "pg_rewrite"),
            *("pg_policy", "pg_event_trigger", "pg_extension", "pg_default_acl", "pg_cast"),
            *("pg_operator", "pg_collation", "pg_statistic_ext", "pg_publication"),
        )
    ),
    "SELECT l::text FROM pg_largeobject_metadata l",
    "SELECT i::text FROM pg_inherits i",
    "SELECT s::text FROM pg_sequence s",
    # with the rights on the schemas that every database has
    "SELECT n::text FROM pg_namespace n WHERE nspname NOT LIKE 'pg_temp%'"
    " AND nspname NOT LIKE 'pg_toast_temp%'",
    "SELECT (datacl, datallowconn, datconnlimit, dattablespace, datdba)::text FROM pg_database"
    " WHERE datname = current_database()",
    "SELECT (setrole, setconfig)::text FROM pg_db_role_setting s JOIN pg_database d"
    " ON d.oid = s.setdatabase WHERE d.datname = current_database()",
    # the one table that is not emptied
    "SELECT version_num FROM yieldspark.alembic_version",
)
FINGERPRINT = text(
    f"SELECT md5(string_agg(line, ' ' ORDER BY line)) FROM ({' UNION ALL '.join(CATALOGS)})"
    " AS lines(line)"
)

END_OTHERS = text("""
SELECT count(pg_terminate_backend(pid, 5000))
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
""")

EMPTY = text("""
DO $$
DECLARE
    filled text;
    used record;
BEGIN
    SELECT string_agg(oid::regclass::text, ', ') INTO filled
    FROM pg_class
    WHERE oid >= 16384 AND relkind = 'r' AND pg_relation_size(oid) > 0
        AND relname <> 'alembic_version';
    IF filled IS NOT NULL THEN
        EXECUTE 'TRUNCATE ' || filled || ' CASCADE';
    END IF;
    FOR used IN SELECT schemaname, sequencename FROM pg_sequences WHERE last_value IS NOT NULL
    LOOP
        EXECUTE format('ALTER SEQUENCE %I.%I RESTART', used.schemaname, used.sequencename);
    END LOOP;
    DELETE FROM pg_statistic WHERE starelid >= 16384;
END $$
""")


@contextmanager
def fresh_database(server: Settings, template: str = TEMPLATE) -> Iterator[Settings]:
    """Copy the database `template`, to which nobody may be connected, for the block."""
    name = _new_name()
    with _connected(server, "postgres") as connection:
        _copy(connection, template, name)
        try:
            yield server.model_copy(update={"db_name": name})
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def empty_database(
    server: Settings, name: str | None = None, options: str = ""
) -> Iterator[Settings]:
    """Create a database without tables for the block.

    Args:
        server: settings of the server.
        name: its name; None generates one.
        options: options of CREATE DATABASE.
    """
    database_name = name or _new_name()
    quoted = '"' + database_name.replace('"', '""') + '"'
    with _connected(server, "postgres") as connection:
        connection.execute(text(f"CREATE DATABASE {quoted} TEMPLATE template0 {options}"))
        try:
            yield server.model_copy(update={"db_name": database_name})
        finally:
            connection.execute(text(f"DROP DATABASE {quoted} WITH (FORCE)"))


@dataclass
class Databases:
    """Lends databases of one server."""

    server: Settings
    _pristine: str = ""
    _spare: list[str] = field(default_factory=list)

    @contextmanager
    def lent(self) -> Iterator[Settings]:
        """Yield a migrated, empty database that no other test uses."""
        name = _new_name()
        with _connected(self.server, "postgres") as connection:
            if self._spare:
                # a new name: a process that has outlived its test must not find the next one's
                connection.execute(text(f"ALTER DATABASE {self._spare.pop()} RENAME TO {name}"))
            else:
                _copy(connection, TEMPLATE, name)
        try:
            yield self.server.model_copy(update={"db_name": name})
        finally:
            is_empty = False
            with suppress(DBAPIError, DatabaseError):
                is_empty = self._restore(name)
            if is_empty:
                self._spare.append(name)
            else:
                with _connected(self.server, "postgres") as connection:
                    connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))

    def _restore(self, name: str) -> bool:
        """Empty the database; returns whether it equals a new copy."""
        if not self._pristine:
            with fresh_database(self.server) as copy, _connected(copy, copy.db_name) as connection:
                self._pristine = str(connection.execute(FINGERPRINT).scalar_one())
        with _connected(self.server, name) as connection:
            connection.execute(END_OTHERS)
            if connection.execute(FINGERPRINT).scalar_one() != self._pristine:
                return False
            connection.execute(text("SET lock_timeout = '5s'"))
            connection.execute(EMPTY)
        return True


def _new_name() -> str:
    return f"test_{secrets.token_hex(6)}"


def _copy(connection: Connection, template: str, name: str) -> None:
    connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"))


@contextmanager
def _connected(server: Settings, database: str) -> Iterator[Connection]:
    engine = make_engine(server.model_copy(update={"db_name": database}))
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        yield connection
