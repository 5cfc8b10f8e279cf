"""Keeps the rows that a run replaces, in the run's own transaction, for `undo` to restore.

Each statement that changes a large table also inserts the rows as they were before, and only those
that differ. Small tables (COMPARED_TABLES) are copied before the changes and compared after them.
Values are kept as text, from which PostgreSQL reads every type without loss. Restores nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from sqlalchemy import Connection, Table, delete, insert, select, text, update

from database.ledger.runs import Run
from database.schema.merge_sql import qualified, quoted
from database.schema.own_tables import (
    market_series,
    pool_coverage,
    provisional_days,
    quarantine,
    raw_day_counts,
    replaced_rows,
    run_changes,
    run_ledger,
)

REPLACED = qualified(replaced_rows)

Kind = Literal["written", "deleted", "filled"]
"""How a run changed a table, as in `run_changes.kind`."""

COMPARED_TABLES = (market_series, pool_coverage, provisional_days, quarantine, raw_day_counts)
"""Tables with at most a row for each pool, day or rejected row, which a run changes by several
statements.
"""


def begin_change(
    run: Run, table: str, kind: Kind, key: Iterable[str], columns: Iterable[str]
) -> int | None:
    """Record that the run is about to change a table.

    Args:
        run: the open run, in its transaction.
        table: name of the table, as in the run's statements.
        kind: how it is changed.
        key: columns of the key.
        columns: columns that are changed; of deleted rows all columns.

    Returns:
        The change's id, for `insert_replaced`; None if the run keeps no rows.
    """
    if not run.undo_days:
        return None
    # `table` may have no schema, and an undo must not depend on its own search path
    full_name = text("""
        SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = CAST(:table AS regclass)
    """)
    values = {
        "run_id": run.run_id,
        "table_name": run.connection.execute(full_name, {"table": table}).scalar_one(),
        "kind": kind,
        "key_columns": list(key),
        "columns": list(columns),
        "rows": 0,
    }
    change = insert(run_changes).values(values).returning(run_changes.c.id)
    return int(run.connection.execute(change).scalar_one())


def end_change(run: Run, change_id: int | None, rows: int) -> None:
    """Record the number of changed rows; a change of no row is forgotten."""
    if change_id is None:
        return
    is_change = run_changes.c.id == change_id
    run.connection.execute(
        update(run_changes).where(is_change).values(rows=rows)
        if rows
        else delete(run_changes).where(is_change)
    )


def insert_replaced(
    change_id: int, source: str, key: Iterable[str], before: Iterable[str], *, exists: str = "true"
) -> str:
    """Return a statement that keeps rows.

    Args:
        change_id: id of the change.
        source: FROM clause of the rows.
        key: SQL expressions of the key.
        before: SQL expressions of the values before the run.
        exists: SQL condition that the row existed before the run.
    """
    # no `before`: the run inserted the row, and an undo deletes it
    return f"""
        INSERT INTO {REPLACED} (change_id, key, before)
        SELECT {change_id}, {_texts(key)}, CASE WHEN {exists} THEN {_texts(before)} END
        FROM {source}"""


def _texts(expressions: Iterable[str]) -> str:
    return f"ARRAY[{', '.join(f'{expression}::text' for expression in expressions)}]"


def _of(alias: str, columns: Iterable[str]) -> list[str]:
    return [f"{alias}.{quoted(name)}" for name in columns]


def delete_rows(run: Run, table: str, key: Sequence[str], condition: str, *, using: str) -> int:
    """Delete rows and keep them.

    Args:
        run: the open run, in its transaction.
        table: name of the table, which is `t` in the condition.
        key: columns of the key.
        condition: SQL condition of the rows.
        using: the other tables of the condition.

    Returns:
        Number of deleted rows.
    """
    deletion = f"DELETE FROM {table} AS t USING {using} WHERE {condition}"
    columns = storable_columns(run, table)
    change_id = begin_change(run, table, "deleted", key, columns)
    if change_id is not None:
        # one statement, so that exactly the deleted rows are kept
        rows = insert_replaced(change_id, "gone", _of("gone", key), _of("gone", columns))
        deletion = f"WITH gone AS ({deletion} RETURNING t.*) {rows}"
    deleted = run.connection.exec_driver_sql(deletion).rowcount
    end_change(run, change_id, deleted)
    return deleted


def update_rows(
    run: Run,
    table: str,
    key: Sequence[str],
    columns: Sequence[str],
    values: str,
    condition: str,
    *,
    using: str,
) -> int:
    """Update rows and keep them.

    Args:
        run: the open run, in its transaction.
        table: name of the table, which is `t` in the condition.
        key: columns of the key.
        columns: columns that are set.
        values: SET clause.
        condition: SQL condition of the rows.
        using: the other tables of the condition.

    Returns:
        Number of updated rows.
    """
    statement = f"UPDATE {table} AS t SET {values} FROM {using} WHERE {condition}"
    change_id = begin_change(run, table, "written", key, columns)
    if change_id is not None:
        rows = f"{table} AS t, {using} WHERE {condition}"
        kept = insert_replaced(change_id, rows, _of("t", key), _of("t", columns))
        # all parts of a statement see the rows as they were before it
        statement = f"WITH kept AS ({kept}) {statement}"
    updated = run.connection.exec_driver_sql(statement).rowcount
    end_change(run, change_id, updated)
    return updated


def storable_columns(run: Run, table: str) -> list[str]:
    """Return the columns of a table that an INSERT can set."""
    query = text("""
        SELECT attname
        FROM pg_attribute
        WHERE attrelid = CAST(:table AS regclass)
            AND attnum > 0
            AND NOT attisdropped
            AND attgenerated = ''
        ORDER BY attnum
    """)
    return list(run.connection.execute(query, {"table": table}).scalars())


def copy_compared_tables(run: Run) -> None:
    """Copy COMPARED_TABLES, before the run's transaction changes them."""
    if not run.undo_days:
        return
    # a decision of a person during the run would be taken for the run's
    run.connection.exec_driver_sql(
        f"LOCK TABLE {qualified(quarantine)} IN SHARE ROW EXCLUSIVE MODE"
    )
    for table in COMPARED_TABLES:
        run.connection.exec_driver_sql(f"""
            CREATE TEMPORARY TABLE {_copy(table)} ON COMMIT DROP AS
            SELECT *
            FROM {qualified(table)}""")


def keep_differences(run: Run) -> None:
    """Keep the rows of COMPARED_TABLES that differ from their copies, at the end of the run's
    transaction.
    """
    if run.undo_days:
        for table in COMPARED_TABLES:
            _keep_written(run, table)
            _keep_deleted(run, table)


def _copy(table: Table) -> str:
    return f"{table.name}_before"


def _keys_and_columns(table: Table) -> tuple[list[str], list[str]]:
    key = [column.name for column in table.primary_key]
    return key, [column.name for column in table.columns if column.name not in key]


def _same_key(key: Iterable[str]) -> str:
    return " AND ".join(f"b.{quoted(name)} = t.{quoted(name)}" for name in key)


def _keep_written(run: Run, table: Table) -> None:
    key, columns = _keys_and_columns(table)
    change_id = begin_change(run, qualified(table), "written", key, columns)
    assert change_id is not None
    old, new = (", ".join(_of(alias, columns)) for alias in ("b", "t"))
    exists = f"b.{quoted(key[0])} IS NOT NULL"
    source = f"""{qualified(table)} AS t
        LEFT JOIN {_copy(table)} AS b ON {_same_key(key)}
        WHERE NOT {exists} OR ROW({old}) IS DISTINCT FROM ROW({new})"""
    rows = insert_replaced(change_id, source, _of("t", key), _of("b", columns), exists=exists)
    end_change(run, change_id, run.connection.exec_driver_sql(rows).rowcount)


def _keep_deleted(run: Run, table: Table) -> None:
    key, columns = _keys_and_columns(table)
    change_id = begin_change(run, qualified(table), "deleted", key, [*key, *columns])
    assert change_id is not None
    source = f"""{_copy(table)} AS b
        WHERE NOT EXISTS (SELECT FROM {qualified(table)} AS t WHERE {_same_key(key)})"""
    rows = insert_replaced(change_id, source, _of("b", key), _of("b", [*key, *columns]))
    end_change(run, change_id, run.connection.exec_driver_sql(rows).rowcount)


def forget_old_rows(run: Run) -> None:
    """Delete the kept rows of runs that ended more than UNDO_DAYS days ago, of all jobs."""
    if not run.undo_days:
        return
    is_old = text("finished_at < now() - make_interval(days => :days)").bindparams(
        days=run.undo_days
    )
    old = select(run_ledger.c.run_id).where(run_ledger.c.is_undoable, is_old)
    if runs := list(run.connection.execute(old).scalars()):
        forget_runs(run.connection, runs)


def forget_runs(connection: Connection, run_ids: Sequence[str]) -> None:
    """Delete the kept rows of runs, which can't be undone any more.

    Args:
        connection: the caller's transaction.
        run_ids: ids of the runs.
    """
    changes = select(run_changes.c.id).where(run_changes.c.run_id.in_(run_ids))
    connection.execute(delete(replaced_rows).where(replaced_rows.c.change_id.in_(changes)))
    connection.execute(delete(run_changes).where(run_changes.c.run_id.in_(run_ids)))
    connection.execute(
        update(run_ledger).where(run_ledger.c.run_id.in_(run_ids)).values(is_undoable=False)
    )
