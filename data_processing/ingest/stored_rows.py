"""The error for rows that a table of the owner's does not have after they were written to it."""

from __future__ import annotations

from sqlalchemy import Table

from common.errors import CheckFailed
from database.schema.merge_sql import qualified


def rows_not_taken(table: Table, count: int, source: str, again: str) -> CheckFailed:
    """Args: source is what the rows are of, again is the command that brings them again."""
    return CheckFailed(
        f"{qualified(table)} did not take {count:,} rows of {source}; nothing of it was stored. A"
        f" trigger of the table drops or changes rows: let it pass YieldSpark's, then {again}"
    )
