"""The table that METRICS_TABLE names: the definition of `pool_daily_metrics` under that name.

An engine of `make_engine` and its connections carry the name, and so does every session, as a
parameter. Nothing is written here.
"""

from __future__ import annotations

from functools import cache

from sqlalchemy import Connection, Engine, MetaData, Table, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from common.errors import ConfigurationError
from database.connections.engine import METRICS_OPTION
from database.connections.session_check import METRICS_PARAMETER
from database.schema.merge_sql import qualified, quoted
from database.schema.tables import GOOD, OWN_SCHEMA, pool_daily_metrics, run_ledger

REGCLASS = f"to_regclass(current_setting('{METRICS_PARAMETER}'))"
"""SQL: the table in the catalogue, NULL where it is missing."""


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


def last_metrics_table(connection: Connection) -> str | None:
    """The table that the last good metrics run wrote; None before the first one."""
    ledger = run_ledger.c
    # runs of versions without the setting wrote the default
    used = func.coalesce(ledger.plan["metrics_table"].astext, pool_daily_metrics.name)
    newest = (
        select(used)
        .where(ledger.status.in_(GOOD), ledger.plan.has_key("schema"))
        .order_by(ledger.started_at.desc())
        .limit(1)
    )
    return connection.execute(newest).scalar()


def require_same_metrics_table(connection: Connection) -> None:
    """Calendars and ages are about the table that the last good metrics run wrote.

    Raises: ConfigurationError where METRICS_TABLE names another one.
    """
    before, table = last_metrics_table(connection), metrics_table_of(connection).name
    if before not in (None, table):
        raise ConfigurationError(
            f"METRICS_TABLE changed from {before} to {table}: run --full-refresh. What YieldSpark"
            f" keeps in `{OWN_SCHEMA}` is about {before} until `calculate_metrics --full-refresh`"
            " has computed every pool again"
        )


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
