"""Connections of ADBC in a Spark task, to the server and database of the driver process.

Every task imports this module: it imports neither SQLAlchemy nor the settings.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from weakref import WeakSet

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc

from database.connections.session_check import ADBC, SESSION_QUERY, TaskSession, check_session

CANCEL_EVERY_SECONDS = 0.1

_open: WeakSet[adbc.Connection] = WeakSet()


def cancel_until_ended(threads: Sequence[threading.Thread], seconds: float) -> None:
    """Cancel the statements of this process's connections until the threads that use them have
    ended.

    Args:
        threads: they may begin another statement after a cancellation.
        seconds: limit of the wait.
    """
    deadline = time.monotonic() + seconds
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        for connection in list(_open):
            # the connection may be closed by now, or its server unreachable
            with suppress(adbc_driver_manager.Error):
                connection.adbc_cancel()
        for thread in threads:
            thread.join(CANCEL_EVERY_SECONDS / len(threads))


@contextmanager
def adbc_connection(session: TaskSession) -> Iterator[adbc.Connection]:
    """Open a connection with a new transaction.

    Args:
        session: the driver's session that the task must match.

    Raises:
        DatabaseRefused: the session is on another server or database, or has other parameters.
        DatabaseError: the login fails, as in `errors.login_error`, or the server refuses a
            statement of the block.
    """
    try:
        connection = adbc.connect(session.conninfo)
    except adbc_driver_manager.Error as error:
        from database.connections.errors import login_error

        raise login_error(error, session) from error
    with connection:
        with connection.cursor() as cursor:
            cursor.execute(SESSION_QUERY)
            check_session(cursor.fetchone(), session, ADBC, session.server)
        # a snapshot can be imported only before the first query of a transaction
        connection.commit()
        _open.add(connection)
        try:
            yield connection
        except adbc_driver_manager.Error as error:
            from database.connections.errors import task_error

            raise task_error(error, session) from error
        finally:
            _open.discard(connection)
