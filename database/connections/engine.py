"""Connections to PostgreSQL for driver-side SQL: one SQLAlchemy engine, each of whose sessions is
check_session against the description of the connection.

Goes in: `Settings`. Comes out: an engine, the `CheckedSession` that other drivers compare theirs with, or
an error of `common.errors` that says what to do. No SQL of a job stands here.
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

import database.connections.open_connections  # noqa: F401 - importing it has Ctrl-C cancel statements
from common.interrupts import run_interruptible
from config_spark import Settings
from database.connections.errors import login_error, statement_error, to_product_error
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
"""For the first query of a connection, which asks where it is."""

METRICS_OPTION = "metrics_table"
"""The execution option of an engine that has METRICS_TABLE."""


@dataclass(frozen=True)
class CheckedSession:
    """A description whose server has answered, and where it leads. The parameters have those of
    NEWER_PARAMETERS that the server can have.
    """

    parameters: ConnectionParameters
    place: ServerIdentity

    @property
    def for_tasks(self) -> TaskSession:
        """What a task of Spark's connects with."""
        described = self.parameters
        return TaskSession(
            described.conninfo, described.where, described.user, described.session, self.place
        )


def make_engine(settings: Settings) -> Engine:
    """An engine without a pool: a nightly job holds one or two connections, and none may outlive
    it. Connecting raises as `connect`.
    """
    engine = make_engine_for(connection_parameters(settings))
    return engine.execution_options(**{METRICS_OPTION: settings.metrics_table})


def make_engine_for(parameters: ConnectionParameters) -> Engine:
    """As `make_engine`, for any database."""
    return create_engine(
        parameters.sqlalchemy_url(), poolclass=NullPool, creator=partial(connect, parameters)
    )


def connect(parameters: ConnectionParameters) -> psycopg2.extensions.connection:
    """A connection of psycopg2 whose session is the one that was described.

    Raises: DatabaseUnreachable (transient), DatabaseRefused (login, rights, or a session that a
    pooler has changed; terminal), DatabaseError (the rest).
    """
    return run_interruptible(lambda: _connected(parameters), _close)[0]


def probe_session(settings: Settings) -> CheckedSession:
    """Where the settings' database is, for connections of other drivers. Raises: as `connect`."""
    parameters = connection_parameters(settings)
    connection, place = run_interruptible(lambda: _connected(parameters), _close)
    connection.close()
    newer = {name: NEWER_PARAMETERS[name] for name in place.newer}
    return CheckedSession(replace(parameters, session={**parameters.session, **newer}), place)


def _close(connected: tuple[psycopg2.extensions.connection, ServerIdentity]) -> None:
    connected[0].close()


def _connected(
    parameters: ConnectionParameters,
) -> tuple[psycopg2.extensions.connection, ServerIdentity]:
    try:
        connection = psycopg2.connect(**parameters.libpq_keywords())
    except (psycopg2.OperationalError, UnicodeDecodeError) as error:
        # before a login the server writes in its own encoding, which psycopg2 takes for UTF-8
        raise login_error(error, parameters) from error
    try:
        connection.autocommit = True
        with _answering(connection), closing(connection.cursor()) as cursor:
            cursor.execute(SESSION_QUERY)
            place = check_session(cursor.fetchone(), parameters, PSYCOPG2)
        connection.autocommit = False
    except psycopg2.Error as error:
        connection.close()
        raise statement_error(error, parameters.where, parameters.user) from error
    except BaseException:
        connection.close()
        raise
    return connection, place


@contextmanager
def _answering(connection: psycopg2.extensions.connection) -> Iterator[None]:
    """End what waits for the server inside the block after ANSWER_SECONDS: libpq itself waits
    without a limit, where a pooler takes a login and has no connection left to a server.
    """
    has_waited = threading.Event()

    def shut_down() -> None:
        has_waited.set()
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(ANSWER_SECONDS, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    except psycopg2.OperationalError as error:
        if has_waited.is_set():
            raise psycopg2.OperationalError(
                f"it took the login and answered no query for {ANSWER_SECONDS:.0f} s"
            ) from error
        raise
    finally:
        timer.cancel()


@contextmanager
def checked_connection(engine: Engine) -> Iterator[Connection]:
    """One transaction; a driver's error leaves it as an error of `common.errors`.

    Raises: as `connect`, and SchemaMismatch (terminal).
    """
    with translate_errors(engine.url), engine.begin() as connection:
        yield connection


@contextmanager
def translate_errors(url: URL) -> Iterator[None]:
    """Turn what psycopg2 raises inside into the error tree of the product."""
    try:
        yield
    except DBAPIError as error:
        raise to_product_error(error, url) from error
