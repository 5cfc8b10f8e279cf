"""The SQL a plan is made of: what the last good run knew, which pools have changed since, and the table of pools to recompute.

Each function runs in the caller's transaction. Days are UTC dates, intervals half-open. No decision is taken here, and no row of a metric is
read or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, select, text

from data_processing.quality_checks import EARLIEST_DAY, RowCheck, judged
from data_processing.raw_history import TABLE, accepted_before, midnight, planned_rows, rows_to_read
from database.merge_sql import qualified
from database.tables import pool_calendars, pools, run_ledger

CALENDARS = qualified(pool_calendars)
POOLS = qualified(pools)

TOUCHED = "touched_pools"

CALENDAR_COLUMNS = "pool_id, known_from, open_end, write_from, write_end"
"""What `daily_grid` needs of a plan's table."""


@dataclass(frozen=True)
class LastRun:
    """The last run that left the tables complete: every raw row inserted before `watermark` is in them, and every day before `end`."""

    watermark: datetime
    end: date
    rules: Any


def last_good_run(connection: Connection, job: str) -> LastRun | None:
    """The newest run, other than a backfill, that succeeded or found nothing to do."""
    ledger = run_ledger.c
    newest = (
        select(ledger.watermark, ledger.end, ledger.plan)
        .where(ledger.job == job, ledger.status.in_(["succeeded", "nothing_to_do"]), ledger.mode.in_(["incremental", "full_refresh"]))
        .where(ledger.watermark.is_not(None), ledger.end.is_not(None), ledger.plan.is_not(None))
        .order_by(ledger.started_at.desc())
    )
    row = connection.execute(newest.limit(1)).first()
    return LastRun(row.watermark, row.end, row.plan["rules"]) if row else None


OPEN_SINCE = text("""
    SELECT least(:asked_at, min(began)) AS watermark, bool_or(hidden) AS hidden FROM (
        SELECT xact_start AS began, state IS NULL AND usename <> current_user AS hidden
        FROM pg_stat_activity
        WHERE datname = current_database() AND coalesce(backend_type, 'client backend') = 'client backend' AND pid <> pg_backend_pid()
        UNION ALL
        SELECT prepared, false FROM pg_prepared_xacts WHERE database = current_database()
        UNION ALL
        SELECT NULL, false
    ) AS transactions
""")


def read_watermark(connection: Connection) -> tuple[datetime, bool]:
    """The start of the oldest open transaction of this database, or now; and whether other sessions hide theirs from this role.

    `insertion_timestamp` is the start of the inserting transaction. Whatever a later snapshot does not see began at the watermark or after it,
    so ask before that snapshot is taken. A transaction reports its start a moment after it took it, hence the pause.
    """
    asked_at = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    connection.execute(text("SELECT pg_sleep(0.02)"))
    row = connection.execute(OPEN_SINCE, {"asked_at": asked_at}).one()
    return row.watermark, bool(row.hidden)


def find_touched_pools(connection: Connection, last: LastRun | None, today: date) -> None:
    """Make the temporary table `touched_pools`: pool_id, first_day and newest_day of its raw rows of complete days.

    After a good run only rows inserted since its watermark count, and rows of days that were not complete then; else all of them.
    """
    possible = f"h.timestamp >= {midnight(EARLIEST_DAY)} AND h.timestamp < {midnight(today)}"
    raw = f"SELECT h.pool_id, h.timestamp FROM {TABLE} AS h WHERE {possible}"
    if last is not None:
        fresh = f"{raw} AND h.insertion_timestamp >= '{last.watermark.isoformat()}'::timestamptz"
        raw = fresh if last.end >= today else f"{fresh} UNION ALL {raw} AND h.timestamp >= {midnight(last.end)}"
    connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE {TOUCHED} ON COMMIT DROP AS SELECT pool_id, (min(timestamp) AT TIME ZONE 'UTC')::date AS first_day, "
        f"(max(timestamp) AT TIME ZONE 'UTC')::date AS newest_day FROM ({raw}) AS raw GROUP BY pool_id"
    )


def newest_touched_day(connection: Connection) -> date | None:
    return connection.exec_driver_sql(f"SELECT max(newest_day) FROM {TOUCHED}").scalar_one()  # type: ignore[no-any-return]


ALL_POOLS = f"SELECT pool_id, first_day AS write_from, 'full refresh' AS reason FROM {TOUCHED}"

INTERVAL = f"""
    SELECT pool_id, greatest(first_day, CAST(:start AS date)) AS write_from, 'backfill' AS reason FROM {TOUCHED}
    UNION ALL
    SELECT pool_id, last_day + 1, 'days missing before the interval' FROM calendars WHERE last_day + 1 < CAST(:start AS date)
"""
"""The second part keeps a calendar free of holes: what comes after a pool's last day is how the next incremental run knows what it lacks."""

CHANGES = f"""
    SELECT t.pool_id, least(t.first_day, c.last_day + 1) AS write_from, 'new raw rows' AS reason
    FROM {TOUCHED} AS t LEFT JOIN calendars AS c ON c.pool_id = t.pool_id
    UNION ALL
    SELECT pool_id, last_day + 1, 'new days' FROM calendars WHERE alive
    UNION ALL
    SELECT pool_id, CAST(:market_from AS date), 'prices or gas changed' FROM calendars WHERE last_day >= CAST(:market_from AS date)
    UNION ALL
    SELECT pool_id, last_observed_day + 1, 'no longer active' FROM calendars WHERE NOT alive AND last_day > last_observed_day
"""
"""Why a pool must be recomputed, and from which day on. A new snapshot fills the days since the last one too.
A calendar that goes on after the pool's last observation is that of a pool that was alive then."""


def make_plan_table(
    connection: Connection,
    table: str,
    reasons: str,
    *,
    start: date | None,
    end: date,
    run_end: date,
    market_from: date | None,
    look_back: int,
    checks: Sequence[RowCheck],
) -> None:
    """Make `table`: pool_id, reasons, alive, write_from, write_end, read_from and read_end (midnights UTC), known_from, open_end.

    `reasons` is ALL_POOLS, INTERVAL or CHANGES. A pool that is not alive is read to the run's end: only its last snapshot ends its calendar.
    known_from is set for a pool that has an accepted row before read_from: its calendar begins before what is read.
    """
    connection.execute(
        text(f"""
    CREATE UNLOGGED TABLE {table} AS WITH calendars AS (
        SELECT c.*, p.is_active IS NOT FALSE AS alive FROM {CALENDARS} AS c LEFT JOIN {POOLS} AS p ON p.pool_id = c.pool_id
    ),
    starts AS (
        SELECT pool_id, min(write_from) AS write_from, array_agg(DISTINCT reason ORDER BY reason) AS reasons
        FROM ({reasons}) AS found WHERE write_from < CAST(:end AS date) GROUP BY pool_id
    ),
    ranges AS (
        SELECT starts.*, p.is_active IS NOT FALSE AS alive, greatest(write_from - CAST(:look_back AS integer), CAST(:earliest AS date)) AS read_day
        FROM starts LEFT JOIN {POOLS} AS p ON p.pool_id = starts.pool_id
    ),
    bounds AS (
        SELECT ranges.*, read_day::timestamp AT TIME ZONE 'UTC' AS read_from,
            (CASE WHEN alive THEN CAST(:end AS date) ELSE CAST(:run_end AS date) END)::timestamp AT TIME ZONE 'UTC' AS read_end
        FROM ranges
    )
    SELECT pool_id, reasons, alive, write_from, CAST(:end AS date) AS write_end, read_from, read_end,
        CASE WHEN {accepted_before("bounds.read_from", "bounds.pool_id", checks)} THEN read_day END AS known_from,
        CASE WHEN alive THEN CAST(:end AS date) END AS open_end
    FROM bounds"""),
        {"start": start, "end": end, "run_end": run_end, "market_from": market_from, "look_back": look_back, "earliest": EARLIEST_DAY},
    )
    connection.exec_driver_sql(f"ANALYZE {table}")


def plan_facts(connection: Connection, table: str, impossible: str | None) -> dict[str, Any]:
    """pools, days (upper bound of the rows to write), start, rows_to_read, reasons (pools by reason)."""
    facts = dict(
        connection.exec_driver_sql(
            f"SELECT count(*) AS pools, min(write_from) AS start, coalesce(sum(write_end - write_from), 0) AS days FROM {table}"
        )
        .mappings()
        .one()
    )
    rows = connection.exec_driver_sql(f"SELECT count(*) FROM {planned_rows(table)}").scalar_one()
    if impossible is not None:
        rows += connection.exec_driver_sql(f"SELECT count(*) FROM {TABLE} AS h WHERE {impossible}").scalar_one()
    reasons = connection.exec_driver_sql(f"SELECT unnest(reasons) AS reason, count(*) AS pools FROM {table} GROUP BY 1 ORDER BY 1")
    return facts | {"days": int(facts["days"]), "rows_to_read": rows, "reasons": {row.reason: row.pools for row in reasons}}


def rows_to_quarantine(connection: Connection, table: str, impossible: str | None, checks: Sequence[RowCheck]) -> int:
    """How many of the rows to read fail a check, counted by PostgreSQL."""
    rows = judged(rows_to_read(table, impossible), others=("id", "timestamp"), texts=("apy", "tvl"), checks=checks)
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM ({rows}) AS judged WHERE reason IS NOT NULL").scalar_one())
