"""Finds the pools that a run must look at, and from which day on: those with new raw rows, or all.

Reads raw history, quarantine and stored days inside the caller's transaction; creates a temporary
table with a row for each pool. Days are UTC.
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
    STORED_DAY_COLUMNS,
    TABLE,
    lacks_its_pool,
    midnight,
    moment,
    validated_rows,
)
from data_processing.raw.observed_days import OBSERVED, snapshot_identity
from data_processing.raw.pool_coverage import COVERAGE
from data_processing.raw.quarantine_table import QUARANTINE, RAW_ROW
from database.schema.merge_sql import qualified
from database.schema.owner_tables import pools

CHANGED_POOLS = "changed_pools"
"""Temporary table of the plan's transaction."""

REWRITTEN_SOURCE = "the source rewrites its history every run: every pool is recomputed"


def is_rewritten(connection: Connection, last: LastRun) -> bool:
    """Return whether every raw row was inserted since the last good run planned.

    A first load does not count, and a row without an insertion timestamp is no evidence.

    Args:
        connection: the plan's transaction.
        last: the last good run.
    """
    # the scan stops at the first row that is older
    query = f"""
    SELECT EXISTS (SELECT FROM {TABLE})
        AND EXISTS (SELECT FROM {COVERAGE})
        AND NOT EXISTS (
            SELECT FROM {TABLE} AS h
            WHERE (h.insertion_timestamp >= {moment(last.watermark)}) IS NOT TRUE
        )"""
    return bool(connection.exec_driver_sql(query).scalar_one())


_QUARANTINED = f"""
    FROM {QUARANTINE} AS q
    JOIN {TABLE} AS h ON h.pool_id = q.pool_id
        AND h.timestamp = q.timestamp
        AND {snapshot_identity("h")}::text = q.source_id
    WHERE {RAW_ROW}"""
"""Quarantined rows as `q`, joined to the raw rows that exist for them as `h`."""


def create_changed_pools(
    connection: Connection,
    last: LastRun | None,
    request: Request,
    *,
    before: date,
    now: datetime,
    checks: Sequence[RowCheck],
) -> None:
    """Create the temporary table `changed_pools`.

    Columns: pool_id; first_day and newest_day of the snapshots to look at, of days before `before`;
    unused_since, when the first raw row of a later day was inserted.

    Args:
        connection: the plan's transaction.
        last: the last good run; None looks at all raw rows and stored days, except the stored days
            that the request removes because their raw rows are missing.
        request: pools and days.
        before: end of the days that may be used, exclusive.
        now: clock of the run, UTC; a later raw row is in the future.
        checks: row checks, for stored days.
    """
    if last is None:
        snapshots = f"""
    {_COLUMNS} FROM {TABLE} AS h
    WHERE {_possible(now)}
    UNION ALL
    SELECT s.pool_id, s.timestamp, NULL::timestamptz
    FROM {OBSERVED} AS s
    WHERE {_usable_stored_days(request)}"""
    else:
        snapshots = "\n    UNION ALL".join(_changes_since(last, now, checks))
    complete = f"FILTER (WHERE timestamp < {midnight(before)})"
    connection.exec_driver_sql(f"""
    CREATE TEMPORARY TABLE {CHANGED_POOLS} ON COMMIT DROP AS
    SELECT pool_id,
        (min(timestamp) {complete} AT TIME ZONE 'UTC')::date AS first_day,
        (max(timestamp) {complete} AT TIME ZONE 'UTC')::date AS newest_day,
        min(insertion_timestamp) FILTER (WHERE timestamp >= {midnight(before)}) AS unused_since
    FROM ({snapshots}) AS raw
    GROUP BY pool_id""")


_COLUMNS = "SELECT h.pool_id, h.timestamp, h.insertion_timestamp"


def _possible(now: datetime) -> str:
    return f"""h.timestamp >= {midnight(EARLIEST_DAY)}
        AND h.timestamp <= {moment(now)}
        AND h.pool_id IS NOT NULL"""


def _changes_since(last: LastRun, now: datetime, checks: Sequence[RowCheck]) -> list[str]:
    """Return SELECTs of the snapshots that may change a metric since the last good run."""
    possible = _possible(now)
    later = f"""h.timestamp >= {midnight(last.end)}
        AND h.insertion_timestamp < {moment(last.new_from)}"""
    # such a row may be in use: a partial run took it in, or the last run while it was dropped
    dropped = f"q.resolution = 'dropped' AND q.resolved_at >= {moment(last.new_from)}"
    selects = [
        # two ranges of an index; a row without an insertion timestamp may always be new
        f"""
    {_COLUMNS} FROM {TABLE} AS h
    WHERE {possible}
        AND (h.insertion_timestamp >= {moment(last.new_from)} OR h.insertion_timestamp IS NULL)"""
    ]
    if last.unused_since is not None:
        # days that were not over when the last run planned
        selects.append(f"""
    {_COLUMNS} FROM {TABLE} AS h
    WHERE {possible}
        AND {later}
        AND h.insertion_timestamp >= {moment(last.unused_since)}""")
    return [
        *selects,
        # quarantined because the timestamp was in the future
        f"""
    {_COLUMNS} {_QUARANTINED}
        AND q.reason = '{IN_FUTURE}'
        AND {possible}
        AND {later}""",
        # quarantined because `pools` lacked the pool, which it has now
        f"""
    {_COLUMNS} {_QUARANTINED}
        AND q.reason = '{NOT_IN_POOLS}'
        AND q.resolution IS NULL
        AND {possible}
        AND NOT {lacks_its_pool("h.pool_id")}""",
        f"""
    {_COLUMNS} {_QUARANTINED}
        AND {dropped}
        AND {possible}""",
        f"""
    SELECT s.pool_id, s.timestamp, NULL::timestamptz
    FROM {QUARANTINE} AS q
    JOIN {OBSERVED} AS s ON s.pool_id = q.pool_id
        AND s.snapshot::text = q.source_id
    WHERE {RAW_ROW}
        AND {dropped}""",
        _stored_without_coverage(checks),
    ]


def _stored_without_coverage(checks: Sequence[RowCheck]) -> str:
    """Return a SELECT of accepted stored days of pools without coverage."""
    # `pools` lacked these pools when a run wrote a table with a foreign key, and their raw rows may
    # be gone
    days = f"""
        SELECT {STORED_DAY_COLUMNS}
        FROM {qualified(pools)} AS k
        JOIN {OBSERVED} AS s ON s.pool_id = k.pool_id
        WHERE s.snapshot IS NOT NULL
            AND NOT EXISTS (
                SELECT FROM {COVERAGE} AS c
                WHERE c.pool_id = k.pool_id
            )"""
    return f"""
    SELECT pool_id, timestamp, NULL::timestamptz
    FROM ({validated_rows(days, checks, also=("pool_id",))}) AS s
    WHERE reason IS NULL"""


def _usable_stored_days(request: Request) -> str:
    """Return a condition for stored days that count, with or without raw rows."""
    # a day that was adopted from another job's rows before the pool's coverage serves windows and
    # never starts the coverage
    usable = f"""(s.snapshot IS NOT NULL OR EXISTS (
            SELECT FROM {COVERAGE} AS c
            WHERE c.pool_id = s.pool_id
                AND c.first_day <= s.date
        ))"""
    if not request.retire_missing:
        return usable
    if request.start is None:
        return "false"
    return f"{usable} AND NOT (s.date >= '{request.start}' AND s.date < '{request.end}')"


@dataclass(frozen=True)
class ChangedRange:
    """Newest changed day of all pools.

    Attributes:
        newest_day: newest complete day with a changed row; None without one.
        unused_since: when the first row of a later day was inserted; None without one.
    """

    newest_day: date | None
    unused_since: datetime | None


def changed_range(connection: Connection) -> ChangedRange:
    """Return the newest changed day of all pools, from the table CHANGED_POOLS."""
    return ChangedRange(
        *connection.exec_driver_sql(
            f"SELECT max(newest_day), min(unused_since) FROM {CHANGED_POOLS}"
        ).one()
    )
