"""A reused test database is as empty as a new one, and an altered one is not reused."""

from __future__ import annotations

import pytest

from config_spark import Settings
from database.connections.engine import connect, make_engine
from database.connections.parameters import connection_parameters
from database.db_utils_spark import execute_sql
from tests.support.databases import Databases
from tests.support.forecast_panels import panel_rows, store

OID = "SELECT oid FROM pg_database WHERE datname = current_database()"

TABLES = """
SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' AND oid >= 16384 ORDER BY 1
"""
SEQUENCES = "SELECT sequencename, last_value FROM pg_sequences ORDER BY 1"
STATISTICS = "SELECT count(*) AS n FROM pg_statistic WHERE starelid >= 16384"


def state(settings: Settings) -> dict[str, object]:
    """Return rows of each table, positions of the sequences, and planner statistics."""
    rows = {
        row["name"]: execute_sql(settings, f"SELECT count(*) AS n FROM {row['name']}")[0]["n"]
        for row in execute_sql(settings, TABLES)
    }
    return rows | {query: execute_sql(settings, query) for query in (SEQUENCES, STATISTICS)}


@pytest.fixture(scope="module")
def lender(server: Settings) -> Databases:
    """A pool that has lent no database yet."""
    return Databases(server)


def oid_of_next(lender: Databases) -> object:
    with lender.lent() as settings:
        return execute_sql(settings, OID)[0]["oid"]


def test_reused_database_equals_a_new_one(lender: Databases) -> None:
    """The test before has left a connection open, with a lock."""
    with lender.lent() as settings:
        new, oid = state(settings), execute_sql(settings, OID)
        first_name = settings.db_name
        store(make_engine(settings), panel_rows(2, 3))
        for statement in (
            "INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)"
            " VALUES ('p', now(), '{}')",
            "ANALYZE pool_daily_metrics",
            "CREATE TABLE yieldspark.staging_1 AS SELECT 1 AS n",
            "DROP TABLE yieldspark.staging_1",
        ):
            execute_sql(settings, statement)
        assert state(settings).keys() == new.keys()
        assert state(settings) != new
        left_open = connect(connection_parameters(settings))
        left_open.cursor().execute("LOCK TABLE pools")
    with lender.lent() as settings:
        assert settings.db_name != first_name
        assert execute_sql(settings, OID) == oid
        assert state(settings) == new


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE more (n int)",
        "CREATE SCHEMA more",
        "ALTER TABLE pools ADD COLUMN more int",
        "ALTER TABLE pools ALTER COLUMN name SET NOT NULL",
        "ALTER TABLE pools ENABLE ROW LEVEL SECURITY",
        "CREATE INDEX ON raw_defillama_pool_history (timestamp, pool_id)",
        "GRANT SELECT ON pools TO PUBLIC",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP SCHEMA yieldspark CASCADE",
        "ALTER DATABASE {name} SET work_mem = '8MB'",
        "REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC",
    ],
)
def test_altered_database_is_not_reused(lender: Databases, change: str) -> None:
    with lender.lent() as settings:
        altered = execute_sql(settings, OID)[0]["oid"]
        execute_sql(settings, change.format(name=settings.db_name))
    assert oid_of_next(lender) != altered
    assert execute_sql(lender.server, f"SELECT 1 FROM pg_database WHERE oid = {altered}") == []
