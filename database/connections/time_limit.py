"""A time limit for SQL whose outcome is no more than a warning: it must not hold up a run, nor fail
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from common.errors import CheckUnfinished

WARN_SECONDS = 120.0
"""For each statement in a run, which may hold locks meanwhile."""

_CANCELED = "57014"
"""query_canceled: by statement_timeout, or by an administrator."""


@contextmanager
def statement_time_limit(connection: Connection, seconds: float) -> Iterator[None]:
    """Each statement of the block, its waits for locks included, may take so long. What the block
    did is undone where one takes longer; the transaction goes on.

    Raises: CheckUnfinished.
    """
    setting = "SET LOCAL statement_timeout = '{}'"
    before = connection.exec_driver_sql("SHOW statement_timeout").scalar_one()
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(setting.format(f"{seconds * 1000:.0f}ms"))
            yield
            connection.exec_driver_sql(setting.format(before))
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != _CANCELED:
            raise
        raise CheckUnfinished(
            f"not finished after {seconds:g} s, the limit of a check that only warns. The database"
            " is busy, or another session holds a lock on the tables: look at pg_stat_activity"
        ) from error
