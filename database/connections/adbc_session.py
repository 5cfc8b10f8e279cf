"""Connections of ADBC in a Spark task, to the server and database of the driver process.

Every task imports this module: it imports neither SQLAlchemy nor the settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc

from database.connections.session_check import ADBC, SESSION_QUERY, TaskSession, check_session


@contextmanager
def adbc_connection(session: TaskSession) -> Iterator[adbc.Connection]:
    """Open a connection with a new transaction.

    Args:
        session: the driver's session that the task must match.

    Raises:
        DatabaseRefused: the session is on another server or database, or has other parameters.
        DatabaseError: the login fails, as in `errors.login_error`.
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
        yield connection
