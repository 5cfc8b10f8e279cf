"""Today's partial day in a plan, for those who set INCLUDE_TODAY: every active pool is computed as
if the day ended now.

In: the plan's temporary tables and raw history. Out: a reason more for each active pool, and a
plan's table that reads up to now. What becomes of the rows is `provisional_days`' business. Days
are UTC.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from sqlalchemy import Connection, text

from data_processing.checks.row_checks import EARLIEST_DAY
from data_processing.planning.plan_sql import POOLS, REASONS
from data_processing.raw.history import TABLE, midnight, moment
from data_processing.raw.pool_coverage import CALENDARS

REASON = "today, not over"


def add_today(connection: Connection, *, run_end: date, now: datetime) -> date | None:
    """Add REASON to `reasons` for every active pool, where raw history has a row of today.

    An inactive pool ends with its last snapshot of a complete day. Returns: the first day that is
    not final, `run_end` but for a history that begins today; None without a row of today.
    """
    today = now.date()
    first = run_end if run_end > EARLIEST_DAY else today
    added = connection.execute(
        text(f"""
    INSERT INTO {REASONS}
    WITH todays AS MATERIALIZED (
        SELECT DISTINCT pool_id
        FROM {TABLE}
        WHERE timestamp >= {midnight(today)}
            AND timestamp <= {moment(now)}
    )
    SELECT found.pool_id, :reason, CAST(:first AS date), CAST(:today AS date) + 1
    FROM (
        SELECT pool_id FROM {CALENDARS}
        UNION
        SELECT pool_id FROM {REASONS}
        UNION
        SELECT pool_id FROM todays
    ) AS found
    LEFT JOIN {POOLS} AS p ON p.pool_id = found.pool_id
    WHERE p.is_active IS NOT FALSE
        AND EXISTS (SELECT FROM todays)"""),
        {"reason": REASON, "first": first, "today": today},
    )
    return first if added.rowcount else None


def read_until_now(connection: Connection, table: str, now: datetime) -> None:
    """Let the pools of the plan's table that have REASON go on to the end of today, and read their
    rows up to now: a later one is in the future.
    """
    connection.execute(
        text(f"""
    UPDATE {table}
    SET open_end = CAST(:end AS date), read_end = {moment(now)} + interval '1 microsecond'
    WHERE :reason = ANY(reasons)"""),
        {"end": now.date() + timedelta(days=1), "reason": REASON},
    )
