"""The table that METRICS_TABLE names: the definition of `pool_daily_metrics` under that name.

An engine of `make_engine` carries the name, and so do its connections and every session of ours, as
the parameter METRICS_PARAMETER. Nothing is read or written here.
"""

from __future__ import annotations

from functools import cache

from sqlalchemy import Connection, Engine, MetaData, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from database.merge_sql import qualified, quoted
from database.tables import pool_daily_metrics

METRICS_OPTION = "metrics_table"
"""The execution option of an engine that has the name."""

METRICS_PARAMETER = "yieldspark.metrics_table"
"""The session parameter that has the name, for SQL that looks the table up in the catalogue."""

REGCLASS = f"to_regclass(current_setting('{METRICS_PARAMETER}'))"


def metrics_option(name: str) -> str:
    """libpq's option that sets METRICS_PARAMETER."""
    return f"-c {METRICS_PARAMETER}={name}"


@cache
def metrics_table(name: str) -> Table:
    """Columns and key of `pool_daily_metrics` as the table `name`."""
    if name == pool_daily_metrics.name:
        return pool_daily_metrics
    return pool_daily_metrics.to_metadata(MetaData(), name=name)


def metrics_table_of(bind: Engine | Connection) -> Table:
    """The table that the settings behind an engine or a connection name."""
    return metrics_table(bind.get_execution_options()[METRICS_OPTION])


def metrics_name(bind: Engine | Connection) -> str:
    """Its name, quoted for SQL."""
    return qualified(metrics_table_of(bind))


def create_statements(table: Table, schema: str) -> list[str]:
    """CREATE TABLE, and an index for each that the definition has; PostgreSQL names the indexes."""
    name = f"{quoted(schema)}.{quoted(table.name)}"
    made = table.to_metadata(MetaData(), schema=schema)
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    create = " ".join(str(CreateTable(made).compile(dialect=dialect)).split())
    indexes = [
        f"CREATE INDEX ON {name} ({', '.join(quoted(column.name) for column in index.columns)});"
        for index in sorted(table.indexes, key=lambda index: str(index.name))
    ]
    return [f"{create};", *indexes]
