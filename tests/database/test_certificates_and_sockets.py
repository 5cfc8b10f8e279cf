"""Every driver verifies the server's certificate and reaches Unix sockets if it supports them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import create_engine

from common.errors import (
    ConfigurationError,
    DatabaseUnreachable,
)
from config_spark import Settings, load_settings
from database.connections.engine import connect, probe_session
from database.connections.parameters import connection_parameters
from database.db_utils_spark import (
    execute_sql,
    read_table_spark,
    write_table_spark,
)
from database.embedded import process as server_process
from database.embedded.server import EmbeddedServer
from tests.database.test_connection import answer_by_adbc, by_every_driver
from tests.support.certificates import Authority
from tests.support.startup_proxy import startup_proxy


def test_every_driver_verifies_the_server_certificate(
    spark: SparkSession, database: Settings, tmp_path: Path
) -> None:
    authority, another = Authority.new("ours"), Authority.new("another")
    root, context = authority.write(tmp_path), authority.server_context("localhost", tmp_path)
    with startup_proxy((str(database.db_host), database.db_port), tls=context) as port:
        secure = {"db_host": "localhost", "db_port": port, "db_sslmode": "verify-full"}
        settings = database.model_copy(update=secure | {"db_sslrootcert": root})
        assert by_every_driver(spark, settings, "1::text") == ["1"] * 3
        session = probe_session(settings)
        wrong = settings.model_copy(update={"db_sslrootcert": another.write(tmp_path)})
        parameters = connection_parameters(wrong)
        for ask in (
            lambda: connect(parameters),
            lambda: answer_by_adbc(replace(session, parameters=parameters), "SELECT 1"),
        ):
            with pytest.raises(DatabaseUnreachable, match=r"certificate.*DB_SSLROOTCERT"):
                ask()


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """A short path, as the system limits it, that the server's account can enter."""
    with tempfile.TemporaryDirectory(prefix="ys", dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_unix_socket_works_for_drivers_that_support_it(
    spark: SparkSession,
    own_server: EmbeddedServer,
    socket_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(
        server_process.SERVER_SETTINGS, "unix_socket_directories", str(socket_folder)
    )
    address = own_server.start()
    settings = load_settings(
        _env_file=None,
        db_host=str(socket_folder),
        db_port=address.port,
        db_password=address.password,
        read_transport="jdbc",
    )
    assert execute_sql(settings, "SELECT inet_server_addr() AS a") == [{"a": None}]
    frame = read_table_spark(spark, settings, "SELECT current_database()::text AS name")
    assert frame.first() == (settings.db_name,)
    url = connection_parameters(settings).sqlalchemy_url()
    with create_engine(url.render_as_string(hide_password=False)).connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    with pytest.raises(ConfigurationError, match=f"DB_HOST={socket_folder} is a Unix socket.*adbc"):
        write_table_spark(spark.createDataFrame([("p",)], "pool_id string"), settings, "pools")
