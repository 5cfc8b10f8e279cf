"""Migrations, schema check, connection errors: against the real server."""

from __future__ import annotations

import socket

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import Engine, MetaData, text

from config_spark import Settings
from database.connection import checked_connection, libpq_uri, make_engine
from database.db_utils_spark import execute_sql
from database.migrate import VERSION_TABLE, migrate
from database.schema_check import verify_tables
from database.tables import OWN_SCHEMA, OWNER_TABLES, own_metadata, owner_metadata, pool_daily_metrics
from product_errors import DatabaseRefused, DatabaseUnreachable, SchemaMismatch


def _without(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.parametrize("metadata", [owner_metadata, own_metadata])
def test_the_migrations_make_exactly_the_tables(engine: Engine, metadata: MetaData) -> None:
    def ours(name: str | None, kind: str, parents: object) -> bool:
        return kind != "table" or (name in {table.name for table in metadata.tables.values()})

    with engine.connect() as connection:
        options = {
            "include_schemas": True,
            "include_name": ours,
            "compare_type": True,
            "version_table": VERSION_TABLE,
            "version_table_schema": OWN_SCHEMA,
        }
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_a_second_migration_has_nothing_to_do(engine: Engine) -> None:
    assert migrate(engine) is False


def test_migrating_leaves_the_owners_tables_alone(engine: Engine) -> None:
    _without(
        engine,
        f"DROP SCHEMA {OWN_SCHEMA} CASCADE",
        "DROP TABLE gas_fees_daily",
        "ALTER TABLE pools ADD COLUMN own_note text",
        "INSERT INTO pools (pool_id, own_note) VALUES ('p', 'kept')",
    )
    assert migrate(engine) is True
    with engine.connect() as connection:
        assert connection.execute(text("SELECT own_note FROM pools")).scalar_one() == "kept"
        assert connection.execute(text("SELECT count(*) FROM gas_fees_daily")).scalar_one() == 0


def test_a_missing_table_a_missing_column_and_another_type_are_named(engine: Engine) -> None:
    _without(
        engine,
        "DROP TABLE gas_fees_daily",
        "ALTER TABLE pool_daily_metrics DROP COLUMN actual_apy",
        "ALTER TABLE pool_daily_metrics ALTER COLUMN actual_tvl TYPE text",
    )
    with engine.connect() as connection, pytest.raises(SchemaMismatch) as caught:
        verify_tables(connection, OWNER_TABLES)
    message = str(caught.value)
    assert "table gas_fees_daily is missing" in message
    assert "pool_daily_metrics.actual_apy is missing" in message
    assert "pool_daily_metrics.actual_tvl is text, expected number" in message


def test_wider_types_of_the_owner_pass(engine: Engine) -> None:
    _without(engine, "ALTER TABLE pool_daily_metrics ALTER COLUMN actual_tvl TYPE double precision")
    with engine.connect() as connection:
        verify_tables(connection, [pool_daily_metrics])


def test_nothing_listens(database: Settings) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(DatabaseUnreachable, match=f"127.0.0.1:{port}.*DB_HOST"):
            execute_sql(database.model_copy(update={"db_port": port}), "SELECT 1")


def test_a_wrong_password_is_refused_and_not_shown(database: Settings) -> None:
    with pytest.raises(DatabaseRefused, match="DB_PASSWORD") as caught:
        execute_sql(database.model_copy(update={"db_password": SecretStr("wrong-secret")}), "SELECT 1")
    assert "wrong-secret" not in str(caught.value)


def test_an_unknown_database_is_named(database: Settings) -> None:
    with pytest.raises(DatabaseRefused, match="DB_NAME"):
        execute_sql(database.model_copy(update={"db_name": "nowhere"}), "SELECT 1")


def test_a_role_without_rights(database: Settings) -> None:
    execute_sql(database, "DROP ROLE IF EXISTS guest")
    execute_sql(database, "CREATE ROLE guest LOGIN PASSWORD 'guest'")
    guest = database.model_copy(update={"db_user": "guest", "db_password": SecretStr("guest")})
    with pytest.raises(DatabaseRefused, match="role guest has no right"):
        execute_sql(guest, "SELECT * FROM pools")
    with pytest.raises(DatabaseRefused, match="role guest has no right"), checked_connection(make_engine(guest)) as connection:
        connection.execute(text("CREATE SCHEMA other"))
    execute_sql(database, "DROP ROLE guest")


def test_secrets_stay_out_of_reprs(database: Settings) -> None:
    assert database.db_password is not None
    secret = database.db_password.get_secret_value()
    assert secret in libpq_uri(database)
    assert all(secret not in shown for shown in (repr(database), str(database), repr(make_engine(database)), str(make_engine(database).url)))


def test_a_role_that_owns_the_schema_needs_no_right_to_create_another(database: Settings) -> None:
    for statement in ("DROP ROLE IF EXISTS schema_owner", "CREATE ROLE schema_owner LOGIN PASSWORD 'owner'", f"DROP SCHEMA {OWN_SCHEMA} CASCADE"):
        execute_sql(database, statement)
    execute_sql(database, f"CREATE SCHEMA {OWN_SCHEMA} AUTHORIZATION schema_owner")
    assert migrate(make_engine(database.model_copy(update={"db_user": "schema_owner", "db_password": SecretStr("owner")}))) is True
    execute_sql(database, "DROP OWNED BY schema_owner CASCADE")
    execute_sql(database, "DROP ROLE schema_owner")


def test_a_newer_database_is_left_alone(engine: Engine) -> None:
    _without(engine, f"UPDATE {OWN_SCHEMA}.{VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(SchemaMismatch, match="revision 9999"):
        migrate(engine)
