"""Defines the error for rows that an owner's table lacks after they were written to it."""

from __future__ import annotations

from sqlalchemy import Table

from common.errors import CheckFailed
from database.schema.merge_sql import qualified


def missing_rows_error(table: Table, count: int, source: str, again: str) -> CheckFailed:
    """Return the error for missing rows.

    Args:
        table: table of the owner.
        count: number of missing rows.
        source: names the origin of the rows.
        again: command that writes the rows again.
    """
    return CheckFailed(
        f"{qualified(table)} did not take {count:,} rows of {source}; nothing of it was stored. A"
        f" trigger of the table drops or changes rows: let it pass YieldSpark's, then {again}"
    )
