"""What a plan will read and write, counted by PostgreSQL from the plan's table: figures for the
reader of a dry run, and for the run's own checks.

Nothing is decided here, no metric is read and nothing is written. Days are UTC, intervals
half-open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, text

from data_processing.checks.row_checks import RowCheck
from data_processing.planning.plan_sql import CORRECTION, REASONS
from data_processing.raw.history import TABLE, judged_rows, planned_rows, rows_to_read
from data_processing.raw.observed_days import OBSERVED
from data_processing.raw.pool_coverage import CALENDARS


@dataclass(frozen=True)
class Part:
    """One reason of a plan: how many pools it touches, in which days [start, end), and the
    pool-days in there.
    """

    reason: str
    pools: int
    start: date
    end: date
    days: int


def plan_facts(
    connection: Connection,
    table: str,
    impossible: str | None,
    *,
    reach: int,
    rules_changed: bool,
    counted_rows: int | None,
    retire_missing: bool,
) -> dict[str, Any]:
    """Values of `Plan`: pools, days, start, rows_to_read, rows_expected_to_change, days_missing,
    days_without_raw_rows, parts.

    Args: impossible is the condition for raw rows of no possible day, or None. reach is the number
    of days a correction can change. rules_changed says that every row may. counted_rows is the
    number of rows up to which missing days are counted, None for always. retire_missing says that
    stored days whose raw rows are gone go; they are counted then.
    """
    facts = dict(
        connection.execute(text(_totals(table)), {"reach": reach, "all": rules_changed})
        .mappings()
        .one()
    )
    rows = count_rows_to_read(connection, table, impossible)
    missing = without_rows = None
    if counted_rows is None or rows <= counted_rows or retire_missing:
        raw, stored = _days_with_snapshots(connection, table)
        without_rows = stored
        missing = facts["days"] - raw - (0 if retire_missing else stored)
    return facts | {
        "rows_to_read": rows,
        "days_missing": missing,
        "days_without_raw_rows": without_rows,
        "parts": _parts(connection, table),
    }


def count_rows_to_read(connection: Connection, table: str, impossible: str | None) -> int:
    """Raw rows that a run of the plan `table` reads."""
    counts = [f"SELECT count(*) FROM {planned_rows(table)}"]
    if impossible is not None:
        counts.append(f"SELECT count(*) FROM {TABLE} AS h WHERE {impossible}")
    return sum(int(connection.exec_driver_sql(count).scalar_one()) for count in counts)


def _totals(table: str) -> str:
    """A late correction changes the days within its reach, a changed price every day from its own
    on, a run over known days nothing.
    """
    known = (
        "CASE WHEN c.pool_id IS NULL THEN 0 ELSE greatest(0, least(c.last_day + 1, p.write_end) -"
        " greatest(c.first_day, p.write_from)) END"
    )
    return f"""
    SELECT count(*) AS pools, min(write_from) AS start, coalesce(sum(days), 0)::bigint AS days,
        coalesce(
            sum(
                days - known + CASE
                    WHEN :all OR market THEN known
                    WHEN corrected THEN least(known, :reach)
                    ELSE 0
                END
            ),
            0
        )::bigint AS rows_expected_to_change
    FROM (
        SELECT p.write_from,
            p.write_end - p.write_from AS days,
            {known} AS known,
            '{CORRECTION}' = ANY(p.reasons) AS corrected,
            EXISTS (
                SELECT FROM unnest(p.reasons) AS reason
                WHERE reason LIKE '% changed'
            ) AS market
        FROM {table} AS p
        LEFT JOIN {CALENDARS} AS c ON c.pool_id = p.pool_id
    ) AS pools"""


def _days_with_snapshots(connection: Connection, table: str) -> tuple[int, int]:
    """Pool-days to write that have a raw row, and those that have a stored snapshot alone."""
    counted = f"""
    SELECT count(*) FILTER (WHERE is_raw), count(*) FILTER (WHERE NOT is_raw)
    FROM (
        SELECT pool_id, date, bool_or(is_raw) AS is_raw
        FROM (
            SELECT h.pool_id, (h.timestamp AT TIME ZONE 'UTC')::date AS date, true AS is_raw
            FROM {planned_rows(table)}
            WHERE h.timestamp >= p.write_from::timestamp AT TIME ZONE 'UTC'
                AND h.timestamp < p.write_end::timestamp AT TIME ZONE 'UTC'
            UNION ALL
            SELECT s.pool_id, s.date, false
            FROM {OBSERVED} AS s
            JOIN {table} AS p ON p.pool_id = s.pool_id
                AND s.date >= p.write_from
                AND s.date < p.write_end
        ) AS snapshots
        GROUP BY pool_id, date
    ) AS days"""
    raw, stored = connection.exec_driver_sql(counted).one()
    return raw, stored


def _parts(connection: Connection, table: str) -> tuple[Part, ...]:
    look_back = "(p.read_from AT TIME ZONE 'UTC')::date"
    parts = connection.exec_driver_sql(f"""
    SELECT reason, count(*), min(write_from), max(write_to), sum(write_to - write_from)::bigint
    FROM {REASONS}
    GROUP BY reason
    UNION ALL
    SELECT 'look-back', count(*), min({look_back}), max(write_from),
        sum(write_from - {look_back})::bigint
    FROM {table} AS p
    WHERE known_from IS NOT NULL
    HAVING count(*) > 0
    ORDER BY 1""")
    return tuple(Part(*row) for row in parts)


def rows_to_quarantine(
    connection: Connection, table: str, impossible: str | None, checks: Sequence[RowCheck]
) -> int:
    """How many of the rows to read fail a check, counted by PostgreSQL."""
    rows = judged_rows(rows_to_read(table, impossible), checks)
    return int(
        connection.exec_driver_sql(
            f"SELECT count(*) FROM ({rows}) AS judged WHERE reason IS NOT NULL"
        ).scalar_one()
    )
