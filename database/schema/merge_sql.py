"""Builds the SQL of staging and merge. Pure functions; they hold no connection.

Staging has doubles, dates and text, as Spark writes them. The merge casts them to the types of
`owner_tables` and `own_tables`, and from there to the types of the target.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Date, Integer, Numeric, Table
from sqlalchemy.dialects import postgresql

from database.schema.tag_columns import ATTEMPT_TAG, PARTITION_TAG

MAX_DOUBLE = sys.float_info.max

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class MergeTarget:
    """A table that staged rows are merged into.

    Attributes:
        table: the target.
        key: staging column of each column of the key.
        columns: staging column of each compared column.
        provenance: staging column of each column, such as a run id, that is written with new and
            changed rows but not compared.
        rows: SQL condition on staging columns; None selects all rows.
    """

    table: Table
    key: Mapping[str, str]
    columns: Mapping[str, str]
    provenance: Mapping[str, str] | None = None
    rows: str | None = None


def quoted(name: str) -> str:
    """Return an identifier, quoted if necessary."""
    return _DIALECT.identifier_preparer.quote(name)


def qualified(table: Table) -> str:
    """Return the name of a table with its schema, quoted if necessary."""
    return _DIALECT.identifier_preparer.format_table(table)


def create_staging(staging: str, column_types: Mapping[str, str]) -> str:
    """Return CREATE TABLE for staging.

    Args:
        staging: qualified name of the staging table.
        column_types: PostgreSQL type of each column.
    """
    columns = ", ".join(f"{quoted(name)} {type_}" for name, type_ in column_types.items())
    # UNLOGGED: staging ends with its run, and a crash may empty it
    return f"""
        CREATE UNLOGGED TABLE {staging} (
            {columns},
            {PARTITION_TAG} integer NOT NULL,
            {ATTEMPT_TAG} bigint NOT NULL
        )
    """


def staged_attempts(staging: str) -> str:
    """Return a SELECT of the task attempts that committed rows: partition, attempt, rows."""
    return f"""
        SELECT {PARTITION_TAG} AS partition, {ATTEMPT_TAG} AS attempt, count(*) AS rows
        FROM {staging}
        GROUP BY 1, 2
    """


def keep_last_attempts(staging: str) -> str:
    """Return a DELETE of the rows of earlier attempts of a retried task."""
    return f"""
        DELETE FROM {staging} AS s
        USING (
            SELECT {PARTITION_TAG}, max({ATTEMPT_TAG}) AS last
            FROM {staging}
            GROUP BY 1
        ) AS attempts
        WHERE s.{PARTITION_TAG} = attempts.{PARTITION_TAG}
            AND s.{ATTEMPT_TAG} <> attempts.last
    """


def staging_facts(staging: str, target: MergeTarget, double_columns: list[str]) -> str:
    """Return a SELECT of one row that counts invalid rows of a target.

    Its columns are `unique_key` (rows beyond the first of their key), `key_not_null` (rows with a
    null in the key) and `finite` (rows with NaN or infinity).

    Args:
        staging: qualified name of the staging table.
        target: the target.
        double_columns: staging columns of type double.
    """
    dates = [
        source for name, source in target.key.items() if isinstance(target.table.c[name].type, Date)
    ]
    groups = [quoted(source) for source in target.key.values() if source not in dates[:1]]
    surplus = "count(*) - 1"
    if dates:
        # Counts 64 days as the bits of one bigint. A group for each key would write the keys of
        # millions of rows to disk and take five times as long.
        day = quoted(dates[0])
        number = f"({day} - date '2000-01-01')"
        groups.append(f"{number} >> 6")
        bits = f"bit_or(1::bigint << ({number} & 63))"
        surplus = f"count({day}) - coalesce(bit_count({bits}::bit(64)), 0)"
    return f"""
        SELECT
            coalesce(sum(surplus), 0)::bigint AS unique_key,
            coalesce(sum(nulls), 0)::bigint AS key_not_null,
            coalesce(sum(bad), 0)::bigint AS finite
        FROM (
            SELECT
                {surplus} AS surplus,
                count(*) FILTER (WHERE {_null_key(target)}) AS nulls,
                count(*) FILTER (WHERE {_not_finite(double_columns)}) AS bad
            FROM {_rows_of(staging, target)}
            GROUP BY {", ".join(groups)}
        ) AS keys
    """


def staging_failures(
    staging: str, target: MergeTarget, double_columns: list[str]
) -> dict[str, str]:
    """Return a SELECT of the failing rows for each column of `staging_facts`."""
    keys = _key_columns(target)
    columns = ", ".join([keys, *map(quoted, double_columns)])
    rows = f"(SELECT s.* FROM {_rows_of(staging, target)}) AS s"
    return {
        "unique_key": f"""
            SELECT {keys}, count(*) AS rows
            FROM {rows}
            GROUP BY {keys}
            HAVING count(*) > 1
        """,
        "key_not_null": f"SELECT * FROM {rows} WHERE {_null_key(target)}",
        "finite": f"SELECT {columns} FROM {rows} WHERE {_not_finite(double_columns)}",
    }


def _key_columns(target: MergeTarget) -> str:
    return ", ".join(quoted(name) for name in target.key.values())


def _all_columns(target: MergeTarget) -> dict[str, str]:
    """Return the staging column of each column of the target that a merge writes."""
    return {**target.key, **target.columns, **(target.provenance or {})}


def _columns(target: MergeTarget, alias: str) -> str:
    return ", ".join(f"{alias}.{quoted(name)}" for name in target.columns)


def _null_key(target: MergeTarget) -> str:
    return " OR ".join(f"{quoted(name)} IS NULL" for name in target.key.values())


def _not_finite(double_columns: list[str]) -> str:
    """Return a condition for NaN and infinity; for PostgreSQL, NaN is greater than infinity."""
    conditions = [
        f"{quoted(name)} NOT BETWEEN '{-MAX_DOUBLE}' AND '{MAX_DOUBLE}'" for name in double_columns
    ]
    return " OR ".join(conditions) or "false"


def _rows_of(staging: str, target: MergeTarget) -> str:
    """FROM clause of the rows that a target takes, as `s`."""
    return f"{staging} AS s WHERE {target.rows}" if target.rows else f"{staging} AS s"


def stored_types(table: Table) -> str:
    """Return a SELECT of each column and its type in the database, such as numeric(10,2)."""
    return f"""
        SELECT attname AS name, format_type(atttypid, atttypmod) AS type
        FROM pg_attribute
        WHERE attrelid = '{qualified(table)}'::regclass
            AND attnum > 0
            AND NOT attisdropped
    """


def merge(
    target: MergeTarget,
    staging: str,
    stored: Mapping[str, str] | None = None,
    keep: Callable[[str, str], str] | None = None,
) -> str:
    """Return a statement that inserts new rows, updates changed ones and leaves equal ones alone.

    It returns one row: `staged`; `written` (inserted or updated); `changed` (updated); and `equal`.
    `staged` = `written` + `equal`, unless a trigger of the table drops rows.

    Args:
        target: the target.
        staging: qualified name of the staging table.
        stored: types of the target's columns, from `stored_types`; None uses the definition's.
        keep: returns an INSERT that keeps rows, from a FROM clause with the new rows as `n` and the
            stored ones as `t`, and a condition that a row is stored; None keeps none.
    """
    table, rows = qualified(target.table), _rows_of(staging, target)
    source = _all_columns(target)
    names = ", ".join(quoted(name) for name in source)
    keys = ", ".join(quoted(name) for name in target.key)
    updated = [quoted(name) for name in source if name not in target.key]
    updates = ", ".join(f"{name} = excluded.{name}" for name in updated)
    is_stored = f"t.{quoted(next(iter(target.key)))} IS NOT NULL"
    old, new = _columns(target, "t"), _columns(target, "n")
    joined = f"""
            LEFT JOIN {table} AS t ON {_same_key(target, "t", "n")}
            WHERE NOT ({is_stored}) OR ({old}) IS DISTINCT FROM ({new})"""
    compared = f"({_cast(target, {**target.key, **target.columns}, rows, stored)}) AS n {joined}"
    differing = f"SELECT {is_stored} AS is_stored FROM {compared}"
    if keep:
        differing = f"{keep(compared, is_stored)} RETURNING before IS NOT NULL AS is_stored"
    # The join drops equal rows before the INSERT: `ON CONFLICT .. WHERE` would lock, and so
    # rewrite, each of them. `n` is used once, so that PostgreSQL reads staging straight into the
    # join instead of writing it to disk; a second join finds the rows as they were before, because
    # RETURNING has no `xmax` on partitioned tables and no old values. `DO UPDATE` has no WHERE: a
    # row that it skips could not be distinguished from a row that a trigger drops.
    return f"""
        WITH n AS ({_cast(target, source, rows, stored)}),
        merged AS (
            INSERT INTO {table} AS t ({names})
            SELECT {", ".join(f"n.{quoted(name)}" for name in source)}
            FROM n {joined}
            ON CONFLICT ({keys}) DO UPDATE SET {updates}
            RETURNING true
        ),
        differing AS ({differing}),
        counted AS (
            SELECT count(*) AS rows, count(*) FILTER (WHERE is_stored) AS changed
            FROM differing
        ),
        staged AS (SELECT count(*) AS rows FROM {rows})
        SELECT
            staged.rows AS staged,
            (SELECT count(*) FROM merged) AS written,
            counted.changed,
            staged.rows - counted.rows AS equal
        FROM staged, counted
    """


def insert(target: MergeTarget, staging: str, stored: Mapping[str, str] | None = None) -> str:
    """Return a statement that inserts all staged rows into a table that has none.

    `ON CONFLICT` looks up each key before it inserts a row, and logs each row's confirmation, which
    takes a fifth to a third of the time of `merge`. No other session may write to the table.

    Args:
        target: the target.
        staging: qualified name of the staging table.
        stored: types of the target's columns, from `stored_types`; None uses the definition's.
    """
    source = _all_columns(target)
    names = ", ".join(quoted(name) for name in source)
    rows = _rows_of(staging, target)
    return f"""
        INSERT INTO {qualified(target.table)} AS t ({names})
        {_cast(target, source, rows, stored)}
    """


def count_staged(target: MergeTarget, staging: str) -> str:
    """Return a SELECT of the number of staged rows that the target takes."""
    return f"SELECT count(*) FROM {_rows_of(staging, target)}"


def missing_rows(
    target: MergeTarget,
    staging: str,
    stored: Mapping[str, str] | None = None,
    *,
    key_alone: bool = False,
) -> str:
    """Return a SELECT of the keys of staged rows that the target lacks after a merge: a trigger has
    dropped or changed them.

    Args:
        target: the target.
        staging: qualified name of the staging table.
        stored: types of the target's columns, from `stored_types`.
        key_alone: ignore other values than the key.
    """
    old, new = _columns(target, "t"), _columns(target, "n")
    changed = "" if key_alone else f" OR ({old}) IS DISTINCT FROM ({new})"
    source = {**target.key, **target.columns}
    return f"""
        SELECT {", ".join(f"n.{quoted(name)}" for name in target.key)}
        FROM ({_cast(target, source, _rows_of(staging, target), stored)}) AS n
        LEFT JOIN {qualified(target.table)} AS t ON {_same_key(target, "t", "n")}
        WHERE t.{quoted(next(iter(target.key)))} IS NULL{changed}
    """


def _cast(
    target: MergeTarget, source: Mapping[str, str], rows: str, stored: Mapping[str, str] | None
) -> str:
    """Return a SELECT of the staged rows with the target's names and types."""
    columns = ", ".join(
        f"{_as_stored(target.table, name, quoted(column), stored or {})} AS {quoted(name)}"
        for name, column in source.items()
    )
    return f"SELECT {columns} FROM {rows}"


def _as_stored(table: Table, name: str, source: str, stored: Mapping[str, str]) -> str:
    """Return a cast of a staged column to the type of the target's column."""
    defined_type = _type(table, name)
    value = f"CAST(s.{source} AS {defined_type})"
    stored_type = stored.get(name, defined_type)
    is_number = isinstance(table.c[name].type, Numeric | Integer)
    # A text is not cast: varchar would cut it silently. A number is rounded to the stored scale:
    # compared at a finer one, it would differ, and be rewritten, in every run.
    if not is_number or stored_type == defined_type.lower().replace(", ", ","):
        return value
    return f"CAST({value} AS {stored_type})"


def _same_key(target: MergeTarget, left: str, right: str) -> str:
    return " AND ".join(f"{left}.{quoted(name)} = {right}.{quoted(name)}" for name in target.key)


def _type(table: Table, column: str) -> str:
    return table.c[column].type.compile(dialect=_DIALECT)
