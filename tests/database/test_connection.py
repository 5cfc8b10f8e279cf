"""Every driver reaches the settings' database with the session that the product asks for, or one
message names the difference.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from pydantic import SecretStr
from pyspark.sql import SparkSession
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

from common.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseRefused,
    summarize_error,
)
from config_spark import Settings, load_settings
from database.connections.adbc_session import adbc_connection
from database.connections.engine import (
    CheckedSession,
    checked_connection,
    make_engine,
    probe_session,
)
from database.connections.parameters import connection_parameters
from database.connections.session_check import CHECKED_PARAMETERS, NEWER_PARAMETERS, ON_LINUX
from database.db_utils_spark import (
    MergeCounts,
    execute_sql,
    read_table_spark,
    upsert_via_staging,
    write_table_spark,
)
from database.schema.migrate import migrate
from database.schema.owner_tables import pool_daily_metrics
from database.transport.jdbc import checked_jdbc
from tests.support.databases import empty_database
from tests.support.owner_schema import role_with
from tests.support.processes import CommandLineHere
from tests.support.startup_proxy import Answer, Parameters, startup_proxy

PAGE = (Path(__file__).parents[2] / "docs" / "connection.md").read_text(encoding="utf-8")

NAMES = (
    "defi+prod",
    "dbname=postgres",
    "defi?x=1",
    "a b",
    "ü",
    "%41",
    "it's",
    "a\\b",
    "a/b&c=d#e",
    'say "a"',
)


def answer_by_adbc(session: CheckedSession, query: str) -> object:
    with adbc_connection(session.for_tasks) as connection:
        return connection.first_row(query)[0]


def answer_by_jdbc(spark: SparkSession, settings: Settings, query: str) -> object:
    url, properties = checked_jdbc(spark, settings)
    row = spark.read.jdbc(url, f"({query}) AS asked", properties=properties).first()
    assert row is not None
    return row[0]


def by_every_driver(spark: SparkSession, settings: Settings, expression: str) -> list[object]:
    """Return the answers of psycopg2, ADBC and JDBC."""
    query = f"SELECT {expression} AS answer"
    return [
        execute_sql(settings, query)[0]["answer"],
        answer_by_adbc(probe_session(settings), query),
        answer_by_jdbc(spark, settings, query),
    ]


def test_accepts_any_database_name(spark: SparkSession, server: Settings) -> None:
    for name in NAMES:
        with empty_database(server, name) as settings:
            assert by_every_driver(spark, settings, "current_database()::text") == [name] * 3
            url = connection_parameters(settings).sqlalchemy_url()
            url_with_password = make_url(url.render_as_string(hide_password=False))
            with create_engine(url_with_password, poolclass=NullPool).connect() as connection:
                assert connection.exec_driver_sql("SELECT current_database()").scalar() == name


def test_accepts_any_role_name_and_password(spark: SparkSession, database: Settings) -> None:
    execute_sql(database, """CREATE ROLE "a+b c%41ü'?&=" LOGIN PASSWORD 'p+ %41''\\?&=ü'""")
    try:
        settings = database.model_copy(
            update={"db_user": "a+b c%41ü'?&=", "db_password": SecretStr("p+ %41'\\?&=ü")}
        )
        assert by_every_driver(spark, settings, "current_user::text") == ["a+b c%41ü'?&="] * 3
    finally:
        execute_sql(database, """DROP ROLE "a+b c%41ü'?&=" """)


@pytest.mark.parametrize("host", ["db/other", "db?user=x", "db:5432/x", "a b", "u@db", "[::1]"])
def test_rejects_host_that_would_change_the_url(host: str) -> None:
    with pytest.raises(ConfigurationError, match="DB_HOST="):
        load_settings(_env_file=None, db_host=host)


def dropping_options(after: int = 0) -> Callable[[Parameters], Answer]:
    """Answer as a pooler that ignores `options`, except for the first `after` connections."""
    count = 0

    def answer(parameters: Parameters) -> Answer:
        nonlocal count
        count += 1
        if count <= after:
            return parameters
        return {name: value for name, value in parameters.items() if name != "options"}

    return answer


HISTORY = "timestamp,pool,tvlUsd,apy\n2025-08-01T23:01:00Z,pool-0,1000947.08,5.125\n"


def test_rejects_pooler_that_drops_session_parameters(
    run_here: CommandLineHere, database: Settings
) -> None:
    for statement in (
        "CREATE SCHEMA defi",
        "CREATE TABLE defi.pools (LIKE public.pools INCLUDING ALL)",
        "CREATE TABLE defi.raw_defillama_pool_history"
        " (LIKE public.raw_defillama_pool_history INCLUDING ALL)",
    ):
        execute_sql(database, statement)
    file = run_here.folder / "history.csv"
    file.write_text(HISTORY)
    with startup_proxy((str(database.db_host), database.db_port), dropping_options()) as port:
        document = run_here.json("load", str(file), code=1, DB_SCHEMA="defi", DB_PORT=str(port))
    assert re.search(r"has search_path=.*\(not defi\).*`options`", document["error"])
    assert len(document["error"]) <= 500
    count = "SELECT count(*) AS n FROM {}.raw_defillama_pool_history"
    assert execute_sql(database, count.format("public"))[0]["n"] == 0


def test_accepts_pooler_if_the_role_sets_the_session_parameters(
    spark: SparkSession, database: Settings
) -> None:
    with role_with(database, "SELECT 1") as settings:
        with startup_proxy((str(database.db_host), database.db_port), dropping_options()) as port:
            pooled = settings.model_copy(update={"db_port": port})
            with pytest.raises(DatabaseRefused) as refused:
                execute_sql(pooled, "SELECT 1")
            for name, value in re.findall(r"([\w.]+)=[^=]*? \(not (.*?)\)", str(refused.value)):
                execute_sql(database, f"ALTER ROLE {settings.db_user} SET {name} = '{value}'")
            path = "current_setting('search_path')"
            assert by_every_driver(spark, pooled, path) == ["public"] * 3


@pytest.mark.parametrize("driver", ["ADBC", "JDBC"])
def test_each_driver_reports_its_server(
    driver: str, spark: SparkSession, database: Settings, second_database: Settings
) -> None:
    """The first connection, of psycopg2, is as described; the next one is not."""

    def ask(settings: Settings) -> None:
        if driver == "ADBC":
            answer_by_adbc(probe_session(settings), "SELECT 1")
        else:
            checked_jdbc(spark, settings)

    target = (str(database.db_host), database.db_port)
    with startup_proxy(target, dropping_options(after=1)) as port:
        with pytest.raises(DatabaseRefused, match=f"the session of {driver} at .* has search_path"):
            ask(database.model_copy(update={"db_port": port}))
    names = iter([database.db_name])

    def elsewhere(parameters: Parameters) -> Answer:
        return parameters | {"database": next(names, second_database.db_name)}

    with startup_proxy(target, elsewhere) as port:
        with pytest.raises(
            DatabaseRefused, match=f"{driver} reached database {second_database.db_name} .*DB_HOST"
        ):
            ask(database.model_copy(update={"db_port": port}))


def test_rejects_jvm_in_another_time_zone(spark: SparkSession, database: Settings) -> None:
    assert spark._jvm is not None
    zones = spark._jvm.java.util.TimeZone
    before = zones.getDefault()
    zones.setDefault(zones.getTimeZone("Europe/Berlin"))
    try:
        with pytest.raises(
            DatabaseRefused, match=r"time zone is Europe/Berlin.*user\.timezone=UTC"
        ):
            checked_jdbc(spark, database)
    finally:
        zones.setDefault(before)


def test_rejects_task_on_another_server(spark: SparkSession, database: Settings) -> None:
    settings = database.model_copy(update={"read_transport": "adbc"})
    target = (str(database.db_host), database.db_port)
    with startup_proxy(target, dropping_options(after=2)) as port:
        frame = read_table_spark(spark, settings.model_copy(update={"db_port": port}), "SELECT 1")
        with pytest.raises(Exception, match="ADBC") as failed:
            frame.collect()
    assert summarize_error(failed.value).startswith("the session of ADBC at ")


def test_jdbc_appends_only_to_the_described_schema(spark: SparkSession, database: Settings) -> None:
    frame = spark.createDataFrame([("p",)], "pool_id string")
    target = (str(database.db_host), database.db_port)
    with startup_proxy(target, dropping_options(after=1)) as port:
        with pytest.raises(DatabaseRefused, match="JDBC"):
            write_table_spark(frame, database.model_copy(update={"db_port": port}), "pools")
    assert execute_sql(database, "SELECT pool_id FROM pools") == []


LIMITS = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
)


def test_limits_of_the_role_do_not_apply_to_sessions(
    spark: SparkSession, database: Settings
) -> None:
    with role_with(database, "SELECT 1") as settings:
        for limit in LIMITS:
            execute_sql(database, f"ALTER ROLE {settings.db_user} SET {limit} = '150ms'")
        limits = " || ".join(f"current_setting('{limit}')" for limit in LIMITS)
        assert by_every_driver(spark, settings, limits) == ["0" * len(LIMITS)] * 3
        for sleep in by_every_driver(spark, settings, "pg_sleep(0.2)::text"):
            assert sleep == ""
        with make_engine(settings).connect() as connection:
            connection.exec_driver_sql("SELECT 1")
            time.sleep(0.2)
            connection.exec_driver_sql("SELECT 1")


@pytest.mark.parametrize("target", ["ROLE", "DATABASE"])
def test_limits_of_a_millisecond_end_no_session(database: Settings, target: str) -> None:
    """Not even before the first query, in which the session sets those of newer servers itself."""
    with role_with(database, "SELECT 1") as settings:
        name = settings.db_user if target == "ROLE" else database.db_name
        for limit in LIMITS:
            execute_sql(database, f"ALTER {target} {name} SET {limit} = '1ms'")
        limits = " || ".join(f"current_setting('{limit}')" for limit in LIMITS)
        for _ in range(20):
            assert execute_sql(settings, f"SELECT {limits} AS a") == [{"a": "0" * len(LIMITS)}]
        with make_engine(settings).connect() as connection:
            connection.exec_driver_sql("SELECT pg_sleep(0.05)")
            time.sleep(0.05)
            connection.exec_driver_sql("SELECT pg_sleep(0.05)")
        assert answer_by_adbc(probe_session(settings), "SELECT pg_sleep(0.05)::text") == ""


def test_every_session_detects_a_lost_client(spark: SparkSession, database: Settings) -> None:
    values = " || ' ' || ".join(f"current_setting('{name}')" for name in ON_LINUX)
    expected = " ".join(NEWER_PARAMETERS[name] for name in ON_LINUX)
    assert by_every_driver(spark, database, values) == [expected] * 3


@pytest.mark.parametrize(
    ("limit", "work"),
    [("statement_timeout", "SELECT pg_sleep(1)"), ("lock_timeout", "LOCK TABLE pools")],
)
def test_names_a_limit_that_is_set_later(database: Settings, limit: str, work: str) -> None:
    message = (
        rf"ended the work by a limit \({limit}.*Remove it there \(such as ALTER ROLE \w+ RESET"
    )
    with checked_connection(make_engine(database)) as other:
        other.exec_driver_sql("LOCK TABLE pools")
        with pytest.raises(DatabaseError, match=message):
            execute_sql(database, f"SET {limit} = 20; {work}")


ALL_RIGHTS = """
GRANT ALL ON SCHEMA public, yieldspark TO yieldspark;
GRANT ALL ON ALL TABLES IN SCHEMA public, yieldspark TO yieldspark;
"""


def test_text_is_exact_for_every_encoding(
    spark: SparkSession, server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    frame = spark.createDataFrame(
        [("pool-é", date(2025, 8, 3), 1.5)], "pool_id string, date date, actual_apy double"
    )
    query = (
        "SELECT pool_id, octet_length(convert_to(pool_id, 'LATIN1')) AS bytes"
        " FROM pool_daily_metrics"
    )
    with empty_database(server, options="ENCODING 'LATIN1' LOCALE 'C'") as admin:
        migrate(make_engine(admin))
        execute_sql(admin, f"ALTER DATABASE {admin.db_name} SET client_encoding = 'LATIN1'")
        with role_with(admin, ALL_RIGHTS) as role:
            execute_sql(admin, f"ALTER ROLE {role.db_user} SET client_encoding = 'LATIN1'")
            assert by_every_driver(spark, role, "'pool-é'::text") == ["pool-é"] * 3
            counts = []
            for transport in ("adbc", "jdbc"):
                by_one = {"read_transport": transport, "write_transport": transport}
                settings = role.model_copy(update=by_one)
                counts.append(upsert_via_staging(frame, settings, pool_daily_metrics))
                assert read_table_spark(spark, settings, query).first() == ("pool-é", 6)
            assert counts == [MergeCounts(1, 0, 0), MergeCounts(0, 0, 1)]
            assert execute_sql(role, query) == [{"pool_id": "pool-é", "bytes": 6}]
            with pytest.raises(DatabaseError, match=r"can't hold a character.*UTF8"):
                execute_sql(role, "INSERT INTO pool_daily_metrics VALUES ('€', '2025-08-03')")


def test_several_hosts_share_one_port_for_every_driver(
    spark: SparkSession, database: Settings
) -> None:
    settings = database.model_copy(update={"db_host": "127.0.0.1,nowhere.invalid"})
    assert by_every_driver(spark, settings, "1::text") == ["1"] * 3


def test_documentation_lists_every_session_parameter(database: Settings) -> None:
    parameters = connection_parameters(database)
    for name in [*parameters.session, *NEWER_PARAMETERS, "client_encoding"]:
        assert f"`{name}`" in PAGE, name
    checked = PAGE.partition("each driver is asked where it is")[2].partition("\n\n")[0]
    names = set(re.findall("`(.*?)`", checked))
    assert names == {*CHECKED_PARAMETERS, "client_encoding"}
