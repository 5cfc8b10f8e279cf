"""Which pools a run must look at, and from which day on: those with raw rows that are new since the
last good run, or all.

In: raw history, quarantine and stored days, read inside the caller's transaction. Out: a temporary
table with a row for each pool, and whether the source has rewritten everything. Days are UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection

from data_processing.checks.row_checks import EARLIEST_DAY, IN_FUTURE, NOT_IN_POOLS, RowCheck
from data_processing.planning.last_run import LastRun
from data_processing.planning.run_request import Request
from data_processing.raw.history import (
    STORED_TEXTS,
    TABLE,
    judged_rows,
    lacks_its_pool,
    midnight,
    moment,
)
from data_processing.raw.observed_days import OBSERVED, snapshot_identity
from data_processing.raw.pool_coverage import CALENDARS
from data_processing.raw.quarantine_table import QUARANTINE, RAW_ROW
from database.schema.merge_sql import qualified
from database.schema.tables import pools

TOUCHED = "touched_pools"
"""Temporary table of a plan's transaction."""

REWRITTEN = "the source rewrites its history every run: every pool is recomputed"


def is_rewritten(connection: Connection, last: LastRun) -> bool:
    """Whether every raw row was inserted since the last good run planned. A row that does not say
    when it came proves nothing, and neither does a first load. The look at the table ends with the
    first row that is older.
    """
    found = connection.exec_driver_sql(
        f"SELECT EXISTS (SELECT FROM {TABLE}) AND EXISTS (SELECT FROM {CALENDARS}) AND NOT EXISTS"
        f" (SELECT FROM {TABLE} AS h WHERE (h.insertion_timestamp >= {moment(last.watermark)}) IS"
        " NOT TRUE)"
    )
    return bool(found.scalar_one())


_QUARANTINED = (
    f"{QUARANTINE} AS q JOIN {TABLE} AS h ON h.pool_id = q.pool_id AND h.timestamp = q.timestamp"
    f" AND {snapshot_identity('h')}::text = q.source_id WHERE {RAW_ROW}"
)
"""FROM clause: quarantined rows as `q` beside the raw rows there are of them now as `h`."""


def find_touched_pools(
    connection: Connection,
    last: LastRun | None,
    request: Request,
    *,
    before: date,
    now: datetime,
    checks: Sequence[RowCheck],
) -> None:
    """Make the temporary table `touched_pools`: pool_id, first_day and newest_day of the snapshots
    of days before `before` that a run must look at, and unused_since, when the first raw row of a
    later day was inserted.

    After a good run only rows inserted since its `new_from` count, those that it knew and could not
    use yet, those that it set aside because they were not to be yet or because `pools` lacked their
    pool, those that were dropped since, and good stored days of pools that came into `pools` after
    their raw rows went; else all of them, and stored days, but for those that the request retires
    where raw rows are missing.
    """
    columns = "SELECT h.pool_id, h.timestamp, h.insertion_timestamp"
    possible = f"h.timestamp >= {midnight(EARLIEST_DAY)} AND h.timestamp <= {moment(now)}"
    possible += " AND h.pool_id IS NOT NULL"
    raw = f"{columns} FROM {TABLE} AS h WHERE {possible}"
    stored = "SELECT s.pool_id, s.timestamp, NULL::timestamptz FROM"
    if last is None:
        raw = f"{raw} UNION ALL {stored} {OBSERVED} AS s WHERE {_kept(request)}"
    else:
        # both halves are ranges of an index; a row that does not say when it came may always be new
        parts = [
            f"{raw} AND (h.insertion_timestamp >= {moment(last.new_from)} OR h.insertion_timestamp"
            " IS NULL)"
        ]
        later = (
            f"h.timestamp >= {midnight(last.end)} AND h.insertion_timestamp <"
            f" {moment(last.new_from)}"
        )
        if last.unused_since is not None:
            parts.append(
                f"{raw} AND {later} AND h.insertion_timestamp >= {moment(last.unused_since)}"
            )
        parts.append(
            f"{columns} FROM {_QUARANTINED} AND q.reason = '{IN_FUTURE}' AND {possible} AND {later}"
        )
        parts.append(
            f"{columns} FROM {_QUARANTINED} AND q.reason = '{NOT_IN_POOLS}' AND q.resolution IS"
            f" NULL AND {possible} AND NOT {lacks_its_pool('h.pool_id')}"
        )
        # such a row may be in use: a partial run took it in, or the last run while it was dropped
        dropped = f"q.resolution = 'dropped' AND q.resolved_at >= {moment(last.new_from)}"
        parts.append(f"{columns} FROM {_QUARANTINED} AND {dropped} AND {possible}")
        parts.append(
            f"{stored} {QUARANTINE} AS q JOIN {OBSERVED} AS s ON s.pool_id = q.pool_id AND"
            f" s.snapshot::text = q.source_id WHERE {RAW_ROW} AND {dropped}"
        )
        parts.append(_stored_without_calendar(checks))
        raw = " UNION ALL ".join(parts)
    complete = f"FILTER (WHERE timestamp < {midnight(before)})"
    connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE {TOUCHED} ON COMMIT DROP AS SELECT pool_id, (min(timestamp)"
        f" {complete} AT TIME ZONE 'UTC')::date AS first_day, (max(timestamp) {complete} AT TIME"
        " ZONE 'UTC')::date AS newest_day, min(insertion_timestamp) FILTER (WHERE timestamp >="
        f" {midnight(before)}) AS unused_since FROM ({raw}) AS raw GROUP BY pool_id"
    )


def _stored_without_calendar(checks: Sequence[RowCheck]) -> str:
    """SELECT of stored days of pools that have no calendar: `pools` lacked them when a run wrote a
    table with a foreign key, and their raw rows may be gone.
    """
    days = (
        f"SELECT {STORED_TEXTS} FROM {qualified(pools)} AS k JOIN {OBSERVED} AS s ON s.pool_id ="
        f" k.pool_id WHERE s.snapshot IS NOT NULL AND NOT EXISTS (SELECT FROM {CALENDARS} AS c"
        " WHERE c.pool_id = k.pool_id)"
    )
    good = judged_rows(days, checks, also=("pool_id",))
    return f"SELECT pool_id, timestamp, NULL::timestamptz FROM ({good}) AS s WHERE reason IS NULL"


def _kept(request: Request) -> str:
    """Condition for stored days that count, whether raw rows are there or not. What was adopted
    from rows of another job and is before the pool's calendar is looked back at, and never begins
    it.
    """
    counts = (
        f"(s.snapshot IS NOT NULL OR EXISTS (SELECT FROM {CALENDARS} AS c WHERE c.pool_id ="
        " s.pool_id AND c.first_day <= s.date))"
    )
    if not request.retire_missing:
        return counts
    if request.start is None:
        return "false"
    return f"{counts} AND NOT (s.date >= '{request.start}' AND s.date < '{request.end}')"


@dataclass(frozen=True)
class TouchedBounds:
    """The newest complete day with a touched row, and when the first row of a later day was
    inserted.
    """

    newest_day: date | None
    unused_since: datetime | None


def touched_bounds(connection: Connection) -> TouchedBounds:
    return TouchedBounds(
        *connection.exec_driver_sql(
            f"SELECT max(newest_day), min(unused_since) FROM {TOUCHED}"
        ).one()
    )
