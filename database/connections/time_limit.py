"""Time limit for SQL that produces warnings only, which must neither delay a run nor fail it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from common.errors import CheckUnfinished

WARN_SECONDS = 120.0
"""Limit of a statement in a run, which may hold locks."""

_CANCELED = "57014"
"""query_canceled: by statement_timeout, or by an administrator."""


@contextmanager
def statement_time_limit(connection: Connection, seconds: float) -> Iterator[None]:
    """Limit each statement of the block, including its waits for locks.

    After a timeout, the changes of the block are rolled back and the transaction continues.

    Args:
        connection: a connection inside a transaction.
        seconds: the limit of a statement.

    Raises:
        CheckUnfinished: a statement took longer.
    """
    setting = "SET LOCAL statement_timeout = '{}'"
    before = connection.exec_driver_sql("SHOW statement_timeout").scalar_one()
    try:
        # a savepoint: after a timeout the transaction continues
        with connection.begin_nested():
            connection.exec_driver_sql(setting.format(f"{seconds * 1000:.0f}ms"))
            yield
            # SET LOCAL would last until the end of the transaction
            connection.exec_driver_sql(setting.format(before))
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != _CANCELED:
            raise
        raise CheckUnfinished(
            f"not finished after {seconds:g} s, the limit of a check that only warns. The database"
            " is busy, or another session has locked the tables: see pg_stat_activity"
        ) from error
