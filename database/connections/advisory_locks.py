"""Advisory locks that YieldSpark takes in PostgreSQL.

A key is a pair: the hash of `yieldspark`, and the hash of a job's or a resource's name. A lock
excludes sessions of the same database only.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

RAW_TABLES_LOCK, MIGRATION_LOCK, MLFLOW_LOCK = "raw tables", "migrate", "mlflow"
"""Resources with a lock of their own. Jobs use their names."""

# the first half keeps our locks apart from those of other programs
_KEY = "(hashtext('yieldspark'), hashtext(:name))"


def lock_in_transaction(connection: Connection, name: str) -> None:
    """Wait for the lock and keep it until the transaction ends."""
    connection.execute(text(f"SELECT pg_advisory_xact_lock{_KEY}"), {"name": name})


def try_lock_in_transaction(connection: Connection, name: str) -> bool:
    """Take the lock until the transaction ends; returns False if another session has it."""
    query = text(f"SELECT pg_try_advisory_xact_lock{_KEY}")
    return bool(connection.execute(query, {"name": name}).scalar_one())


def try_lock_in_session(connection: Connection, name: str) -> bool:
    """Take the lock until `unlock_in_session` or the end of the session.

    Returns:
        False if another session has the lock.
    """
    query = text(f"SELECT pg_try_advisory_lock{_KEY}")
    return bool(connection.execute(query, {"name": name}).scalar_one())


def unlock_in_session(connection: Connection, name: str) -> None:
    """Release a lock of `try_lock_in_session`."""
    connection.execute(text(f"SELECT pg_advisory_unlock{_KEY}"), {"name": name})
