"""Compares the rows that a run replaced with those that it left, by column. Writes nothing.

The values after the run are those that a later run replaced, or else those of today's table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, select, text

from common.errors import ConfigurationError
from database.connections.engine import checked_connection
from database.schema.merge_sql import quoted
from database.schema.own_tables import run_changes
from database.undo.restore import CHANGES, REPLACED, Change, column_types, same_key
from database.undo.run_history import find_run

NUMBERS = ("numeric", "double precision", "real", "bigint", "integer", "smallint")


def diff_run(engine: Engine, run_id: str, *, largest: int) -> dict[str, Any]:
    """Return what a run changed.

    Args:
        engine: engine of the database.
        run_id: id of the run.
        largest: number of the largest changes of each column of numbers.

    Returns:
        `run_id`, and `tables`: for each one its name, the numbers of rows inserted, updated and
        deleted, `columns` (of the updated rows: how many values changed, were set or removed) and
        `largest` (column, key, before, after; as text).

    Raises:
        ConfigurationError: there is no such run, or the rows that it replaced are not kept.
    """
    with checked_connection(engine) as connection:
        run = find_run(connection, run_id)
        if not run["is_undoable"]:
            raise ConfigurationError(
                f"the rows that {run_id} replaced are not kept: it is {run['status']}, older than"
                " UNDO_DAYS, of another job, or ran with UNDO_DAYS=0"
            )
        of_run = select(run_changes).where(run_changes.c.run_id == run_id)
        changes = [
            Change.from_row(row) for row in connection.execute(of_run.order_by(run_changes.c.id))
        ]
        by_table: dict[str, list[Change]] = {}
        for change in changes:
            by_table.setdefault(change.table, []).append(change)
        tables = [
            _table_diff(connection, table, changes_of_table, largest)
            for table, changes_of_table in by_table.items()
        ]
    return {"run_id": run_id, "tables": tables}


def _table_diff(
    connection: Connection, table: str, changes: Sequence[Change], largest: int
) -> dict[str, Any]:
    written = [change for change in changes if change.kind == "written"]
    counts = connection.execute(
        text(f"""
        SELECT count(*) FILTER (WHERE before IS NULL) AS inserted, count(before) AS updated
        FROM {REPLACED}
        WHERE change_id = ANY(:ids)"""),
        {"ids": [change.id for change in written]},
    ).one()
    rows = Counter[str]()
    for change in changes:
        rows[change.kind] += change.rows
    difference: dict[str, Any] = {
        "table": table,
        "inserted": counts.inserted + rows["filled"],
        "updated": counts.updated,
        "deleted": rows["deleted"],
        "columns": [],
        "largest": [],
    }
    if counts.updated:
        types = column_types(connection, written[0])
        entries = " UNION ALL ".join(_entries(change, types) for change in written)
        difference["columns"] = _read(connection, _BY_COLUMN, entries)
        if largest:
            difference["largest"] = _read(connection, _LARGEST, entries, largest=largest)
    return difference


def _read(
    connection: Connection, query: str, entries: str, **parameters: int
) -> list[dict[str, Any]]:
    rows = connection.execute(text(query.format(entries=entries)), parameters)
    return [dict(row) for row in rows.mappings()]


_BY_COLUMN = """
SELECT column_name AS column,
    count(*) AS changed,
    count(*) FILTER (WHERE before IS NULL) AS set,
    count(*) FILTER (WHERE after IS NULL) AS removed
FROM ({entries}) AS entries
WHERE before IS DISTINCT FROM after
GROUP BY place, column_name
ORDER BY place
"""

# a column that is no number has neither size nor rank
_LARGEST = """
SELECT column_name AS column, key, before, after
FROM (
    SELECT place, column_name, key, before, after,
        row_number() OVER (
            PARTITION BY place
            ORDER BY abs(after::double precision - before::double precision) DESC, key
        ) AS rank
    FROM ({entries}) AS entries
    WHERE is_number
        AND before IS DISTINCT FROM after
        AND before IS NOT NULL
        AND after IS NOT NULL
) AS ranked
WHERE rank <= :largest
ORDER BY place, rank
"""


def _entries(change: Change, types: Mapping[str, str]) -> str:
    """Return a SELECT of the values of updated rows: place, column_name, is_number, key, before,
    after.
    """
    values = ", ".join(
        f"({place}, '{name}', {str(types[name].startswith(NUMBERS)).lower()}, r.before[{place}],"
        f" CASE WHEN later.key IS NULL THEN t.{quoted(name)}::text ELSE"
        f" later.before[array_position(later.columns, '{name}')] END)"
        for place, name in enumerate(change.columns, start=1)
    )
    names = ", ".join(f"'{name}'" for name in change.columns)
    # `later` is the next change of a row by another run, which kept the value that this run left
    return f"""
    SELECT v.place, v.column_name, v.is_number, array_to_string(r.key, ' ') AS key, v.before,
        v.after
    FROM {REPLACED} AS r
    LEFT JOIN (
        SELECT DISTINCT ON (l.key) l.key, l.before, c.columns
        FROM {CHANGES} AS c
        JOIN {REPLACED} AS l ON l.change_id = c.id
        WHERE c.id > {change.id}
            AND c.run_id <> '{change.run_id}'
            AND c.table_name = '{change.table}'
            AND c.columns @> ARRAY[{names}]
        ORDER BY l.key, c.id
    ) AS later ON later.key = r.key
    LEFT JOIN {change.table} AS t ON {same_key(change, types)}
    CROSS JOIN LATERAL (VALUES {values}) AS v (place, column_name, is_number, before, after)
    WHERE r.change_id = {change.id}
        AND r.before IS NOT NULL"""
