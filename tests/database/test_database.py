"""Migrations, schema check and connection errors, on a real server."""

from __future__ import annotations

import socket

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Engine, MetaData, text

from common.errors import DatabaseRefused, DatabaseUnreachable, SchemaMismatch
from config_spark import Settings
from database.connections.engine import checked_connection, connect, make_engine
from database.connections.parameters import connection_parameters
from database.db_utils_spark import execute_sql
from database.schema.check import verify_tables
from database.schema.migrate import (
    LAST_UPGRADE,
    NEWEST_REVISION,
    _scripts,
    migrate,
    require_current,
)
from database.schema.own_schema import VERSION_TABLE
from database.schema.own_tables import OWN_SCHEMA, own_metadata
from database.schema.owner_tables import owner_metadata
from database.schema.table_use import METRICS_USE
from database.transport.jdbc import get_jdbc_properties, get_jdbc_url
from tests.support.processes import CommandLineHere


def _without(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.parametrize("metadata", [owner_metadata, own_metadata])
def test_migrations_create_exactly_the_defined_tables(engine: Engine, metadata: MetaData) -> None:
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
        assert (
            compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        )


def test_the_newest_revision_is_the_head_of_the_scripts() -> None:
    with _scripts() as folder:
        assert ScriptDirectory(str(folder)).get_current_head() == NEWEST_REVISION


def test_upgrades_a_database_of_the_first_revision(engine: Engine) -> None:
    _without(
        engine,
        f"ALTER TABLE {OWN_SCHEMA}.run_ledger DROP COLUMN lease_expires_at,"
        " DROP COLUMN is_undoable, DROP COLUMN undone_at, DROP COLUMN undone_by",
        f"DROP TABLE {OWN_SCHEMA}.run_changes, {OWN_SCHEMA}.replaced_rows",
        f"DROP INDEX {OWN_SCHEMA}.forecasts_as_of_idx",
        f"UPDATE {OWN_SCHEMA}.{VERSION_TABLE} SET version_num = '0011'",
    )
    assert migrate(engine) is True
    test_migrations_create_exactly_the_defined_tables(engine, own_metadata)


def test_second_migration_changes_nothing(engine: Engine) -> None:
    assert migrate(engine) is False


def test_migration_does_not_alter_tables_of_the_owner(engine: Engine) -> None:
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


def test_names_missing_table_missing_column_and_wrong_type(engine: Engine) -> None:
    _without(
        engine,
        "DROP TABLE gas_fees_daily",
        "ALTER TABLE pool_daily_metrics DROP COLUMN actual_apy",
        "ALTER TABLE pool_daily_metrics ALTER COLUMN actual_tvl TYPE text",
    )
    with engine.connect() as connection, pytest.raises(SchemaMismatch) as caught:
        verify_tables(connection, METRICS_USE)
    message = str(caught.value)
    assert "table gas_fees_daily is missing" in message
    assert "pool_daily_metrics.actual_apy is missing" in message
    assert "pool_daily_metrics.actual_tvl is text, expected number" in message


def test_accepts_wider_types_of_the_owner(engine: Engine) -> None:
    _without(engine, "ALTER TABLE pool_daily_metrics ALTER COLUMN actual_tvl TYPE double precision")
    with engine.connect() as connection:
        verify_tables(connection, METRICS_USE)


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (
            ["ALTER TABLE pool_daily_metrics ALTER COLUMN pool_id TYPE uuid USING pool_id::uuid"],
            "pool_daily_metrics.pool_id is uuid, expected text",
        ),
        (
            ["ALTER TABLE raw_defillama_pool_history ALTER COLUMN raw_json_data TYPE json"],
            "raw_defillama_pool_history.raw_json_data is json, expected jsonb",
        ),
        (
            [
                "ALTER TABLE pool_daily_metrics DROP CONSTRAINT pool_daily_metrics_pkey, ADD COLUMN"
                " id serial PRIMARY KEY"
            ],
            "pool_daily_metrics has no unique index on (pool_id, date)",
        ),
        (
            [
                "ALTER TABLE gas_fees_daily DROP CONSTRAINT gas_fees_daily_pkey",
                "CREATE UNIQUE INDEX ON gas_fees_daily (date) WHERE actual_avg_gas_gwei > 0",
            ],
            "gas_fees_daily has no unique index on (date)",
        ),
    ],
)
def test_names_table_problems_before_the_job_starts(
    engine: Engine, statements: list[str], message: str
) -> None:
    _without(engine, *statements)
    with engine.connect() as connection, pytest.raises(SchemaMismatch) as caught:
        verify_tables(connection, METRICS_USE)
    assert message in str(caught.value)


def test_accepts_any_unique_index_and_any_view(engine: Engine) -> None:
    _without(
        engine,
        "ALTER TABLE pool_daily_metrics DROP CONSTRAINT pool_daily_metrics_pkey",
        "CREATE UNIQUE INDEX ON pool_daily_metrics (date, pool_id) INCLUDE (actual_apy)",
        "ALTER TABLE pools RENAME TO all_pools",
        "CREATE VIEW pools AS SELECT * FROM all_pools",
    )
    with engine.connect() as connection:
        verify_tables(connection, METRICS_USE)


def test_idle_connection_is_kept_alive(database: Settings, engine: Engine) -> None:
    """Over TCP: the server detects a lost driver, and the network sees traffic."""
    other = connect(connection_parameters(database))
    with engine.connect() as connection:
        for raw in (connection.connection.driver_connection, other):
            assert raw is not None
            cursor = raw.cursor()
            cursor.execute("SHOW tcp_keepalives_idle")
            assert (cursor.fetchone(), raw.info.dsn_parameters["keepalives_idle"]) == (
                ("60",),
                "60",
            )
    other.close()
    assert get_jdbc_properties(database)["tcpKeepAlive"] == "true"


def test_ipv6_host_is_in_brackets(database: Settings) -> None:
    settings = database.model_copy(update={"db_host": "::1"})
    assert f"//[::1]:{database.db_port}/" in get_jdbc_url(settings)


def test_unreachable_server_is_reported(database: Settings) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(DatabaseUnreachable, match=f"127.0.0.1:{port}.*DB_HOST"):
            execute_sql(database.model_copy(update={"db_port": port}), "SELECT 1")


def test_wrong_password_is_refused_and_not_shown(database: Settings) -> None:
    with pytest.raises(DatabaseRefused, match="DB_PASSWORD") as caught:
        execute_sql(
            database.model_copy(update={"db_password": SecretStr("wrong-secret")}), "SELECT 1"
        )
    assert "wrong-secret" not in str(caught.value)


def test_names_an_unknown_database(database: Settings) -> None:
    with pytest.raises(DatabaseRefused, match="DB_NAME"):
        execute_sql(database.model_copy(update={"db_name": "nowhere"}), "SELECT 1")


def test_role_without_rights_is_reported(database: Settings) -> None:
    execute_sql(database, "DROP ROLE IF EXISTS guest")
    execute_sql(database, "CREATE ROLE guest LOGIN PASSWORD 'guest'")
    guest = database.model_copy(update={"db_user": "guest", "db_password": SecretStr("guest")})
    with pytest.raises(DatabaseRefused, match="role guest has no right"):
        execute_sql(guest, "SELECT * FROM pools")
    with (
        pytest.raises(DatabaseRefused, match="role guest has no right"),
        checked_connection(make_engine(guest)) as connection,
    ):
        connection.execute(text("CREATE SCHEMA other"))
    execute_sql(database, "DROP ROLE guest")


def test_repr_hides_secrets(database: Settings) -> None:
    assert database.db_password is not None
    secret = database.db_password.get_secret_value()
    parameters = connection_parameters(database)
    assert secret in parameters.conninfo
    assert all(
        secret not in text
        for text in (
            repr(database),
            str(database),
            repr(parameters),
            repr(make_engine(database)),
            str(make_engine(database).url),
        )
    )


def test_owner_of_the_schema_needs_no_create_right(database: Settings) -> None:
    for statement in (
        "DROP ROLE IF EXISTS schema_owner",
        "CREATE ROLE schema_owner LOGIN PASSWORD 'owner'",
        f"DROP SCHEMA {OWN_SCHEMA} CASCADE",
    ):
        execute_sql(database, statement)
    execute_sql(database, f"CREATE SCHEMA {OWN_SCHEMA} AUTHORIZATION schema_owner")
    assert (
        migrate(
            make_engine(
                database.model_copy(
                    update={"db_user": "schema_owner", "db_password": SecretStr("owner")}
                )
            )
        )
        is True
    )
    execute_sql(database, "DROP OWNED BY schema_owner CASCADE")
    execute_sql(database, "DROP ROLE schema_owner")


def test_a_database_of_an_unreleased_revision_gets_one_sentence(
    engine: Engine, run_here: CommandLineHere
) -> None:
    _without(engine, f"UPDATE {OWN_SCHEMA}.{VERSION_TABLE} SET version_num = '0010'")
    sentence = (
        "the schema yieldspark is at revision 0010, which an unreleased version made and this"
        f" version cannot upgrade: run `db migrate` of commit {LAST_UPGRADE} first, or discard its"
        " contents by DROP SCHEMA yieldspark CASCADE"
    )
    for refused in (migrate, require_current):
        with pytest.raises(SchemaMismatch, match=sentence):
            refused(engine)
    for command in (["db", "migrate"], ["status"]):
        finished = run_here(*command)
        assert finished.returncode != 0
        assert sentence in " ".join(finished.stderr.split())
        assert "Traceback" not in finished.stderr
    _without(engine, f"DROP SCHEMA {OWN_SCHEMA} CASCADE")
    assert migrate(engine) is True


def test_does_not_change_a_newer_database(engine: Engine) -> None:
    _without(engine, f"UPDATE {OWN_SCHEMA}.{VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(SchemaMismatch, match="revision 9999"):
        migrate(engine)
