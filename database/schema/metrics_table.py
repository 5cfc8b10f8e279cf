"""The table that METRICS_TABLE names: the definition of `pool_daily_metrics` under that name.

Engines and connections have the name as an execution option, sessions as a parameter. Writes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from sqlalchemy import Connection, Engine, MetaData, Table, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from common.errors import ConfigurationError
from database.connections.engine import METRICS_OPTION
from database.connections.session_check import METRICS_PARAMETER
from database.schema.merge_sql import qualified, quoted
from database.schema.own_tables import GOOD, OWN_SCHEMA, run_ledger
from database.schema.owner_tables import pool_daily_metrics

REGCLASS = f"to_regclass(current_setting('{METRICS_PARAMETER}'))"
"""SQL for the table in the catalog; NULL if it does not exist."""


def finite(column: str) -> str:
    """SQL: the column as a double; NULL for NaN and the infinities, which no job of ours writes."""
    return f"CASE WHEN abs({column}::float8) < 'Infinity' THEN {column}::float8 END"


@cache
def metrics_table(name: str) -> Table:
    """Return the definition of `pool_daily_metrics` with another name."""
    if name == pool_daily_metrics.name:
        return pool_daily_metrics
    return pool_daily_metrics.to_metadata(MetaData(), name=name)


def metrics_table_of(bind: Engine | Connection) -> Table:
    """Return the metrics table of an engine or a connection."""
    return metrics_table(bind.get_execution_options()[METRICS_OPTION])


def metrics_name(bind: Engine | Connection) -> str:
    """Return the name of the metrics table, quoted for SQL."""
    return qualified(metrics_table_of(bind))


def no_value_of_other_jobs(
    connection: Connection, table: str, key: Iterable[str], columns: Iterable[str]
) -> str:
    """Return an SQL condition on a row `t`: only the key and the given columns have a value.

    What the database fills into every new row is no value of a job: defaults, ids and generated
    columns.

    Args:
        connection: reads the columns of the table, to which the owner may have added some.
        table: name of the table.
        key: columns of its key.
        columns: columns that may have any value.
    """
    job_columns = {*key, *columns}
    stored = connection.execute(_OTHER_COLUMNS, {"table": table})
    conditions = [
        _has_no_value(f"t.{quoted(row.name)}", row.default_value)
        for row in stored
        if row.name not in job_columns and row.name != "is_filtered_out"
    ]
    # another job marks rows with it; false and NULL are no marks
    return " AND ".join(["t.is_filtered_out IS NOT TRUE", *conditions])


_OTHER_COLUMNS = text("""
    SELECT a.attname AS name, pg_get_expr(d.adbin, d.adrelid) AS default_value
    FROM pg_attribute AS a
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = CAST(:table AS regclass)
        AND a.attnum > 0
        AND NOT a.attisdropped
        AND a.attidentity = ''
        AND a.attgenerated = ''
        -- nextval(..), now(), CURRENT_USER and the like differ from row to row; the function's
        -- parenthesis must not be that of a text or a type
        AND regexp_replace(
            coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
            '''[^'']*''|::[a-z ]+[(][0-9, ]+[)]', '', 'g'
        ) !~ '[a-z_][(]|CURRENT_|SESSION_USER'
""")


def _has_no_value(column: str, default: str | None) -> str:
    if default is None:
        return f"{column} IS NULL"
    # as text: json has no equality
    return f"({column} IS NULL OR {column}::text = ({default})::text)"


def last_metrics_table(connection: Connection) -> str | None:
    """Return the table that the last successful metrics run wrote; None before the first one."""
    ledger = run_ledger.c
    # runs of versions without the setting wrote the default
    table_name = func.coalesce(ledger.plan["metrics_table"].astext, pool_daily_metrics.name)
    newest = (
        select(table_name)
        .where(ledger.status.in_(GOOD), ledger.plan.has_key("schema"))
        .order_by(ledger.started_at.desc())
        .limit(1)
    )
    return connection.execute(newest).scalar()


def require_same_metrics_table(connection: Connection) -> None:
    """Check that METRICS_TABLE is still the table of the last successful metrics run: coverage and
    staleness in the schema `yieldspark` belong to that table.

    Raises:
        ConfigurationError: METRICS_TABLE names another table.
    """
    previous, table = last_metrics_table(connection), metrics_table_of(connection).name
    if previous not in (None, table):
        raise ConfigurationError(
            f"METRICS_TABLE changed from {previous} to {table}: run --full-refresh. Until"
            f" `calculate_metrics --full-refresh` has succeeded, the tables in `{OWN_SCHEMA}`"
            f" belong to {previous}"
        )


def create_statements(table: Table, schema: str) -> list[str]:
    """Return CREATE TABLE and CREATE INDEX statements for a table.

    Args:
        table: the definition.
        schema: schema of the new table. PostgreSQL names the indexes.
    """
    name = f"{quoted(schema)}.{quoted(table.name)}"
    definition = table.to_metadata(MetaData(), schema=schema)
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    # on one line, because it is part of messages
    create = " ".join(str(CreateTable(definition).compile(dialect=dialect)).split())
    statements = [f"{create};"]
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        columns = ", ".join(quoted(column.name) for column in index.columns)
        statements.append(f"CREATE INDEX ON {name} ({columns});")
    return statements
