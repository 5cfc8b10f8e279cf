"""`DB_SSLMODE=verify-full` against a server with TLS of its own: Debian's `postgresql`, because the
embedded one has none. A right, an expired and a wrong certificate, by every driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from common.errors import DatabaseUnreachable
from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from tests.database.test_connection import answer_by_jdbc, by_every_driver
from tests.support.certificates import DAY, Authority, tomorrow
from tests.support.tls_server import TlsServer, served_with_tls


@pytest.fixture
def tls_server(processes: None, server_programs: Path) -> Iterator[TlsServer]:
    with served_with_tls() as server:
        yield server


def asks(engine: Engine) -> None:
    with checked_connection(engine) as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1


def test_verifies_the_certificate_of_a_server_with_tls(
    tls_server: TlsServer, spark: SparkSession, tmp_path: Path
) -> None:
    ours, another = Authority.new("ours"), Authority.new("another")
    settings = tls_server.settings.model_copy(update={"db_sslrootcert": ours.write(tmp_path)})
    tls_server.present(*ours.server_files("localhost", valid_until=tomorrow()))
    is_encrypted = "(SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid())"
    assert by_every_driver(spark, settings, is_encrypted) == ["true"] * 3

    cases: list[tuple[Settings, Authority, str, datetime]] = [
        (settings, ours, "localhost", tomorrow() - 2 * DAY),
        (settings, another, "localhost", tomorrow()),
        (settings, ours, "db.example.com", tomorrow()),
    ]
    asked: list[Callable[[Settings], object]] = [
        lambda settings: asks(make_engine(settings)),
        lambda settings: answer_by_jdbc(spark, settings, "SELECT 1 AS one"),
    ]
    for wrong, authority, host, valid_until in cases:
        tls_server.present(*authority.server_files(host, valid_until=valid_until))
        for ask in asked:
            with pytest.raises(Exception, match=r"(?i)certificat|PKIX|hostname") as caught:
                ask(wrong)
        assert wrong.db_password is not None
        assert wrong.db_password.get_secret_value() not in str(caught.value)
        with pytest.raises(DatabaseUnreachable, match="DB_SSLROOTCERT"):
            asks(make_engine(wrong))
