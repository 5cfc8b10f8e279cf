"""Failed connections and rights that a job lacks: each is reported with the next step."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from common.errors import (
    DatabaseError,
    DatabaseRefused,
    DatabaseUnreachable,
)
from config_spark import Settings
from database.connections.engine import make_engine, probe_session
from database.db_utils_spark import (
    execute_sql,
    read_table_spark,
)
from database.ledger.run_records import read_run
from database.ledger.runs import open_run
from tests.database.test_connection import HISTORY, answer_by_adbc
from tests.support.fault_runs import until
from tests.support.owner_schema import role_with
from tests.support.processes import CommandLineHere
from tests.support.startup_proxy import Answer, Parameters, error_message, listens, startup_proxy

GERMAN = {
    "28P01": (DatabaseRefused, "refused the login"),
    "28000": (DatabaseRefused, "refused the login"),
    "3D000": (DatabaseRefused, "DB_NAME"),
    "42501": (DatabaseRefused, "has no right"),
    "53300": (DatabaseError, "has no connection left"),
    "57P03": (DatabaseUnreachable, "no connection to PostgreSQL"),
    "08P01": (DatabaseRefused, "accepts no session parameters"),
}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("code", GERMAN)
def test_classifies_rejected_login_by_code_in_any_language(
    code: str, encoding: str, database: Settings
) -> None:
    refusal = error_message(
        {"S": "SCHWERWIEGEND", "V": "FATAL", "C": code, "M": "Das geht so nicht, »yieldspark«"},
        encoding,
    )
    kind, message = GERMAN[code]
    with startup_proxy(("127.0.0.1", 1), lambda _: refusal) as port:
        settings = database.model_copy(update={"db_port": port})
        both = f"{message}.*»yieldspark«|»yieldspark«.*{message}"
        with pytest.raises(kind, match=both) as caught:
            execute_sql(settings, "SELECT 1")
    assert (type(caught.value), caught.value.sqlstate) == (kind, code)


def test_server_without_free_connections_is_reported(database: Settings) -> None:
    with role_with(database, "SELECT 1") as settings:
        session = probe_session(settings)
        execute_sql(database, f"ALTER ROLE {settings.db_user} CONNECTION LIMIT 0")
        no_connection = pytest.raises(DatabaseError, match=r"no connection left.*max_connections")
        with no_connection:
            execute_sql(settings, "SELECT 1")
        with no_connection:
            answer_by_adbc(session, "SELECT 1")


@pytest.mark.parametrize("accepted", [0, 3])
def test_classifies_failed_jdbc_connection_by_code(
    accepted: int, spark: SparkSession, database: Settings
) -> None:
    """At once, or in a task: the driver connects twice to check its session, and once for the
    schema.
    """
    full = error_message({"S": "FATAL", "V": "FATAL", "C": "53300", "M": "zu viele"})
    remaining = accepted

    def answer(parameters: Parameters) -> Answer:
        nonlocal remaining
        if "TimeZone" not in parameters:  # JDBC's own
            return parameters
        remaining -= 1
        return parameters if remaining >= 0 else full

    with startup_proxy((str(database.db_host), database.db_port), answer) as port:
        settings = database.model_copy(update={"db_port": port, "read_transport": "jdbc"})
        engine = make_engine(settings)
        with (
            pytest.raises(DatabaseError, match=r"no connection left: .*zu viele") as refused,
            open_run(engine, job="read", mode="test") as run,
        ):
            read_table_spark(spark, settings, "SELECT pool_id FROM pools").collect()
        record = read_run(engine, run.run_id)
        assert (record.status, record.error) == ("failed", str(refused.value))


def test_classifies_localized_server_of_the_shared_cases(database: Settings) -> None:
    script = Path(__file__).resolve().parents[3] / "shared" / "cases" / "login_refused_in_german.py"
    if not script.is_file():
        pytest.skip(f"the cases are not beside the checkout ({script.name})")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    process = subprocess.Popen([sys.executable, str(script), str(port)])
    try:
        until(lambda: listens(port), "the case listens")
        with pytest.raises(DatabaseRefused, match=r"fehlgeschlagen\. Set DB_USER"):
            execute_sql(database.model_copy(update={"db_port": port}), "SELECT 1")
    finally:
        process.kill()
        process.wait()


def test_login_without_password_is_refused_not_unreachable(database: Settings) -> None:
    with pytest.raises(DatabaseRefused, match="DB_PASSWORD"):
        execute_sql(database.model_copy(update={"db_password": None}), "SELECT 1")


def test_transient_rejection_asks_to_run_again(database: Settings) -> None:
    full = error_message({"S": "FATAL", "V": "FATAL", "C": "53300", "M": "zu viele"})
    answers = iter([full])
    target = (str(database.db_host), database.db_port)
    with startup_proxy(target, lambda parameters: next(answers, parameters)) as port:
        with pytest.raises(DatabaseUnreachable, match=r"refused a connection \(.*zu viele"):
            execute_sql(database.model_copy(update={"db_port": port}), "SELECT 1")


def test_read_only_database_has_a_next_step(run_here: CommandLineHere, database: Settings) -> None:
    execute_sql(
        database, f"ALTER DATABASE {database.db_name} SET default_transaction_read_only = on"
    )
    file = run_here.folder / "history.csv"
    file.write_text(HISTORY)
    document = run_here.json("load", str(file), code=1)
    assert "is read-only" in document["error"]
    assert "primary" in document["error"]
    assert run_here("status").returncode == 0


def test_row_level_security_under_a_view_is_an_error(
    database: Settings, spark: SparkSession
) -> None:
    """A view with the rights of its caller has no policies in its own catalog entry."""
    for statement in (
        "INSERT INTO pools (pool_id) VALUES ('mine'), ('theirs')",
        "ALTER TABLE pools ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON pools USING (pool_id = 'mine')",
        "CREATE VIEW seen WITH (security_invoker) AS SELECT * FROM pools",
    ):
        execute_sql(database, statement)
    with role_with(database, "SELECT 1") as settings:
        execute_sql(database, f"GRANT SELECT ON seen, pools TO {settings.db_user}")
        with pytest.raises(DatabaseRefused, match="row-level security would hide rows"):
            execute_sql(settings, "SELECT * FROM seen")
        for transport in ("adbc", "jdbc"):
            settings_of_transport = settings.model_copy(update={"read_transport": transport})
            with pytest.raises(Exception, match="row-level security"):
                read_table_spark(spark, settings_of_transport, "SELECT pool_id FROM seen").collect()
