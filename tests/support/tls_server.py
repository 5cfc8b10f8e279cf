"""Debian's `postgresql` as a server with TLS, which the embedded one has not."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from config_spark import Settings, load_settings
from tests.support.certificates import Authority, tomorrow

PROGRAMS = Path("/usr/lib/postgresql")
ACCOUNT = "nobody"


@dataclass(frozen=True)
class TlsServer:
    """Debian's server with TLS, whose certificate a test replaces."""

    programs: Path
    data: Path
    settings: Settings
    log: Path

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


@contextmanager
def served_with_tls() -> Iterator[TlsServer]:
    """Run a server; the test is skipped where its programs are not installed."""
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
    log = folder / "log"
    server = TlsServer(versions[-1], data, settings, log)
    options = f"-p {port} -h 127.0.0.1 -k '' -c ssl=on -c fsync=off"
    server.write(*Authority.new("first").server_files("localhost", valid_until=tomorrow()))
    run_as_account(server.programs / "pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")
    try:
        yield server
    finally:
        run_as_account(server.programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)
