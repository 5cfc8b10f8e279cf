"""Alembic's entry: runs inside the transaction that `database.schema.migrate` opened."""

from __future__ import annotations

from alembic import context

from database.schema.own_schema import VERSION_TABLE
from database.schema.own_tables import OWN_SCHEMA, own_metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=own_metadata,
    version_table=VERSION_TABLE,
    version_table_schema=OWN_SCHEMA,
    include_schemas=True,
)
with context.begin_transaction():
    context.run_migrations()
