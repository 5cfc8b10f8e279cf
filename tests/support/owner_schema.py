"""The owner's tables in a database (`owner_schema.sql`), filled like the owner's jobs do, and a
role with exactly the documented rights.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from config_spark import Settings
from database.connections.engine import make_engine
from database.schema.migrate import migrate
from tests.support.databases import fresh_database
from tests.support.metrics_oracle import World
from tests.support.metrics_store import insert_at_once

SCHEMA = Path(__file__).with_name("owner_schema.sql")
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "your-own-database.md"

INSERTS = {
    "pools": "(pool_id, name, chain, protocol, symbol, is_active)",
    "raw_defillama_pool_history": "(pool_id, timestamp, raw_json_data)",
    "raw_coinmarketcap_ohlcv": "(data_timestamp, symbol, raw_json_data)",
    "gas_fees_daily": "(date, actual_avg_gas_gwei)",
}
"""Like the owner's jobs: without ids and insertion times."""


@pytest.fixture(scope="session")
def owner_template(server: Settings) -> Iterator[str]:
    """The name of a database with the owner's tables only."""
    name = f"owner_{secrets.token_hex(6)}"
    admin = make_engine(server.model_copy(update={"db_name": "postgres"})).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
    with make_engine(server.model_copy(update={"db_name": name})).begin() as connection:
        connection.exec_driver_sql(SCHEMA.read_text(encoding="utf-8"))
    yield name
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def owner_tables(server: Settings, owner_template: str) -> Iterator[Settings]:
    """Settings of a new database with the owner's tables, before any migration."""
    with fresh_database(server, owner_template) as settings:
        yield settings


@pytest.fixture
def owner_database(owner_tables: Settings) -> Settings:
    """Settings of a migrated database with the owner's tables."""
    migrate(make_engine(owner_tables))
    return owner_tables


@pytest.fixture
def restricted(owner_tables: Settings) -> Iterator[Settings]:
    """The owner's tables for a role with the documented rights of the jobs, which has created
    YieldSpark's tables.
    """
    with role_with(owner_tables, documented_grants()) as settings:
        migrate(make_engine(settings))
        yield settings


def documented_grants() -> str:
    """Return the guide's statements for the two jobs, without the optional one that needs a
    superuser.
    """
    section = GUIDE.read_text(encoding="utf-8").split("## Rights")[1]
    block = re.search(r"```sql\n(.*?)```", section, re.DOTALL)
    assert block, "the guide has no SQL block under `Rights`"
    jobs = block[1].split("-- load, ingest")[0]
    return "\n".join(line for line in jobs.splitlines() if "pg_read_all_stats" not in line)


@contextmanager
def role_with(
    database: Settings, statements: str, *, owner: str | None = None
) -> Iterator[Settings]:
    """Yield settings of a role after statements that name it `yieldspark`, run by `owner` or the
    superuser.
    """
    role, password = f"jobs_{secrets.token_hex(6)}", secrets.token_hex(8)
    admin = make_engine(database)
    with admin.begin() as connection:
        # the guide's statement creates the role with a placeholder for its password
        renamed = re.sub(r"\b(GRANT|TO|AUTHORIZATION|ROLE) yieldspark\b", rf"\1 {role}", statements)
        if owner:
            connection.exec_driver_sql(f"SET LOCAL ROLE {owner}")
        if f"CREATE ROLE {role}" not in renamed:
            connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
        connection.exec_driver_sql(renamed)
        connection.exec_driver_sql(f"ALTER ROLE {role} PASSWORD '{password}'")
    try:
        yield database.model_copy(update={"db_user": role, "db_password": SecretStr(password)})
    finally:
        with admin.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")


@contextmanager
def ordinary_owner(database: Settings) -> Iterator[str]:
    """Yield a role that owns the tables and may create roles and schemas, but is no superuser, as
    in a managed PostgreSQL.
    """
    name, admin = f"owner_{secrets.token_hex(6)}", make_engine(database)
    with admin.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} CREATEROLE")
        connection.exec_driver_sql(f"GRANT CREATE ON DATABASE {database.db_name} TO {name}")
        connection.exec_driver_sql(f"GRANT CREATE ON SCHEMA public TO {name}")
        for table in (*INSERTS, "pool_daily_metrics"):
            connection.exec_driver_sql(f"ALTER TABLE {table} OWNER TO {name}")
    try:
        yield name
    finally:
        with admin.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {name} CASCADE")
            connection.exec_driver_sql(f"DROP ROLE {name}")


def put_as_owner(engine: Engine, world: World) -> None:
    """Insert a generated world like the owner's jobs: ids come from the sequence, in the order of
    the rows.
    """
    pools = sorted({row.pool_id for row in world.rows})
    values: dict[str, list[tuple[Any, ...]]] = {
        "pools": [
            (pool, pool, "Ethereum", "aave-v3", "USDC", pool not in world.inactive)
            for pool in pools
        ],
        "raw_defillama_pool_history": [
            (row.pool_id, row.timestamp, json.dumps(row.document)) for row in world.rows
        ],
        "raw_coinmarketcap_ohlcv": [
            (at, symbol, json.dumps({"USD": {"close": close}}))
            for (at, symbol), close in world.prices.items()
        ],
        "gas_fees_daily": list(world.gas.items()),
    }
    with engine.begin() as connection:
        for table, rows in values.items():
            insert_at_once(connection, f"{table} {INSERTS[table]} VALUES %s", rows)
