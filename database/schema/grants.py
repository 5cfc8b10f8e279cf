"""Grants the rights of three roles: owner (migrations), job (both jobs) and reader (dashboards).

The rights of a job are those that `check` finds missing for the role, and `doctor` prints. Runs as
the owner of the tables, or as a superuser. Creates no role and sets no password.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Engine, text

from common.errors import ConfigurationError, DatabaseRefused, SchemaMismatch
from database.connections.engine import checked_connection
from database.schema.check import find_table_problems
from database.schema.merge_sql import quoted
from database.schema.metrics_table import metrics_table_of
from database.schema.own_schema import MIGRATE, SCHEMA
from database.schema.own_tables import OWN_SCHEMA
from database.schema.owner_tables import OWNER_TABLES, pool_daily_metrics
from database.schema.table_use import JOBS_USE

RoleKind = Literal["owner", "job", "reader"]

KINDS: tuple[RoleKind, ...] = get_args(RoleKind)


def grant_rights(
    engine: Engine, role: str, kind: RoleKind, *, dry_run: bool = False
) -> dict[str, Any]:
    """Grant the rights that a role lacks, in one transaction.

    Args:
        engine: connects as the owner of the tables.
        role: name of an existing role.
        kind: owner, job or reader.
        dry_run: change nothing.

    Returns:
        `role`, `kind`, `status` (granted, planned or nothing_to_do) and the `statements`.

    Raises:
        ConfigurationError: the role does not exist.
        SchemaMismatch: a table is missing or is not as expected.
        DatabaseRefused: the connected role may not grant a right.
    """
    with checked_connection(engine) as connection:
        _require_role(connection, role)
        statements = missing_grants(connection, role, kind)
        if statements and not dry_run:
            for statement in statements:
                connection.exec_driver_sql(statement)
            # PostgreSQL only warns if the grantor may not grant
            if left := missing_grants(connection, role, kind):
                connection.rollback()
                raise DatabaseRefused(
                    f"role {engine.url.username} may not grant every right, nothing was granted. As"
                    f" the owner of the tables run: {' '.join(left)}"
                )
    status = "planned" if dry_run else "granted" if statements else "nothing_to_do"
    return {"role": role, "kind": kind, "status": status, "statements": statements}


def missing_grants(connection: Connection, role: str, kind: RoleKind) -> list[str]:
    """Return the statements that give a role the rights it lacks.

    Raises:
        SchemaMismatch: a table is missing or is not as expected.
        DatabaseRefused: the connected role may not act as a job's role.
    """
    if kind == "owner":
        return _missing_of_owner(connection, role)
    _require_own_schema(connection)
    return (
        _missing_of_job(connection, role) if kind == "job" else _missing_of_reader(connection, role)
    )


def _require_role(connection: Connection, role: str) -> None:
    exists = text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)")
    if not connection.execute(exists, {"role": role}).scalar_one():
        raise ConfigurationError(
            f"there is no role {role}: create it first, with a password of your own, such as CREATE"
            f" ROLE {quoted(role)} LOGIN PASSWORD '...'; and GRANT {quoted(role)} TO CURRENT_USER;"
        )


def _require_own_schema(connection: Connection) -> None:
    if not connection.execute(SCHEMA, {"schema": OWN_SCHEMA}).one().is_there:
        raise SchemaMismatch(f"the schema {OWN_SCHEMA} is missing: {MIGRATE} creates it")


@contextmanager
def _acting_as(connection: Connection, role: str) -> Iterator[None]:
    """Check rights as the role, within the caller's transaction."""
    member = text("SELECT pg_has_role(current_user, :role, 'MEMBER')")
    if not connection.execute(member, {"role": role}).scalar_one():
        raise DatabaseRefused(
            f"the connected role is no member of {role} and can't check its rights: as a role that"
            f" may grant it run GRANT {quoted(role)} TO CURRENT_USER;"
        )
    # no `finally`: an error ends the transaction, and SET LOCAL with it
    connection.exec_driver_sql(f"SET LOCAL ROLE {quoted(role)}")
    yield
    connection.exec_driver_sql("SET LOCAL ROLE NONE")


def _missing_of_job(connection: Connection, role: str) -> list[str]:
    with _acting_as(connection, role):
        report = find_table_problems(connection, JOBS_USE)
    messages = [*report.problems, *filter(None, [report.missing_tables_message])]
    if messages:
        raise SchemaMismatch("; ".join(messages))
    return report.grants


_OWNER_RIGHTS = text("""
SELECT has_database_privilege(:role, current_database(), 'CREATE') AS may_create_schemas,
    has_database_privilege(:role, current_database(), 'TEMPORARY') AS may_create_temporary,
    has_schema_privilege(:role, current_setting('search_path'), 'USAGE') AS may_use,
    has_schema_privilege(:role, current_setting('search_path'), 'CREATE') AS may_create_tables,
    (SELECT pg_has_role(:role, nspowner, 'USAGE') FROM pg_namespace WHERE nspname = :own)
        AS owns_schema,
    quote_ident(current_database()) AS database,
    quote_ident(current_setting('search_path')) AS schema
""")


def _missing_of_owner(connection: Connection, role: str) -> list[str]:
    """Return statements for a role that creates the schema, and missing tables of the owner."""
    rights = connection.execute(_OWNER_RIGHTS, {"role": role, "own": OWN_SCHEMA}).one()
    name, statements = quoted(role), list[str]()
    if rights.owns_schema is None:
        statements.append(f"CREATE SCHEMA {OWN_SCHEMA} AUTHORIZATION {name};")
    elif not rights.owns_schema:
        raise DatabaseRefused(
            f"the schema {OWN_SCHEMA} belongs to another role: GRANT that role to {role}, or"
            " migrate with it"
        )
    if not (rights.may_use and rights.may_create_tables):
        statements.append(f"GRANT USAGE, CREATE ON SCHEMA {rights.schema} TO {name};")
    if not rights.may_create_temporary:
        statements.append(f"GRANT TEMPORARY ON DATABASE {rights.database} TO {name};")
    return statements


_READER_RIGHTS = text("""
SELECT quote_ident(n.nspname) AS schema,
    has_schema_privilege(:role, n.oid, 'USAGE') AS may_use,
    array_agg(format('%I.%I', n.nspname, c.relname) ORDER BY c.relname)
        FILTER (WHERE NOT has_table_privilege(:role, c.oid, 'SELECT')) AS unreadable
FROM pg_namespace AS n
LEFT JOIN pg_class AS c ON c.relnamespace = n.oid
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND (n.nspname = :own OR c.relname = ANY(:tables))
    -- staging of a run that is at work now, which ends with it
    AND c.relname NOT LIKE 'staging\\_%'
WHERE n.nspname IN (:own, current_setting('search_path'))
GROUP BY n.oid, n.nspname
ORDER BY n.nspname
""")


def _missing_of_reader(connection: Connection, role: str) -> list[str]:
    """Return statements for a role that reads the tables of the owner and of YieldSpark."""
    names = {table.name for table in OWNER_TABLES if table is not pool_daily_metrics}
    tables = [*sorted(names), metrics_table_of(connection).name]
    parameters = {"role": role, "own": OWN_SCHEMA, "tables": tables}
    statements = []
    for row in connection.execute(_READER_RIGHTS, parameters):
        if not row.may_use:
            statements.append(f"GRANT USAGE ON SCHEMA {row.schema} TO {quoted(role)};")
        if row.unreadable:
            statements.append(f"GRANT SELECT ON {', '.join(row.unreadable)} TO {quoted(role)};")
    return statements
