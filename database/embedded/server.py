"""The PostgreSQL server of the local mode: made, started, found again, stopped and deleted, out of
the programs a wheel brings.

Goes in: a home folder. Comes out: a `ServerAddress` on 127.0.0.1 with a random password. Every
caller with the same home gets the same server, whichever process started it; it goes on when that
process ends. Committed rows survive kill -9. It takes libpq's variables out of
the environment, reads none and makes no tables.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn
from pydantic import SecretStr

from common import libpq_variables
from common.errors import (
    DatabaseError,
    DatabaseUnreachable,
    EnvironmentNotReady,
    describe_file_error,
)
from common.files import take_lock
from common.private_files import write_private
from database.connections.errors import driver_message, error_for_sqlstate
from database.connections.login_probe import probe_login
from database.embedded import process as server_process
from database.embedded.folders import ServerFolders, locate_folders, wheel_binaries
from database.embedded.state import password_file_error, read_password, read_port

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
ROLE = "yieldspark"
DATABASE = "yieldspark"
LOCK_SECONDS = 120.0
WRONG_PASSWORD, STARTING = "28P01", "57P03"
"""SQLSTATEs (PostgreSQL manual, appendix A)."""

_NO_LOGIN = (psycopg2.OperationalError, UnicodeDecodeError)
"""A refusal may be another program's, in LATIN1."""

START_ATTEMPTS = 20
RETRY_SECONDS = 0.5
NEEDED_BYTES = 200 * 1024 * 1024
"""A new data folder takes 40 MB and its first checkpoints as much again; PostgreSQL stops when it
cannot write its log.
"""
PORTS = range(20_000, 30_000)
"""Below the range Linux gives to outgoing connections (from 32768), so that a kept port is rarely
taken by one.
"""


@dataclass(frozen=True)
class ServerAddress:
    """What a client needs; the password's repr is hidden."""

    host: str
    port: int
    user: str
    database: str
    password: SecretStr


class EmbeddedServer:
    """The server of one home folder. Making the object touches nothing."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def start(self) -> ServerAddress:
        """Find the running server, or make it and start it; either way its database exists when
        this returns.

        Raises: EnvironmentNotReady (no wheel, disk full, a folder without rights, damaged data or
        those of another major version), DatabaseRefused (the password file is gone or holds another
        password), DatabaseUnreachable (it would not start; the message has the end of its log).
        """
        with self._exclusive() as folders:
            address = self._running(folders)
            if address is None:
                self._initialise(folders)
                address = self._launch(folders)
            _ensure_database(address, folders)
            return address

    def stop(self) -> bool:
        """Stop it, ending open connections; returns whether one was running."""
        if not self._exists:
            return False
        with self._exclusive() as folders:
            return server_process.stop(folders)

    def reset(self) -> None:
        """Stop it and delete its data, password and port; the next start makes a new one."""
        if not self._exists:
            return
        with self._exclusive() as folders:
            server_process.stop(folders)
            shutil.rmtree(folders.cluster)
            for name in ("password", "port", "cluster_folder"):
                (folders.state / name).unlink(missing_ok=True)

    def status(self) -> dict[str, Any]:
        """`{running, host, port, data_folder, log_file, server_version}`; what is not there is
        None. Never the password.
        """
        if not self._exists:
            return {
                "running": False,
                "host": HOST,
                "port": None,
                "data_folder": None,
                "log_file": None,
                "server_version": None,
            }
        with self._exclusive() as folders:
            address = self._running(folders)
            return {
                "running": address is not None,
                "host": HOST,
                "port": address.port if address else None,
                "data_folder": str(folders.data),
                "log_file": str(folders.log),
                "server_version": _server_version(address) if address else None,
            }

    @property
    def psql(self) -> Path | None:
        """The wheel's psql, as the caller can run it."""
        program = wheel_binaries() / "psql"
        return program if program.exists() else None

    @property
    def _exists(self) -> bool:
        return (self.home.expanduser() / "server").is_dir()

    @contextmanager
    def _exclusive(self) -> Iterator[ServerFolders]:
        try:
            descriptor = _take_lock(locate_folders(self.home).state / "lock")
            try:
                # again, because a reset that had the lock before has removed the data folder
                yield locate_folders(self.home)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise EnvironmentNotReady(
                f"the embedded server cannot use {error.filename or self.home}:"
                f" {describe_file_error(error)}, or set YIELDSPARK_HOME"
            ) from error

    def _running(self, folders: ServerFolders) -> ServerAddress | None:
        """Raises: as `_refusal`, where this home's server runs and lets nobody in."""
        port = server_process.recorded_port(folders.data)
        if port is None or not (folders.state / "password").exists():
            return None
        address = _address(port, folders)
        try:
            # this home's server or another program: only ours accepts this password
            _connect(address, "postgres").close()
        except _NO_LOGIN as error:
            if server_process.runs(folders):
                raise _refusal(error, address, folders) from error
            return None
        return address

    def _initialise(self, folders: ServerFolders) -> None:
        password = folders.state / "password"
        if folders.data.exists():
            server_process.check_major_version(folders)
            read_password(password, folders.data)
            return
        free = shutil.disk_usage(folders.cluster).free
        if free < NEEDED_BYTES:
            raise EnvironmentNotReady(
                f"the disk of {folders.cluster} is full: {free // 2**20} MiB free,"
                f" {NEEDED_BYTES // 2**20} MiB needed; free some, or set YIELDSPARK_HOME"
            )
        if not password.exists():
            write_private(password, secrets.token_urlsafe(24))
        secret = read_password(password, folders.data).get_secret_value()
        server_process.initialise(folders, ROLE, secret)

    def _launch(self, folders: ServerFolders) -> ServerAddress:
        """Start with bounded retries: after kill -9 the old server's children live on a moment and
        hold the data folder.
        """
        complaint = ""
        for _ in range(START_ATTEMPTS):
            port = _usable_port(folders.state / "port")
            complaint = server_process.launch(folders, HOST, port)
            if not complaint:
                write_private(folders.state / "port", str(port))
                return _address(port, folders)
            server_process.raise_when_disk_full(complaint, folders)
            if not server_process.is_transient(complaint):
                break
            server_process.drop_foreign_pid_file(folders.data)
            time.sleep(RETRY_SECONDS)
        raise DatabaseUnreachable(
            f"the embedded server does not start from {folders.data}: {complaint}. Repair that or"
            f" end that program ({folders.log} has more), or delete the data: `db reset`"
        )


def _take_lock(file: Path) -> int:
    try:
        return take_lock(file, seconds=LOCK_SECONDS, create=True)
    except TimeoutError:
        raise DatabaseUnreachable(
            f"another process has locked {file} for {LOCK_SECONDS:.0f} s while starting the"
            " embedded server; end that process, then run again"
        ) from None


def _usable_port(kept: Path) -> int:
    """The kept port, or another where it is taken: a port is not worth failing for, everyone asks
    for the address anyway.
    """
    port = read_port(kept)
    if port is not None and _is_free(port):
        return port
    for _ in range(200):
        candidate = secrets.choice(PORTS)
        if _is_free(candidate):
            if port is not None:
                log.warning(
                    "port %d of the embedded server is taken by another program; it listens on %d"
                    " from now on",
                    port,
                    candidate,
                )
            return candidate
    raise EnvironmentNotReady(
        f"no free TCP port on {HOST} between {PORTS.start} and {PORTS.stop - 1}; end a program that"
        " holds them, or set DB_HOST"
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as PostgreSQL does: a closed connection's port is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _address(port: int, folders: ServerFolders) -> ServerAddress:
    password = read_password(folders.state / "password", folders.data)
    return ServerAddress(HOST, port, ROLE, DATABASE, password)


def _connect(address: ServerAddress, database: str) -> psycopg2.extensions.connection:
    """libpq's variables are about servers of the user's own: they leave this process, so that none
    leads a later connection of it, or of Spark's tasks, elsewhere.
    """
    libpq_variables.remove(os.environ)
    connection = psycopg2.connect(_conninfo(address, database))
    connection.autocommit = True
    return connection


def _conninfo(address: ServerAddress, database: str) -> str:
    conninfo: str = make_dsn(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password.get_secret_value(),
        dbname=database,
        sslmode="disable",
        gssencmode="disable",
        # a stranger that listens on the port of a stopped server would ask for the password itself
        require_auth="scram-sha-256",
        connect_timeout=5,
        options="-c statement_timeout=60s",
        client_encoding="UTF8",
    )
    return conninfo


def _refusal(error: Exception, address: ServerAddress, folders: ServerFolders) -> DatabaseError:
    """The product's error for a server of this home that runs and lets nobody in: the password file
    is another one's (DatabaseRefused), connections are short (DatabaseError), or it does not answer
    (DatabaseUnreachable).
    """
    code, cause = probe_login(_conninfo(address, "postgres")).sqlstate, driver_message(error)
    if code == WRONG_PASSWORD:
        password = folders.state / "password"
        return password_file_error(password, folders.data, "holds another password")
    if code in (None, STARTING):
        return DatabaseUnreachable(
            f"the embedded server on port {address.port} does not answer: {cause}; run again, or"
            f" look into {folders.log}"
        )
    return error_for_sqlstate(code, cause, f"{address.host}:{address.port}", address.user)


def _ensure_database(address: ServerAddress, folders: ServerFolders) -> None:
    try:
        connection = _connect(address, "postgres")
    except _NO_LOGIN as error:
        raise _refusal(error, address, folders) from error
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (address.database,))
            if cursor.fetchone() is None:
                cursor.execute(f'CREATE DATABASE "{address.database}"')
    finally:
        connection.close()


def _server_version(address: ServerAddress) -> str:
    connection = _connect(address, "postgres")
    try:
        return str(connection.info.parameter_status("server_version"))
    finally:
        connection.close()
