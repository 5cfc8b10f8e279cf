"""Restores the rows of one change of a table, inside the transaction of `undo`.

Rows that the run inserted are deleted. In the owner's table, a row with a value of another job
stays, without the values of the run. Values are cast from text to the types of the table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from common.errors import CheckFailed, SchemaMismatch
from database.schema.merge_sql import qualified, quoted
from database.schema.metrics_table import no_value_of_other_jobs
from database.schema.own_tables import OWN_SCHEMA, quarantine, replaced_rows, run_changes
from database.schema.owner_tables import METRIC_COLUMNS

log = logging.getLogger(__name__)

CHANGES = qualified(run_changes)
REPLACED = qualified(replaced_rows)


@dataclass(frozen=True)
class Change:
    """A row of `yieldspark.run_changes`.

    Attributes:
        id: number of the change; later changes have larger ones.
        run_id: the run that made it.
        table: qualified and quoted name of the table.
        kind: written, deleted or filled.
        key: columns of the key.
        columns: columns of the kept values.
        rows: number of changed rows.
    """

    id: int
    run_id: str
    table: str
    kind: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    rows: int

    @classmethod
    def from_row(cls, row: Row[Any]) -> Change:
        """Build a change of a row of the table."""
        return cls(
            row.id,
            row.run_id,
            row.table_name,
            row.kind,
            tuple(row.key_columns),
            tuple(row.columns),
            row.rows,
        )

    @property
    def is_of_owner(self) -> bool:
        """Whether the table is the owner's, in which other jobs write too."""
        return not self.table.startswith(f"{OWN_SCHEMA}.")


def restore(connection: Connection, change: Change) -> None:
    """Reverse a change; the later changes of the table are reversed already.

    Raises:
        SchemaMismatch: the table or a column is missing since the run.
        CheckFailed: a trigger changed the restored values.
    """
    types = column_types(connection, change)
    {"written": _restore_written, "deleted": _insert_again, "filled": _empty}[change.kind](
        connection, change, types
    )


def column_types(connection: Connection, change: Change) -> dict[str, str]:
    """Return the type of each column of a table as it is now.

    Raises:
        SchemaMismatch: the table or a column of the change is missing.
    """
    # to_regclass gives NULL for a table that is gone, where a cast would be an error
    query = text("""
        SELECT attname, format_type(atttypid, atttypmod)
        FROM pg_attribute
        WHERE attrelid = to_regclass(:table)
            AND attnum > 0
            AND NOT attisdropped
    """)
    rows = connection.execute(query, {"table": change.table}).all()
    types: dict[str, str] = {row[0]: row[1] for row in rows}
    missing = [name for name in (*change.key, *change.columns) if name not in types]
    if missing:
        raise SchemaMismatch(
            f"{change.table} has no column {', '.join(missing)} any more: the rows that"
            f" {change.run_id} replaced can't be restored"
        )
    return types


def kept_value(change: Change, types: Mapping[str, str], column: str, row: str = "r") -> str:
    """Return an SQL expression: the value of a column before the run.

    Args:
        change: the change.
        types: types of the table's columns.
        column: name of the column.
        row: alias of the kept row.
    """
    # PostgreSQL's arrays begin at 1
    number = change.columns.index(column) + 1
    return f"CAST({row}.before[{number}] AS {types[column]})"


def same_key(change: Change, types: Mapping[str, str], table: str = "t", row: str = "r") -> str:
    """Return an SQL condition: a row of the table and a kept row have the same key."""
    return " AND ".join(
        f"{table}.{quoted(name)} = CAST({row}.key[{number}] AS {types[name]})"
        for number, name in enumerate(change.key, start=1)
    )


def _restore_written(connection: Connection, change: Change, types: Mapping[str, str]) -> None:
    rows = f"r.change_id = {change.id} AND {same_key(change, types)}{_unless_decided(change)}"
    inserted, replaced = f"{rows} AND r.before IS NULL", f"{rows} AND r.before IS NOT NULL"
    is_ours = ""
    if change.is_of_owner:
        others = no_value_of_other_jobs(connection, change.table, change.key, change.columns)
        is_ours = f" AND {others}"
    connection.exec_driver_sql(
        f"DELETE FROM {change.table} AS t USING {REPLACED} AS r WHERE {inserted}{is_ours}"
    )
    if change.is_of_owner:
        # the inserted rows that are left have a value of another job
        connection.exec_driver_sql(
            f"UPDATE {change.table} AS t SET {_nulls(change)} FROM {REPLACED} AS r WHERE {inserted}"
        )
        _forget_in_later_changes(connection, change)
    values = ", ".join(
        f"{quoted(name)} = {kept_value(change, types, name)}" for name in change.columns
    )
    connection.exec_driver_sql(
        f"UPDATE {change.table} AS t SET {values} FROM {REPLACED} AS r WHERE {replaced}"
    )
    # the owner may have triggers on this table
    if change.is_of_owner:
        _require_restored(connection, change, types, replaced)


def _unless_decided(change: Change) -> str:
    """Return a condition that leaves out quarantined rows on which a person has decided since."""
    if change.table != qualified(quarantine):
        return ""
    return f"""
        AND (
            t.resolution IS NULL
            OR t.resolution NOT IN ('replayed', 'dropped')
            OR t.resolved_by_run = '{change.run_id}'
        )"""


def _nulls(change: Change) -> str:
    return ", ".join(f"{quoted(name)} = NULL" for name in change.columns)


def _forget_in_later_changes(connection: Connection, change: Change) -> None:
    """Make a later run of another job, which is not undone, the one that inserted these rows.

    It found rows without values of its own. They are deleted if it is undone as well.
    """
    connection.execute(
        text(f"""
        UPDATE {REPLACED} AS later
        SET before = NULL
        FROM {REPLACED} AS r, {CHANGES} AS c
        WHERE r.change_id = :id
            AND r.before IS NULL
            AND c.id > :id
            AND c.table_name = :table
            AND c.kind = 'written'
            AND later.change_id = c.id
            AND later.key = r.key
            AND array_remove(later.before, NULL) = '{{}}'"""),
        {"id": change.id, "table": change.table},
    )


def _require_restored(
    connection: Connection, change: Change, types: Mapping[str, str], replaced: str
) -> None:
    """Raise CheckFailed if the table has other values than those that were restored."""
    stored = ", ".join(f"t.{quoted(name)}" for name in change.columns)
    before = ", ".join(kept_value(change, types, name) for name in change.columns)
    wrong = connection.exec_driver_sql(f"""
        SELECT count(*)
        FROM {change.table} AS t, {REPLACED} AS r
        WHERE {replaced}
            AND ROW({stored}) IS DISTINCT FROM ROW({before})""").scalar_one()
    if wrong:
        raise CheckFailed(
            f"{change.table} did not take back {wrong:,} rows: a trigger of the table drops or"
            f" changes them (`\\d {change.table}` shows it). Nothing was undone"
        )


def _insert_again(connection: Connection, change: Change, types: Mapping[str, str]) -> None:
    columns = _names(change.columns)
    values = ", ".join(kept_value(change, types, name) for name in change.columns)
    # another job may have inserted a row of the same key since: its columns stay
    restored = METRIC_COLUMNS if change.is_of_owner else change.columns
    updates = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in restored)
    connection.exec_driver_sql(f"""
        INSERT INTO {change.table} ({columns})
        OVERRIDING SYSTEM VALUE
        SELECT {values}
        FROM {REPLACED} AS r
        WHERE r.change_id = {change.id}
        ON CONFLICT ({_names(change.key)}) DO UPDATE SET {updates}""")


def _names(columns: Iterable[str]) -> str:
    return ", ".join(map(quoted, columns))


def _empty(connection: Connection, change: Change, types: Mapping[str, str]) -> None:
    """Delete what the run inserted into a table that had no row."""
    if not change.is_of_owner:
        # other jobs may have inserted rows since, with a run id of their own
        is_of_run = f" WHERE run_id = '{change.run_id}'" if "run_id" in types else ""
        connection.exec_driver_sql(f"DELETE FROM {change.table}{is_of_run}")
        return
    others = no_value_of_other_jobs(connection, change.table, change.key, change.columns)
    connection.exec_driver_sql(f"DELETE FROM {change.table} AS t WHERE {others}")
    # the rows that are left have a value of another job; rows that are null already stay untouched
    has_value = " OR ".join(f"{quoted(name)} IS NOT NULL" for name in change.columns)
    connection.exec_driver_sql(f"UPDATE {change.table} SET {_nulls(change)} WHERE {has_value}")
