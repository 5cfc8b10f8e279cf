"""SQL of staging and merge as strings: pure functions, no connection.

Staging holds doubles, dates and text as Spark made them; the merge casts to the types of
`tables.py` and from there to the target's own, once, in SQL.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Date, Integer, Numeric, Table
from sqlalchemy.dialects import postgresql

from database.schema.tag_columns import ATTEMPT_TAG, PARTITION_TAG

MAX_DOUBLE = sys.float_info.max

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class MergeTarget:
    """Where staged rows go: `key` and `columns` map the target's columns to the staging columns
    they come from.

    Only `columns` are compared; `provenance` columns (a run id, say) are written with a new or a
    changed row but are no change by themselves. `rows` is an SQL condition on the staging columns
    that says which rows this target takes; None means all of them.
    """

    table: Table
    key: Mapping[str, str]
    columns: Mapping[str, str]
    provenance: Mapping[str, str] | None = None
    rows: str | None = None


def quoted(name: str) -> str:
    return _DIALECT.identifier_preparer.quote(name)


def qualified(table: Table) -> str:
    return _DIALECT.identifier_preparer.format_table(table)


def create_staging(staging: str, column_types: Mapping[str, str]) -> str:
    """UNLOGGED: staging never outlives its run, and a crash may empty it."""
    columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in column_types.items())
    return (
        f"CREATE UNLOGGED TABLE {staging} ({columns}, {PARTITION_TAG} integer NOT NULL,"
        f" {ATTEMPT_TAG} bigint NOT NULL)"
    )


def staged_attempts(staging: str) -> str:
    """A row for each attempt of a task that committed rows: its partition, its attempt and how many
    rows.
    """
    return (
        f"SELECT {PARTITION_TAG} AS partition, {ATTEMPT_TAG} AS attempt, count(*) AS rows FROM"
        f" {staging} GROUP BY 1, 2"
    )


def keep_last_attempts(staging: str) -> str:
    """Delete what an earlier attempt of a retried task committed: each partition keeps the rows of
    its last attempt.
    """
    return (
        f"DELETE FROM {staging} AS s USING (SELECT {PARTITION_TAG}, max({ATTEMPT_TAG}) AS last FROM"
        f" {staging} GROUP BY 1) AS kept WHERE s.{PARTITION_TAG} = kept.{PARTITION_TAG} AND"
        f" s.{ATTEMPT_TAG} <> kept.last"
    )


def staging_facts(staging: str, target: MergeTarget, double_columns: list[str]) -> str:
    """One row about the target's rows: unique_key (rows beyond the first of their key),
    key_not_null (rows without a whole key) and finite (rows with a NaN or an infinity, which a
    numeric column would keep or refuse).

    Days are counted as bits of a number: grouped by each key, the keys of millions of rows would be
    written to disk and take five times as long.
    """
    days = next(
        (
            source
            for name, source in target.key.items()
            if isinstance(target.table.c[name].type, Date)
        ),
        None,
    )
    others = [quoted(source) for source in target.key.values() if source != days]
    number = f"({quoted(days)} - date '2000-01-01')" if days else None
    groups = ", ".join(others + ([f"{number} >> 6"] if number else []))
    surplus = (
        f"count({quoted(days)}) - coalesce(bit_count(bit_or(1::bigint << ({number} &"
        " 63))::bit(64)), 0)"
        if days
        else "count(*) - 1"
    )
    return (
        "SELECT coalesce(sum(surplus), 0)::bigint AS unique_key, coalesce(sum(nulls), 0)::bigint"
        f" AS key_not_null, coalesce(sum(bad), 0)::bigint AS finite FROM (SELECT {surplus} AS"
        f" surplus, count(*) FILTER (WHERE {_null_key(target)}) AS nulls, count(*) FILTER (WHERE"
        f" {_not_finite(double_columns)}) AS bad FROM {_taken(staging, target)} GROUP BY {groups})"
        " AS keys"
    )


def staging_failures(
    staging: str, target: MergeTarget, double_columns: list[str]
) -> dict[str, str]:
    """For each of the facts a SELECT of the rows that it counts."""
    names, rows = _key_columns(target), f"(SELECT s.* FROM {_taken(staging, target)}) AS s"
    return {
        "unique_key": (
            f"SELECT {names}, count(*) AS rows FROM {rows} GROUP BY {names} HAVING count(*) > 1"
        ),
        "key_not_null": f"SELECT * FROM {rows} WHERE {_null_key(target)}",
        "finite": (
            f"SELECT {', '.join([names, *map(quoted, double_columns)])} FROM {rows} WHERE"
            f" {_not_finite(double_columns)}"
        ),
    }


def _key_columns(target: MergeTarget) -> str:
    return ", ".join(quoted(name) for name in target.key.values())


def _null_key(target: MergeTarget) -> str:
    return " OR ".join(f"{quoted(name)} IS NULL" for name in target.key.values())


def _not_finite(double_columns: list[str]) -> str:
    """PostgreSQL holds NaN for larger than infinity."""
    return (
        " OR ".join(
            f"{quoted(name)} NOT BETWEEN '{-MAX_DOUBLE}' AND '{MAX_DOUBLE}'"
            for name in double_columns
        )
        or "false"
    )


def _taken(staging: str, target: MergeTarget) -> str:
    """FROM clause of the rows that a target takes, as `s`."""
    return f"{staging} AS s WHERE {target.rows}" if target.rows else f"{staging} AS s"


def stored_types(table: Table) -> str:
    """SELECT of each column and its type, as the database has it: numeric(10,2), say."""
    return (
        "SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute WHERE"
        f" attrelid = '{qualified(table)}'::regclass AND attnum > 0 AND NOT attisdropped"
    )


def merge(target: MergeTarget, staging: str, stored: Mapping[str, str] | None = None) -> str:
    """Insert new rows, update changed ones, leave equal ones untouched; returns one row: staged,
    written (inserted or updated), changed and equal (rows whose key the table had before).

    Args: stored maps columns to the types of `stored_types`; without it they are those of
    `tables.py`.

    The join drops equal rows before the insert: `ON CONFLICT .. WHERE` would lock, and so rewrite,
    each of them. `n` is named once, so that PostgreSQL reads staging straight into the join;
    counted from `n`, all of it would be written to disk in between. `DO UPDATE` has no `WHERE`: a
    row that it left alone, because a trigger changes the new values or another session wrote them
    meanwhile, could not be told from a row that a trigger dropped.

    `staged` = `written` + `equal`, unless a trigger of the table drops rows; `changed` of the
    written rows were updated. A second join counts them: RETURNING has no `xmax` on partitioned
    tables, and a subquery in it reads a table that was empty once for each row.
    """
    table, taken = qualified(target.table), _taken(staging, target)
    provenance = dict(target.provenance or {})
    source = {**target.key, **target.columns, **provenance}
    names = ", ".join(quoted(name) for name in source)
    keys = ", ".join(quoted(name) for name in target.key)
    old, new = (
        ", ".join(f"{alias}.{quoted(name)}" for name in target.columns) for alias in ("t", "n")
    )
    updates = ", ".join(
        f"{quoted(name)} = excluded.{quoted(name)}" for name in {**target.columns, **provenance}
    )
    return f"""
        WITH n AS ({_cast(target, source, taken, stored)}),
        merged AS (
            INSERT INTO {table} AS t ({names})
            SELECT {", ".join(f"n.{quoted(name)}" for name in source)}
            FROM n LEFT JOIN {table} AS t ON {_same_key(target, "t", "n")}
            WHERE t.{quoted(next(iter(target.key)))} IS NULL OR ({old}) IS DISTINCT FROM ({new})
            ON CONFLICT ({keys}) DO UPDATE SET {updates}
            RETURNING true
        ),
        before AS (
            SELECT
                count(*) FILTER (WHERE ({old}) IS DISTINCT FROM ({new})) AS changed,
                count(*) FILTER (WHERE ({old}) IS NOT DISTINCT FROM ({new})) AS equal
            FROM ({_cast(target, {**target.key, **target.columns}, taken, stored)}) AS n
            JOIN {table} AS t ON {_same_key(target, "t", "n")}
        )
        SELECT
            (SELECT count(*) FROM {taken}) AS staged,
            (SELECT count(*) FROM merged) AS written,
            before.changed,
            before.equal
        FROM before
    """


def missing_rows(
    target: MergeTarget,
    staging: str,
    stored: Mapping[str, str] | None = None,
    *,
    key_alone: bool = False,
) -> str:
    """The keys of staged rows that the target lacks or, unless `key_alone`, has with other values:
    after a merge, the rows that a trigger dropped or changed.
    """
    old, new = (
        ", ".join(f"{alias}.{quoted(name)}" for name in target.columns) for alias in ("t", "n")
    )
    changed = "" if key_alone else f" OR ({old}) IS DISTINCT FROM ({new})"
    source = {**target.key, **target.columns}
    return f"""
        SELECT {", ".join(f"n.{quoted(name)}" for name in target.key)}
        FROM ({_cast(target, source, _taken(staging, target), stored)}) AS n
        LEFT JOIN {qualified(target.table)} AS t ON {_same_key(target, "t", "n")}
        WHERE t.{quoted(next(iter(target.key)))} IS NULL{changed}
    """


def _cast(
    target: MergeTarget, source: Mapping[str, str], taken: str, stored: Mapping[str, str] | None
) -> str:
    """The staged rows under the target's names, in the types that the target has."""
    columns = ", ".join(
        f"{_as_stored(target.table, name, quoted(column), stored or {})} AS {quoted(name)}"
        for name, column in source.items()
    )
    return f"SELECT {columns} FROM {taken}"


def _as_stored(table: Table, name: str, source: str, stored: Mapping[str, str]) -> str:
    """A number is rounded to the scale that the target has: compared at a finer one, every row
    would be locked, and so rewritten, by every run. A text keeps its length: a cast to varchar
    would cut it without a word.
    """
    ours = _type(table, name)
    value = f"CAST(s.{source} AS {ours})"
    theirs = stored.get(name, ours)
    is_number = isinstance(table.c[name].type, Numeric | Integer)
    if not is_number or theirs == ours.lower().replace(", ", ","):
        return value
    return f"CAST({value} AS {theirs})"


def _same_key(target: MergeTarget, one: str, other: str) -> str:
    return " AND ".join(f"{one}.{quoted(name)} = {other}.{quoted(name)}" for name in target.key)


def _type(table: Table, column: str) -> str:
    return table.c[column].type.compile(dialect=_DIALECT)
