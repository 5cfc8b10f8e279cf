"""The connections of psycopg2 that this process has, so that Ctrl-C can cancel the statement that
one of them waits for: libpq waits in C, where no signal handler of Python's runs.

Those of every SQLAlchemy engine are here, MLflow's included. Connections of Spark's tasks (ADBC,
JDBC) are not: they end with Spark's jobs.
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
    """Ask the server to cancel what is running on the connections."""
    for connection in list(_open):
        # closed meanwhile, or its server is out of reach
        with suppress(psycopg2.Error):
            if connection.info.transaction_status == TRANSACTION_STATUS_ACTIVE:
                connection.cancel()


def _remember(connection: object, _record: object) -> None:
    if isinstance(connection, psycopg2.extensions.connection):
        _open.add(connection)


event.listen(Pool, "connect", _remember)
interrupts.on_interrupt(cancel_statements)
