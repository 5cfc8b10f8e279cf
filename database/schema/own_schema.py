"""Checks a role's rights on the schema `yieldspark`, which another role may have created.

Missing rights are reported with the statements that grant them. Staging and temporary tables are
created in that schema.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from common.errors import DatabaseRefused
from database.schema.own_tables import OWN_SCHEMA, own_metadata

VERSION_TABLE = "alembic_version"

MIGRATE = (
    "`python run_spark_local.py db migrate`, or in the cloud `python -m workflows operator -- db"
    " migrate`,"
)
"""Commands that create and upgrade tables, for messages: a laptop cannot reach a database in the
cloud.
"""

COMMANDS = ("SELECT", "INSERT", "UPDATE", "DELETE")

SCHEMA = text("""
SELECT coalesce(CAST(:schema AS text), current_setting('search_path')) AS name,
    n.oid IS NOT NULL AS is_there,
    coalesce(has_schema_privilege(n.oid, 'USAGE'), false) AS may_use,
    coalesce(has_schema_privilege(n.oid, 'CREATE'), false) AS may_create
FROM (SELECT 1) AS one
LEFT JOIN pg_namespace AS n
    ON n.nspname = coalesce(CAST(:schema AS text), current_setting('search_path'))
""")
"""Schema of the owner's tables, which may not exist: the search path of our sessions has one
schema.
"""

_RIGHTS = text("""
SELECT coalesce(
        bool_and(has_table_privilege(c.oid, 'SELECT')
            AND has_table_privilege(c.oid, 'INSERT')
            AND has_table_privilege(c.oid, 'UPDATE')
            AND has_table_privilege(c.oid, 'DELETE')),
        true
    ) AS on_tables,
    coalesce(bool_and(has_table_privilege(c.oid, 'SELECT')), true) AS may_read,
    has_database_privilege(current_database(), 'TEMPORARY') AS temporary,
    quote_ident(current_database()) AS database,
    quote_ident(current_user) AS role
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = :schema
    AND c.relname = ANY(CAST(:tables AS text[]))
""")

# by name: staging tables of another role need no rights
_TABLES = {
    "schema": OWN_SCHEMA,
    "tables": [*(table.name for table in own_metadata.tables.values()), VERSION_TABLE],
}


def missing_own_rights(connection: Connection) -> list[tuple[str, str]]:
    """Return rights that a job needs and the role lacks: (right, GRANT statement)."""
    schema = connection.execute(SCHEMA, {"schema": OWN_SCHEMA}).one()
    rights = connection.execute(_RIGHTS, _TABLES).one()
    missing = []
    if schema.is_there and not (schema.may_use and schema.may_create):
        missing.append(
            (f"USAGE, CREATE on schema {OWN_SCHEMA}", f"USAGE, CREATE ON SCHEMA {OWN_SCHEMA}")
        )
    if not rights.on_tables:
        commands = ", ".join(COMMANDS)
        right = f"{commands} ON ALL TABLES IN SCHEMA {OWN_SCHEMA}"
        missing.append((f"{commands} on tables of {OWN_SCHEMA}", right))
    if not rights.temporary:
        right = f"TEMPORARY ON DATABASE {rights.database}"
        missing.append((f"TEMPORARY on database {rights.database}", right))
    return [(right, f"GRANT {grant} TO {rights.role};") for right, grant in missing]


def require_own_rights(connection: Connection, *, to_create: bool = False) -> None:
    """Check that the role may read the tables of the schema.

    Args:
        connection: connection to the database.
        to_create: also check that it may create tables. A missing schema is no error.

    Raises:
        DatabaseRefused: the message has the GRANT statements.
    """
    schema = connection.execute(SCHEMA, {"schema": OWN_SCHEMA}).one()
    rights = connection.execute(_RIGHTS, _TABLES).one()
    # `migrate` creates it, or names the right that it needs for that
    if not schema.is_there:
        return
    if schema.may_use and rights.may_read and (schema.may_create or not to_create):
        return
    missing = missing_own_rights(connection)
    raise DatabaseRefused(
        f"role {rights.role} lacks {', '.join(right for right, _ in missing)}. As the role that"
        f" created the schema {OWN_SCHEMA} run: {' '.join(grant for _, grant in missing)}"
    )


def require_read_rights(connection: Connection) -> None:
    """Check that a role that only reads, as the dashboard does, may read the tables of the schema.

    A missing schema is no error.

    Raises:
        DatabaseRefused: the message has the GRANT statements.
    """
    schema = connection.execute(SCHEMA, {"schema": OWN_SCHEMA}).one()
    rights = connection.execute(_RIGHTS, _TABLES).one()
    if not schema.is_there or (schema.may_use and rights.may_read):
        return
    raise DatabaseRefused(
        f"role {rights.role} may not read the tables of {OWN_SCHEMA}. As the role that created the"
        f" schema run: GRANT USAGE ON SCHEMA {OWN_SCHEMA} TO {rights.role}; GRANT SELECT ON ALL"
        f" TABLES IN SCHEMA {OWN_SCHEMA} TO {rights.role};"
    )
