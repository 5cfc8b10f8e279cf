"""SQLAlchemy engines for SQL of the driver process. Every session is compared with the description
of the connection.

Driver errors leave as errors of `common.errors`.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import psycopg2
from sqlalchemy import URL, Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

import database.connections.open_connections  # noqa: F401 - registers statements for Ctrl-C
from common.errors import DatabaseUnreachable
from common.interrupts import run_interruptible
from config_spark import Settings
from database.connections.errors import login_error, statement_error, to_product_error
from database.connections.limits import LIMIT_OF_CODE, SINCE_VERSION, disabled_limits
from database.connections.parameters import ConnectionParameters, connection_parameters
from database.connections.session_check import (
    NEWER_PARAMETERS,
    PSYCOPG2,
    SESSION_QUERY,
    ServerIdentity,
    TaskSession,
    check_session,
)

ANSWER_SECONDS = 60.0
"""Time limit for the first query of a connection."""

METRICS_OPTION = "metrics_table"
"""Execution option of an engine with the name of the metrics table."""


_newer_parameters: dict[tuple[str, int], tuple[str, ...]] = {}
"""NEWER_PARAMETERS that a server supports, by host and port, after a connection of this process."""


@dataclass(frozen=True)
class CheckedSession:
    """A connection whose server has answered.

    Attributes:
        parameters: the description, with those of NEWER_PARAMETERS that the server supports.
        server: identity of the server, for comparison with the sessions of other drivers.
    """

    parameters: ConnectionParameters
    server: ServerIdentity

    @property
    def for_tasks(self) -> TaskSession:
        """The part of the description that a Spark task needs."""
        described = self.parameters
        return TaskSession(
            described.without_password.conninfo if described.tokens else described.conninfo,
            described.where,
            described.user,
            described.session,
            self.server,
            described.tokens,
        )


def make_engine(settings: Settings) -> Engine:
    """Create an engine for the settings' database.

    It has no pool: a job uses one or two connections, and none may outlive it. Connecting raises
    the errors of `connect`.
    """
    engine = make_engine_for(connection_parameters(settings))
    return engine.execution_options(**{METRICS_OPTION: settings.metrics_table})


def make_engine_for(parameters: ConnectionParameters) -> Engine:
    """Create an engine for any database; as `make_engine`."""
    return create_engine(
        # its creator asks for a token of each login by IAM
        (parameters.without_password if parameters.tokens else parameters).sqlalchemy_url(),
        poolclass=NullPool,
        creator=partial(connect, parameters),
    )


def connect(parameters: ConnectionParameters) -> psycopg2.extensions.connection:
    """Open a connection and check its session.

    Raises:
        DatabaseUnreachable: the server does not answer (transient).
        DatabaseRefused: login, rights, or session parameters that a pooler has changed (terminal).
        DatabaseError: any other error of the server.
    """
    return run_interruptible(lambda: _connect(parameters), _close)[0]


def probe_session(settings: Settings) -> CheckedSession:
    """Connect once and return a description for connections of other drivers.

    Raises:
        DatabaseError: as `connect`.
    """
    parameters = connection_parameters(settings)
    connection, server = run_interruptible(lambda: _connect(parameters), _close)
    connection.close()
    newer = {name: NEWER_PARAMETERS[name] for name in server.newer}
    return CheckedSession(replace(parameters, session={**parameters.session, **newer}), server)


def supported_limits(parameters: ConnectionParameters) -> dict[str, str]:
    """Return the limits that a server is known to support, set to 0, for sessions of programs that
    do not run SESSION_QUERY.
    """
    newer = _newer_parameters.get((parameters.host, parameters.port), ())
    return {name: NEWER_PARAMETERS[name] for name in SINCE_VERSION if name in newer}


def _close(result: tuple[psycopg2.extensions.connection, ServerIdentity]) -> None:
    result[0].close()


def _connect(
    parameters: ConnectionParameters,
) -> tuple[psycopg2.extensions.connection, ServerIdentity]:
    connection, limits = _log_in(parameters)
    try:
        return connection, _check(connection, parameters)
    except DatabaseUnreachable as error:
        # a limit of the role may have ended the session; then it is set at the next start
        if isinstance(error.__cause__, _NoAnswer) or limits.keys() <= parameters.session.keys():
            raise
    parameters = replace(parameters, session={**parameters.session, **limits})
    connection, _ = _log_in(parameters)
    return connection, _check(connection, parameters)


def _log_in(
    parameters: ConnectionParameters,
) -> tuple[psycopg2.extensions.connection, dict[str, str]]:
    """Return a connection, and the limits that its server has, set to 0."""
    try:
        connection = psycopg2.connect(**parameters.libpq_keywords())
    except (psycopg2.OperationalError, UnicodeDecodeError) as error:
        # before the login the server uses its own encoding, which psycopg2 decodes as UTF-8
        refusal = login_error(error, parameters)
        limit = LIMIT_OF_CODE.get(refusal.sqlstate or "")
        if limit is None or limit in parameters.session:
            raise refusal from error
        return _log_in(replace(parameters, session={**parameters.session, limit: "0"}))
    return connection, disabled_limits(connection.info.server_version)


def _check(
    connection: psycopg2.extensions.connection, parameters: ConnectionParameters
) -> ServerIdentity:
    try:
        # the query sets parameters, which a rollback would undo
        connection.autocommit = True
        with _answer_limit(connection), closing(connection.cursor()) as cursor:
            cursor.execute(SESSION_QUERY)
            server = check_session(cursor.fetchone(), parameters, PSYCOPG2)
        _newer_parameters[parameters.host, parameters.port] = server.newer
        connection.autocommit = False
    except psycopg2.Error as error:
        connection.close()
        raise statement_error(error, parameters.where, parameters.user) from error
    # also after Ctrl-C: no session may stay behind
    except BaseException:
        connection.close()
        raise
    return server


class _NoAnswer(psycopg2.OperationalError):  # type: ignore[misc]
    """The first query of a connection got no answer within ANSWER_SECONDS."""


@contextmanager
def _answer_limit(connection: psycopg2.extensions.connection) -> Iterator[None]:
    """End the connection if the server does not answer inside the block within ANSWER_SECONDS."""
    # libpq waits without a limit if a pooler accepts a login and has no server connection left
    is_expired = threading.Event()

    def shut_down() -> None:
        is_expired.set()
        # a duplicate: closing it must not close libpq's own descriptor
        with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(ANSWER_SECONDS, shut_down)
    # it must not delay the end of the process
    timer.daemon = True
    timer.start()
    try:
        yield
    except psycopg2.OperationalError as error:
        if is_expired.is_set():
            raise _NoAnswer(
                f"it accepted the login and answered no query for {ANSWER_SECONDS:.0f} s"
            ) from error
        raise
    finally:
        timer.cancel()


@contextmanager
def checked_connection(engine: Engine) -> Iterator[Connection]:
    """Run one transaction and translate the driver's errors.

    Raises:
        DatabaseError: as `connect`.
        SchemaMismatch: a table, column or type does not exist (terminal).
    """
    with translate_errors(engine.url), engine.begin() as connection:
        yield connection


@contextmanager
def translate_errors(url: URL) -> Iterator[None]:
    """Translate errors of psycopg2 inside the block to errors of `common.errors`."""
    try:
        yield
    except DBAPIError as error:
        raise to_product_error(error, url) from error
