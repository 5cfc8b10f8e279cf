"""Servers that do not answer like PostgreSQL, and unusual roles and tables: the right rows or one
message, and never a hang.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from common.errors import DatabaseError, DatabaseRefused, DatabaseUnreachable, summarize_error
from config_spark import Settings
from database.connections import engine as driver_connection
from database.connections.engine import probe_session
from database.db_utils_spark import execute_sql
from database.embedded import server as embedded_server
from database.embedded.server import ServerAddress
from tests.support.owner_schema import role_with
from tests.support.processes import CommandLineHere
from tests.support.startup_proxy import error_message

RIGHTS = """
GRANT ALL ON SCHEMA public, yieldspark TO yieldspark;
GRANT ALL ON ALL TABLES IN SCHEMA public, yieldspark TO yieldspark;
"""
HISTORY = "timestamp,pool,tvlUsd,apy\n2025-08-01T23:01:00Z,pool-0,1000947.08,5.125\n"
READY = b"Z" + struct.pack("!I", 5) + b"I"
LOGGED_IN = b"R" + struct.pack("!II", 8, 0)
CLEARTEXT_PASSWORD = b"R" + struct.pack("!II", 8, 3)


def parameter(name: str, value: str) -> bytes:
    """Return a ParameterStatus message."""
    body = f"{name}\0{value}\0".encode()
    return b"S" + struct.pack("!I", len(body) + 4) + body


GREETING = b"".join(
    [
        LOGGED_IN,
        parameter("client_encoding", "UTF8"),
        parameter("server_encoding", "UTF8"),
        parameter("server_version", "15.0"),
        parameter("standard_conforming_strings", "on"),
        parameter("DateStyle", "ISO, MDY"),
        READY,
    ]
)


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the port of a server that sends one answer for each message and records the messages;
    after the last answer it is silent.
    """
    listener, received = socket.create_server(("127.0.0.1", 0)), list[bytes]()
    over = threading.Event()

    def serve(client: socket.socket) -> None:
        with suppress(OSError), client:
            for answer in answers:
                received.append(client.recv(65536))
                client.sendall(answer)
            over.wait()

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1]), received
    finally:
        over.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


ANSWERS = {
    "http": (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n",),
    "protocol 2": (b"Ewer da?\n\0",),
    "no code": (error_message({"S": "FATAL", "M": "wer da?"}),),
    "long": (error_message({"S": "FATAL", "C": "XX000", "M": "\x1b[2J" + "x" * 25_000}),),
    "no parameters": (LOGGED_IN + READY,),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_other_server_is_reported_on_one_line(name: str, database: Settings) -> None:
    with answering(*ANSWERS[name]) as (port, _):
        with pytest.raises(DatabaseError) as refused:
            execute_sql(database.model_copy(update={"db_port": port}), "SELECT 1")
    sentence = summarize_error(refused.value)
    assert f":{port}/" in sentence
    assert sentence.isprintable()
    assert len(sentence) <= 500


def test_limits_the_wait_for_a_silent_server(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PgBouncer with all servers in use: libpq waits without a limit."""
    monkeypatch.setattr(driver_connection, "ANSWER_SECONDS", 0.5)
    with answering(GREETING) as (port, _):
        silent = database.model_copy(update={"db_port": port})
        with pytest.raises(
            DatabaseUnreachable, match="accepted the login and answered no query for"
        ):
            execute_sql(silent, "SELECT 1")


def test_translates_errors_of_the_first_query_for_every_entry_point(database: Settings) -> None:
    refusal = error_message({"S": "FEHLER", "V": "ERROR", "C": "42501", "M": "geht nicht"}) + READY
    ways: list[Callable[[Settings], object]] = [
        lambda settings: execute_sql(settings, "SELECT 1"),
        probe_session,
    ]
    for way in ways:
        with answering(GREETING, refusal) as (port, _):
            with pytest.raises(DatabaseRefused, match=r"has no right to do this.*geht nicht"):
                way(database.model_copy(update={"db_port": port}))


def test_never_sends_the_password_to_another_program_on_the_port(database: Settings) -> None:
    assert database.db_password is not None
    with answering(CLEARTEXT_PASSWORD, LOGGED_IN + READY) as (port, received):
        stranger = ServerAddress("127.0.0.1", port, "yieldspark", "x", database.db_password)
        with pytest.raises(psycopg2.OperationalError):
            embedded_server._connect(stranger, "postgres")
    assert database.db_password.get_secret_value().encode() not in b"".join(received)


@pytest.fixture
def history_file(tmp_path: Path) -> Path:
    file = tmp_path / "history.csv"
    file.write_text(HISTORY)
    return file


ROLE_SETTINGS = {
    "quote_all_identifiers": "on",
    "array_nulls": "off",
    "client_min_messages": "debug5",
    "transform_null_equals": "on",
    "DateStyle": "German, DMY",
    "standard_conforming_strings": "off",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
}


def test_settings_of_the_role_do_not_change_results(
    database: Settings, run_here: CommandLineHere, history_file: Path
) -> None:
    with role_with(database, RIGHTS) as role:
        for name, value in ROLE_SETTINGS.items():
            execute_sql(database, f"ALTER ROLE {role.db_user} SET {name} = '{value}'")
        assert role.db_password is not None
        login: dict[str, Any] = {
            "DB_USER": role.db_user,
            "DB_PASSWORD": role.db_password.get_secret_value(),
        }
        assert run_here.json("load", str(history_file), **login)["rows_inserted"] == 1
        assert run_here.json("load", str(history_file), **login)["rows_inserted"] == 0
        assert execute_sql(role, "SELECT ARRAY['a', NULL] = '{a,NULL}' AS same") == [{"same": True}]
    rows = execute_sql(database, "SELECT raw_json_data FROM raw_defillama_pool_history")
    assert rows == [{"raw_json_data": {"apy": 5.125, "tvlUsd": 1000947.08}}]


REFUSALS = {
    "check": (
        "ALTER TABLE raw_defillama_pool_history ADD CHECK (pool_id <> 'pool-0')",
        "a constraint of the tables .*Have the table's owner",
    ),
    "trigger": (
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'nein'; END $$; CREATE TRIGGER no BEFORE INSERT ON"
        " raw_defillama_pool_history FOR EACH STATEMENT EXECUTE FUNCTION no()",
        "a trigger or a function .*nein.*Have its owner",
    ),
    "inheritance": (
        "CREATE TABLE more () INHERITS (pools)",
        r"other tables inherit from pools, .*\(pool_id\).*PARTITION BY",
    ),
    "no partition": (
        "ALTER TABLE raw_defillama_pool_history RENAME TO plain; CREATE TABLE"
        " raw_defillama_pool_history (LIKE plain INCLUDING DEFAULTS INCLUDING IDENTITY)"
        " PARTITION BY RANGE (timestamp)",
        "a constraint of the tables .*no partition of relation",
    ),
    "domain that must have a value": (
        "CREATE DOMAIN a AS text NOT NULL; CREATE DOMAIN b AS a;"
        " ALTER TABLE raw_defillama_pool_history ADD more b",
        "column raw_defillama_pool_history.more is NOT NULL without a default",
    ),
    "time without a zone": (
        "ALTER TABLE raw_defillama_pool_history ALTER timestamp TYPE timestamp",
        "is timestamp without time zone, expected timestamp with time zone",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_table_that_rejects_rows_has_a_next_step(
    name: str, database: Settings, run_here: CommandLineHere, history_file: Path
) -> None:
    statement, message = REFUSALS[name]
    execute_sql(database, statement)
    error = run_here.json("load", str(history_file), code=1)["error"]
    assert len(error) <= 500
    assert re.search(message, error), error


def test_domain_over_a_domain_is_its_base_type(
    database: Settings, run_here: CommandLineHere, history_file: Path
) -> None:
    execute_sql(
        database,
        "CREATE DOMAIN a AS text; CREATE DOMAIN b AS a;"
        " ALTER TABLE raw_defillama_pool_history ALTER pool_id TYPE b",
    )
    assert run_here.json("load", str(history_file))["rows_inserted"] == 1
