"""Open connections of psycopg2, so that Ctrl-C can cancel their statements: libpq waits in C code,
where Python's signal handlers do not run.

Includes all SQLAlchemy engines, also MLflow's. Connections of Spark tasks (ADBC, JDBC) end with
Spark's jobs.
"""

from __future__ import annotations

from contextlib import suppress
from weakref import WeakSet

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE
from sqlalchemy import event
from sqlalchemy.pool import Pool

from common import interrupts

_open: WeakSet[psycopg2.extensions.connection] = WeakSet()


def cancel_statements() -> None:
    """Ask the server to cancel the running statements of all connections."""
    for connection in list(_open):
        # the connection may be closed by now, or its server unreachable
        with suppress(psycopg2.Error):
            if connection.info.transaction_status == TRANSACTION_STATUS_ACTIVE:
                connection.cancel()


def _add_connection(connection: object, _record: object) -> None:
    if isinstance(connection, psycopg2.extensions.connection):
        _open.add(connection)


event.listen(Pool, "connect", _add_connection)
interrupts.on_interrupt(cancel_statements)
