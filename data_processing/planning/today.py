"""Adds today's partial day to a plan, for INCLUDE_TODAY: every active pool is computed as if the
day ended now.

Writes to the plan's temporary tables and its table. `provisional_days` marks the resulting rows.
Days are UTC.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from sqlalchemy import Connection, text

from data_processing.checks.row_checks import EARLIEST_DAY
from data_processing.planning.plan_sql import POOLS, REASONS
from data_processing.raw.history import TABLE, midnight, moment
from data_processing.raw.pool_coverage import COVERAGE

TODAY_REASON = "today, not over"


def add_today(connection: Connection, *, run_end: date, now: datetime) -> date | None:
    """Add TODAY_REASON to `reasons` for every active pool, if raw history has a row of today.

    Args:
        connection: the plan's transaction.
        run_end: end of the complete days, exclusive.
        now: clock of the run, UTC.

    Returns:
        The first day that is not final: `run_end`, or today if the history begins today. None
        without a row of today.
    """
    today = now.date()
    first = run_end if run_end > EARLIEST_DAY else today
    # an inactive pool ends with its last snapshot of a complete day
    added = connection.execute(
        text(f"""
    INSERT INTO {REASONS}
    WITH todays AS MATERIALIZED (
        SELECT DISTINCT pool_id
        FROM {TABLE}
        WHERE timestamp >= {midnight(today)}
            AND timestamp <= {moment(now)}
    )
    SELECT candidates.pool_id, :reason, CAST(:first AS date), CAST(:today AS date) + 1
    FROM (
        SELECT pool_id FROM {COVERAGE}
        UNION
        SELECT pool_id FROM {REASONS}
        UNION
        SELECT pool_id FROM todays
    ) AS candidates
    LEFT JOIN {POOLS} AS p ON p.pool_id = candidates.pool_id
    WHERE p.is_active IS NOT FALSE
        AND EXISTS (SELECT FROM todays)"""),
        {"reason": TODAY_REASON, "first": first, "today": today},
    )
    return first if added.rowcount else None


def extend_reads_to_now(connection: Connection, table: str, now: datetime) -> None:
    """Extend the pools with TODAY_REASON to the end of today, and read their rows up to now.

    Args:
        connection: the plan's transaction.
        table: the plan's table.
        now: clock of the run, UTC; a later row is in the future.
    """
    # read_end is exclusive, and a row of this very moment is read
    connection.execute(
        text(f"""
    UPDATE {table}
    SET open_end = CAST(:end AS date),
        read_end = {moment(now)} + interval '1 microsecond'
    WHERE :reason = ANY(reasons)"""),
        {"end": now.date() + timedelta(days=1), "reason": TODAY_REASON},
    )
