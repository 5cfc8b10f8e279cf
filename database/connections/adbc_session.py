"""A connection of ADBC in a task of Spark's, on the server and database that the driver process is
on. A task loads this module: it imports neither SQLAlchemy nor the settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc

from database.connections.session_check import ADBC, SESSION_QUERY, TaskSession, check_session


@contextmanager
def adbc_connection(session: TaskSession) -> Iterator[adbc.Connection]:
    """A connection in a new transaction.

    Raises: DatabaseRefused where it is another place or another session; as
    `connection_errors.login_error`.
    """
    try:
        connection = adbc.connect(session.conninfo)
    except adbc_driver_manager.Error as error:
        from database.connections.errors import login_error

        raise login_error(error, session) from error
    with connection:
        with connection.cursor() as cursor:
            cursor.execute(SESSION_QUERY)
            check_session(cursor.fetchone(), session, ADBC, session.place)
        # a snapshot can be taken over before the first query of a transaction alone
        connection.commit()
        yield connection
