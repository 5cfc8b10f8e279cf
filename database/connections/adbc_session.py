"""Connections of ADBC, in a Spark task or in a run without a JVM, to the server and database of the
driver process. Ctrl-C cancels their statements.

Every task imports this module: it imports neither SQLAlchemy nor the settings. ADBC's DB-API module
is not used, because it imports pyarrow.dataset and with it pandas, half a second in each process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from weakref import WeakSet

import adbc_driver_manager
import adbc_driver_postgresql
import pyarrow as pa
from adbc_driver_manager import StatementOptions

from common import interrupts
from database.connections.session_check import ADBC, SESSION_QUERY, TaskSession, check_session

CANCEL_EVERY_SECONDS = 0.1


class AdbcConnection:
    """A connection with an open transaction; closing it rolls the transaction back."""

    def __init__(self, conninfo: str) -> None:
        self._database = adbc_driver_postgresql.connect(conninfo)
        try:
            self._connection = adbc_driver_manager.AdbcConnection(self._database)
        except BaseException:
            self._database.close()
            raise
        self._connection.set_autocommit(False)

    def execute(self, statement: str) -> None:
        """Execute a statement and discard its rows."""
        with adbc_driver_manager.AdbcStatement(self._connection) as prepared:
            prepared.set_sql_query(statement)
            prepared.execute_update()

    def read(self, select: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a SELECT while the server sends them."""
        with adbc_driver_manager.AdbcStatement(self._connection) as prepared:
            prepared.set_sql_query(select)
            stream, _ = prepared.execute_query()
            with pa.RecordBatchReader.from_stream(stream) as reader:
                yield from reader

    def first_row(self, select: str) -> list[str | None]:
        """Return the first row of a SELECT."""
        batch = next(self.read(select))
        return [column[0].as_py() for column in batch.columns]

    def append(self, schema: str, table: str, rows: pa.RecordBatchReader) -> None:
        """Append rows to a table by COPY, columns by name."""
        with adbc_driver_manager.AdbcStatement(self._connection) as prepared:
            prepared.set_options(
                **{
                    StatementOptions.INGEST_TARGET_TABLE.value: table,
                    StatementOptions.INGEST_TARGET_DB_SCHEMA.value: schema,
                    StatementOptions.INGEST_MODE.value: "adbc.ingest.mode.append",
                }
            )
            prepared.bind_stream(rows)
            prepared.execute_update()

    def commit(self) -> None:
        """Commit; the next statement begins another transaction."""
        self._connection.commit()

    def cancel(self) -> None:
        """Cancel the running statement, from another thread."""
        self._connection.cancel()

    def close(self) -> None:
        """Roll back and close."""
        try:
            self._connection.close()
        finally:
            self._database.close()


_open: WeakSet[AdbcConnection] = WeakSet()


def cancel_statements() -> None:
    """Cancel the running statements of this process's connections."""
    for connection in list(_open):
        # the connection may be closed by now, or its server unreachable
        with suppress(adbc_driver_manager.Error):
            connection.cancel()


# the main thread waits inside the driver, where Python's signal handlers do not run
interrupts.on_interrupt(cancel_statements)


def cancel_until_ended(threads: Sequence[threading.Thread], seconds: float) -> None:
    """Cancel the statements of this process's connections until the threads that use them have
    ended.

    Args:
        threads: they may begin another statement after a cancellation.
        seconds: limit of the wait.
    """
    deadline = time.monotonic() + seconds
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        cancel_statements()
        for thread in threads:
            thread.join(CANCEL_EVERY_SECONDS / len(threads))


@contextmanager
def adbc_connection(session: TaskSession) -> Iterator[AdbcConnection]:
    """Open a connection with a new transaction.

    Args:
        session: the driver's session that the task must match.

    Raises:
        DatabaseRefused: the session is on another server or database, or has other parameters.
        DatabaseError: the login fails, as in `errors.login_error`, or the server refuses a
            statement of the block.
    """
    try:
        connection = AdbcConnection(session.conninfo)
    except adbc_driver_manager.Error as error:
        from database.connections.errors import login_error

        raise login_error(error, session) from error
    with closing(connection):
        check_session(connection.first_row(SESSION_QUERY), session, ADBC, session.server)
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
