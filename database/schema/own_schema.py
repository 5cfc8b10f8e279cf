"""Rights of a role on the schema `yieldspark`, which another role may have migrated.

In: PostgreSQL's catalogue, which every role may read. Out: the rights that are missing, each with
the statement that gives it. Staging tables and temporary ones are made there.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from common.errors import DatabaseRefused
from database.schema.tables import OWN_SCHEMA, own_metadata

VERSION_TABLE = "alembic_version"

MIGRATE = (
    "`python run_spark_local.py db migrate`, or in the cloud `python -m workflows operator -- db"
    " migrate`,"
)
"""The command that makes and upgrades tables, for messages: a laptop does not reach a database in
the cloud.
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
"""The search path of the product's sessions names one schema, which need not be usable."""

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

_TABLES = {
    "schema": OWN_SCHEMA,
    "tables": [*(table.name for table in own_metadata.tables.values()), VERSION_TABLE],
}


def missing_own_rights(connection: Connection) -> list[tuple[str, str]]:
    """What a job needs and this role lacks: (right, GRANT statement)."""
    schema = connection.execute(SCHEMA, {"schema": OWN_SCHEMA}).one()
    found = connection.execute(_RIGHTS, _TABLES).one()
    missing = []
    if schema.is_there and not (schema.may_use and schema.may_create):
        missing.append(
            (f"USAGE, CREATE on schema {OWN_SCHEMA}", f"USAGE, CREATE ON SCHEMA {OWN_SCHEMA}")
        )
    if not found.on_tables:
        commands = ", ".join(COMMANDS)
        right = f"{commands} ON ALL TABLES IN SCHEMA {OWN_SCHEMA}"
        missing.append((f"{commands} on tables of {OWN_SCHEMA}", right))
    if not found.temporary:
        right = f"TEMPORARY ON DATABASE {found.database}"
        missing.append((f"TEMPORARY on database {found.database}", right))
    return [(right, f"GRANT {grant} TO {found.role};") for right, grant in missing]


def require_own_rights(connection: Connection, *, to_create: bool = False) -> None:
    """Raises: DatabaseRefused with the GRANT statements where the role can't read the schema's
    tables, or with `to_create` make new ones there. A schema that is missing lacks nothing.
    """
    schema = connection.execute(SCHEMA, {"schema": OWN_SCHEMA}).one()
    found = connection.execute(_RIGHTS, _TABLES).one()
    if not schema.is_there:
        return
    if schema.may_use and found.may_read and (schema.may_create or not to_create):
        return
    missing = missing_own_rights(connection)
    lacking, grants = ([pair[part] for pair in missing] for part in (0, 1))
    raise DatabaseRefused(
        f"role {found.role} lacks {', '.join(lacking)}. As the role that made the schema"
        f" {OWN_SCHEMA} run: {' '.join(grants)}"
    )
