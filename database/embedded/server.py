"""The embedded PostgreSQL server of a YieldSpark home: create, start, find, stop and delete it.

The wheel's own `get_server()` listens on a Unix socket without a password and does not support
root. Java's driver needs TCP, TCP needs a password, and containers run as root; so this package
runs the wheel's programs itself. All processes with the same home share one server on 127.0.0.1,
which continues to run when they end.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
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
from database.connections.limits import disabled_limits
from database.connections.login_probe import probe_login
from database.embedded import process as server_process
from database.embedded.folders import ServerFolders, locate_folders, wheel_binaries
from database.embedded.state import password_file_error, read_password, read_port

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
ROLE = "yieldspark"
DATABASE = "yieldspark"
LOCK_SECONDS = 120.0
SESSION = {
    "statement_timeout": "60s",
    # the role's limits are for interactive use
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
WRONG_PASSWORD, STARTING = "28P01", "57P03"
"""SQLSTATEs (PostgreSQL manual, appendix A)."""

_LOGIN_ERRORS = (psycopg2.OperationalError, UnicodeDecodeError)
"""psycopg2 raises the second one for a message in LATIN1, as from another program on the port."""

START_ATTEMPTS = 20
RETRY_SECONDS = 0.5
NEEDED_BYTES = 200 * 1024 * 1024
"""A new data folder takes 40 MB and its first checkpoints the same; PostgreSQL stops if it cannot
write its log.
"""
PORTS = range(20_000, 30_000)
"""Below the range that Linux uses for outgoing connections (from 32768), which could occupy a
stored port.
"""


@dataclass(frozen=True)
class ServerAddress:
    """Address and login of the server; `repr` hides the password."""

    host: str
    port: int
    user: str
    database: str
    password: SecretStr


class EmbeddedServer:
    """The server of one home folder. The constructor does nothing."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def start(self) -> ServerAddress:
        """Return the address of the running server; create and start it if necessary.

        Returns:
            An address whose database exists.

        Raises:
            EnvironmentNotReady: no wheel, a full disk, missing rights, or data that are damaged or
                of another major version.
            DatabaseRefused: the password file is missing or wrong.
            DatabaseUnreachable: the server does not start; the message has the end of its log.
        """
        with self._exclusive() as folders:
            address = self._running(folders)
            if address is None:
                self._initialise(folders)
                address = self._launch(folders)
            # an interrupted first start leaves a server without the database
            _ensure_database(address, folders)
            return address

    def stop(self) -> bool:
        """Stop the server and end its connections; returns whether it was running."""
        if not self._exists:
            return False
        with self._exclusive() as folders:
            return server_process.stop(folders)

    def reset(self) -> None:
        """Stop the server and delete its data, password and port; the next
        start creates new ones.
        """
        if not self._exists:
            return
        with self._exclusive() as folders:
            server_process.stop(folders)
            # the data first: a password without data does no harm
            shutil.rmtree(folders.cluster)
            for name in ("password", "port", "cluster_folder"):
                (folders.state / name).unlink(missing_ok=True)

    def status(self) -> dict[str, Any]:
        """Return `{running, host, port, data_folder, log_file, server_version}`, None for an
        unknown value. It has no password.
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
        """The wheel's psql, None if the wheel has none."""
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
        """Return the address if the server runs; raises as `_refusal` if it rejects the login."""
        port = server_process.recorded_port(folders.data)
        if port is None or not (folders.state / "password").exists():
            return None
        address = _address(port, folders)
        try:
            # another program may listen on the port: only our server accepts this password
            _connect(address, "postgres").close()
        except _LOGIN_ERRORS as error:
            if server_process.is_running(folders):
                raise _refusal(error, address, folders) from error
            return None
        return address

    def _initialise(self, folders: ServerFolders) -> None:
        password = folders.state / "password"
        if folders.data.exists():
            server_process.check_major_version(folders)
            # data can't be used without their password: an error and no new password
            read_password(password, folders.data)
            return
        free = shutil.disk_usage(folders.cluster).free
        if free < NEEDED_BYTES:
            raise EnvironmentNotReady(
                f"the disk of {folders.cluster} is full: {free // 2**20} MiB free,"
                f" {NEEDED_BYTES // 2**20} MiB needed; free some, or set YIELDSPARK_HOME"
            )
        # an interrupted initdb leaves one, which is as good as a new one
        if not password.exists():
            write_private(password, secrets.token_urlsafe(24))
        secret = read_password(password, folders.data).get_secret_value()
        server_process.initialise(folders, ROLE, secret)

    def _launch(self, folders: ServerFolders) -> ServerAddress:
        """Start the server, with retries: the children of a killed server hold the data folder for
        a moment.
        """
        message = ""
        for _ in range(START_ATTEMPTS):
            port = _usable_port(folders.state / "port")
            message = server_process.launch(folders, HOST, port)
            if not message:
                # only now: a port that the server could not use must not be stored
                write_private(folders.state / "port", str(port))
                return _address(port, folders)
            server_process.raise_when_disk_full(message, folders)
            if not server_process.is_transient(message):
                break
            server_process.drop_foreign_pid_file(folders.data)
            time.sleep(RETRY_SECONDS)
        raise DatabaseUnreachable(
            f"the embedded server does not start from {folders.data}: {message}. Correct this or"
            f" end that program (see also {folders.log}), or delete the data: `db reset`"
        )


def _take_lock(file: Path) -> int:
    try:
        return take_lock(file, seconds=LOCK_SECONDS, create=True)
    except TimeoutError:
        raise DatabaseUnreachable(
            f"another process has locked {file} for {LOCK_SECONDS:.0f} s while starting the"
            " embedded server; end that process, then run again"
        ) from None


def _usable_port(file: Path) -> int:
    """Return the stored port, or another one if it is in use: clients always
    ask for the address.
    """
    port = read_port(file)
    if port is not None and _is_free(port):
        return port
    for _ in range(200):
        # random: homes that start together must not compete for the same port
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
        # as PostgreSQL does: the port of a closed connection is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _address(port: int, folders: ServerFolders) -> ServerAddress:
    password = read_password(folders.state / "password", folders.data)
    return ServerAddress(HOST, port, ROLE, DATABASE, password)


def _connect(
    address: ServerAddress, database: str, session: Mapping[str, str] | None = None
) -> psycopg2.extensions.connection:
    """Connect without libpq's variables, which describe the user's other servers. They are removed
    from this process, so that Spark's tasks do not inherit them either.
    """
    libpq_variables.remove(os.environ)
    connection = psycopg2.connect(_conninfo(address, database, session or {}))
    # CREATE DATABASE can't run inside a transaction
    connection.autocommit = True
    return connection


def _conninfo(address: ServerAddress, database: str, session: Mapping[str, str]) -> str:
    parameters = {**SESSION, **session}
    conninfo: str = make_dsn(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password.get_secret_value(),
        dbname=database,
        sslmode="disable",
        # libpq would try Kerberos before the password
        gssencmode="disable",
        # another program on the port of a stopped server could ask for the password in clear
        require_auth="scram-sha-256",
        connect_timeout=5,
        options=" ".join(f"-c {name}={value}" for name, value in parameters.items()),
        client_encoding="UTF8",
    )
    return conninfo


def _refusal(error: Exception, address: ServerAddress, folders: ServerFolders) -> DatabaseError:
    """Return the error for a running server of this home that rejects the login."""
    code, cause = probe_login(_conninfo(address, "postgres", {})).sqlstate, driver_message(error)
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
    except _LOGIN_ERRORS as error:
        raise _refusal(error, address, folders) from error
    limits = disabled_limits(connection.info.server_version)
    try:
        _create_database(connection, address.database)
    except psycopg2.OperationalError:
        # a limit of the role may have ended the session; then it is set at the next start
        _create_database(_connect(address, "postgres", limits), address.database)


def _create_database(connection: psycopg2.extensions.connection, name: str) -> None:
    """Create a missing database, and close the connection."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(f'CREATE DATABASE "{name}"')
    finally:
        connection.close()


def _server_version(address: ServerAddress) -> str:
    # of the login: no query that a limit could end
    connection = _connect(address, "postgres")
    try:
        return str(connection.info.parameter_status("server_version"))
    finally:
        connection.close()
