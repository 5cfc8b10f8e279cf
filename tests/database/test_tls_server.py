"""`DB_SSLMODE=verify-full` against a server with TLS of its own: Debian's `postgresql`, because the
embedded one has none. A right, an expired and a wrong certificate, by every driver.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from pydantic import SecretStr
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from common.errors import DatabaseUnreachable
from config_spark import Settings, load_settings
from database.connections.engine import checked_connection, make_engine
from tests.database.test_connection import answer_by_jdbc, by_every_driver
from tests.support.certificates import DAY, Authority, tomorrow

PROGRAMS = Path("/usr/lib/postgresql")
ACCOUNT = "nobody"


@dataclass(frozen=True)
class TlsServer:
    """Debian's server with TLS, whose certificate a test replaces."""

    programs: Path
    data: Path
    settings: Settings

    def write(self, certificate: bytes, key: bytes) -> None:
        """Write the files of the server's certificate."""
        for name, content in (("server.crt", certificate), ("server.key", key)):
            path = self.data / name
            path.write_bytes(content)
            path.chmod(0o600)
            _give(path)

    def present(self, certificate: bytes, key: bytes) -> None:
        """Use another certificate for new connections."""
        self.write(certificate, key)
        run_as_account(self.programs / "pg_ctl", "-D", self.data, "reload")


def _give(path: Path) -> None:
    if os.geteuid() == 0:
        account = pwd.getpwnam(ACCOUNT)
        os.chown(path, account.pw_uid, account.pw_gid)


def run_as_account(*command: str | Path) -> None:
    """Run a program of the server, as another account if this one is root."""
    account = ACCOUNT if os.geteuid() == 0 else None
    done = subprocess.run(
        [str(part) for part in command],
        user=account,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def tls_server(processes: None, server_programs: Path) -> Iterator[TlsServer]:
    versions = sorted(PROGRAMS.glob("*/bin"), key=lambda folder: int(folder.parent.name))
    if not versions:
        pytest.skip("Debian's `postgresql` is not installed")
    folder = Path(tempfile.mkdtemp(prefix="ys_tls_", dir="/tmp"))
    _give(folder)
    data, password = folder / "data", secrets.token_hex(8)
    pwfile = folder / "password"
    pwfile.write_text(password)
    _give(pwfile)
    run_as_account(
        versions[-1] / "initdb",
        "-D",
        data,
        "-U",
        "yieldspark",
        "-A",
        "scram-sha-256",
        f"--pwfile={pwfile}",
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    settings = load_settings(
        _env_file=None,
        db_host="localhost",
        db_port=port,
        db_name="postgres",
        db_password=SecretStr(password),
        db_sslmode="verify-full",
    )
    server = TlsServer(versions[-1], data, settings)
    options = f"-p {port} -h 127.0.0.1 -k '' -c ssl=on -c fsync=off"
    server.write(*Authority.new("first").server_files("localhost", valid_until=tomorrow()))
    log = folder / "log"
    run_as_account(server.programs / "pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")
    try:
        yield server
    finally:
        run_as_account(server.programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


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
