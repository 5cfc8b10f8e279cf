"""Counts in PostgreSQL how much a plan reads and writes, for the reader of a dry run and for the
checks of the run.

Reads the plan's table and raw history. Decides nothing, reads no metric, writes nothing. Days are
UTC, intervals half-open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, text

from data_processing.checks.row_checks import RowCheck
from data_processing.planning.plan_sql import CORRECTION, REASONS
from data_processing.raw.history import TABLE, planned_rows, select_rows_to_read, validated_rows
from data_processing.raw.observed_days import OBSERVED
from data_processing.raw.pool_coverage import COVERAGE


@dataclass(frozen=True)
class PlanReason:
    """One reason of a plan.

    Attributes:
        reason: for example `late correction` or `new days`.
        pools: number of pools.
        start: first day that the reason touches.
        end: end of those days, exclusive.
        days: pool-days in [start, end) that the reason touches.
    """

    reason: str
    pools: int
    start: date
    end: date
    days: int


@dataclass(frozen=True)
class PlanStatistics:
    """Counts and estimates of a plan.

    Attributes:
        start: first day to write; None without a pool.
        pools: pools to recompute.
        days: pool-days to write, at most.
        days_missing: pool-days to write without a snapshot; None if not counted.
        days_without_raw_rows: pool-days with a stored snapshot alone; None if not counted.
        rows_to_read: raw rows.
        rows_expected_to_change: estimate of the written rows that differ.
        rows_to_quarantine: rows to read that fail a check; None outside a dry run.
        estimated_seconds: from earlier runs of the job.
        estimated_cost_usd: 0 on a local machine; None if unknown.
        parts: the reasons of the plan.
        rows_unread: raw rows that no run reads; None if not counted.
    """

    start: date | None = None
    pools: int = 0
    days: int = 0
    days_missing: int | None = None
    days_without_raw_rows: int | None = None
    rows_to_read: int = 0
    rows_expected_to_change: int = 0
    rows_to_quarantine: int | None = None
    estimated_seconds: float = 0.0
    estimated_cost_usd: float | None = None
    parts: tuple[PlanReason, ...] = ()
    rows_unread: int | None = None


def read_statistics(
    connection: Connection,
    table: str,
    out_of_range: str | None,
    *,
    reach: int,
    rules_changed: bool,
    counted_rows: int | None,
    retire_missing: bool,
) -> PlanStatistics:
    """Count pools, days and rows of a plan. Estimates and `rows_to_quarantine` are left out.

    Args:
        connection: transaction with the plan's temporary tables.
        table: the plan's table.
        out_of_range: condition for raw rows of an impossible day, or None.
        reach: days that a correction can change.
        rules_changed: whether every row may change.
        counted_rows: number of rows up to which missing days are counted; None counts always.
        retire_missing: whether the run removes stored days without a raw row. Missing days are
            then always counted.

    Returns:
        Statistics of the plan.
    """
    totals = (
        connection.execute(text(_totals(table)), {"reach": reach, "all": rules_changed})
        .mappings()
        .one()
    )
    rows = count_rows_to_read(connection, table, out_of_range)
    # counting days takes a pass over the rows to read
    missing = without_rows = None
    if counted_rows is None or rows <= counted_rows or retire_missing:
        with_raw_row, without_rows = _days_with_snapshots(connection, table)
        # a run that removes missing days also removes those with a stored snapshot alone
        missing = totals["days"] - with_raw_row - (0 if retire_missing else without_rows)
    return PlanStatistics(
        **totals,
        rows_to_read=rows,
        days_missing=missing,
        days_without_raw_rows=without_rows,
        parts=_parts(connection, table),
    )


def count_rows_to_read(connection: Connection, table: str, out_of_range: str | None) -> int:
    """Return how many raw rows a run of the plan reads.

    Args:
        connection: sees the plan's table.
        table: the plan's table.
        out_of_range: condition for raw rows of an impossible day, or None to leave them out.
    """
    counts = [f"SELECT count(*) FROM {planned_rows(table)}"]
    if out_of_range is not None:
        counts.append(f"SELECT count(*) FROM {TABLE} AS h WHERE {out_of_range}")
    return sum(int(connection.exec_driver_sql(count).scalar_one()) for count in counts)


def _totals(table: str) -> str:
    # A late correction changes the days within its reach, a changed price every later day, and a
    # run over known days nothing.
    known_days = """
            CASE
                WHEN c.pool_id IS NULL THEN 0
                ELSE greatest(
                    0,
                    least(c.last_day + 1, p.write_end) - greatest(c.first_day, p.write_from)
                )
            END"""
    return f"""
    SELECT count(*) AS pools,
        min(write_from) AS start,
        coalesce(sum(days), 0)::bigint AS days,
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
            {known_days} AS known,
            '{CORRECTION}' = ANY(p.reasons) AS corrected,
            EXISTS (
                SELECT FROM unnest(p.reasons) AS reason
                WHERE reason LIKE '% changed'
            ) AS market
        FROM {table} AS p
        LEFT JOIN {COVERAGE} AS c ON c.pool_id = p.pool_id
    ) AS pools"""


def _days_with_snapshots(connection: Connection, table: str) -> tuple[int, int]:
    """Return the pool-days to write with a raw row, and those with a stored snapshot alone."""
    with_raw_row, stored_alone = connection.exec_driver_sql(f"""
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
    ) AS days""").one()
    return with_raw_row, stored_alone


def _parts(connection: Connection, table: str) -> tuple[PlanReason, ...]:
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
    return tuple(PlanReason(*row) for row in parts)


def rows_to_quarantine(
    connection: Connection, table: str, out_of_range: str | None, checks: Sequence[RowCheck]
) -> int:
    """Return how many of the rows to read fail a check.

    Args:
        connection: sees the plan's table.
        table: the plan's table.
        out_of_range: condition for raw rows of an impossible day, or None.
        checks: row checks with severities.
    """
    rows = validated_rows(select_rows_to_read(table, out_of_range), checks)
    return int(
        connection.exec_driver_sql(
            f"SELECT count(*) FROM ({rows}) AS validated WHERE reason IS NOT NULL"
        ).scalar_one()
    )
