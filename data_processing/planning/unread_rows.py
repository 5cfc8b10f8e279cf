"""Detects raw rows that no run reads, because their `insertion_timestamp` is older than the last
run's watermark, as after a restore, a copy or replication.

Compares raw history with `yieldspark.raw_day_counts`, the number of snapshots of each UTC day that
earlier runs knew, and writes the counts after a run. Only numbers are compared: a deleted row hides
one unread row of its day. Rows that existed before the first count are taken as read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection, delete, select, text
from sqlalchemy.dialects.postgresql import insert

from data_processing.checks.row_checks import EARLIEST_DAY
from data_processing.planning.last_run import (
    LastRun,
    find_new_rows,
    last_good_run,
    read_arrivals,
    read_clock,
)
from data_processing.raw.history import TABLE, midnight, moment
from database.schema.merge_sql import qualified
from database.schema.own_tables import raw_day_counts

LISTED_DAYS = 5


@dataclass(frozen=True)
class DayCount:
    """Snapshots of a UTC day.

    Attributes:
        date: the day.
        present: snapshots in raw history.
        arrived: snapshots that are new to the next run.
        counted: snapshots that earlier runs knew; None if no run has counted the day.
    """

    date: date
    present: int
    arrived: int
    counted: int | None

    @property
    def unread(self) -> int:
        """Smallest number of snapshots that no run has read or will read."""
        return max(0, self.present - self.arrived - (self.counted or 0))


@dataclass(frozen=True)
class ReadWindow:
    """Days that a run reads completely, so that no snapshot of them stays unread.

    Attributes:
        start: first day; None if there is none.
        end: end of the days, exclusive.
        last_end: end of the stored metrics, exclusive.
        reach: days that a snapshot can change. A day whose changes reach beyond `end`, while
            metrics extend to `last_end`, is not read completely.
    """

    start: date | None
    end: date
    last_end: date
    reach: int

    def includes(self, day: date) -> bool:
        """Return whether the run reads the day completely."""
        if self.start is None or not self.start <= day < self.end:
            return False
        return min(day + timedelta(days=self.reach), self.last_end) <= self.end


def count_days(connection: Connection, last: LastRun | None, *, end: date) -> list[DayCount]:
    """Count the snapshots of every day that has some.

    Args:
        connection: the plan's transaction.
        last: the last good run; None counts all rows as new.
        end: end of the days, exclusive, or the last run's end if it is later.

    Returns:
        One count for each day, ordered by day.
    """
    before = max(end, last.end) if last else end
    possible = f"timestamp >= {midnight(EARLIEST_DAY)} AND timestamp < {midnight(before)}"
    day = "(timestamp AT TIME ZONE 'UTC')::date AS date"
    is_new = "true"
    if last:
        new_from = moment(last.new_from)
        is_new = f"(insertion_timestamp >= {new_from} OR insertion_timestamp IS NULL)"
    # `present` is an index-only scan of (pool_id, timestamp) if the table is vacuumed
    rows = connection.execute(
        text(f"""
    WITH present AS (
        SELECT {day}, count(*) AS snapshots
        FROM {TABLE}
        WHERE {possible}
        GROUP BY 1
    ),
    arrived AS (
        SELECT {day}, count(*) AS snapshots
        FROM {TABLE}
        WHERE {possible}
            AND {is_new}
        GROUP BY 1
    )
    SELECT p.date, p.snapshots, coalesce(a.snapshots, 0), k.snapshots
    FROM present AS p
    LEFT JOIN arrived AS a ON a.date = p.date
    LEFT JOIN {qualified(raw_day_counts)} AS k ON k.date = p.date
    ORDER BY p.date""")
    )
    return [DayCount(*row) for row in rows]


def unread_days(
    counts: Sequence[DayCount], last: LastRun | None, window: ReadWindow
) -> list[DayCount]:
    """Return the days with snapshots that stay unread after a run.

    Args:
        counts: counts before the run.
        last: the last good run. Days after its end are read when their turn comes.
        window: days that the run reads completely.
    """
    if last is None or not _were_counted(counts):
        return []
    return [
        day
        for day in counts
        if day.unread and day.date < last.end and not window.includes(day.date)
    ]


def _were_counted(counts: Sequence[DayCount]) -> bool:
    return any(day.counted is not None for day in counts)


def day_counts_after(
    counts: Sequence[DayCount], last: LastRun | None, window: ReadWindow, *, is_partial: bool
) -> dict[date, int]:
    """Return how many snapshots of each day the runs know once this one is committed.

    Args:
        counts: counts before the run.
        last: the last good run.
        window: days that the run reads completely.
        is_partial: whether the run leaves out days or pools. It then returns only the days that it
            reads completely.
    """
    if is_partial:
        return {day.date: day.present for day in counts if window.includes(day.date)}
    is_first = last is None or not _were_counted(counts)
    after: dict[date, int] = {}
    for day in counts:
        if is_first or window.includes(day.date) or (last and day.date >= last.end):
            after[day.date] = day.present
        else:
            # a row that two runs read may count twice; the limit keeps rows that were read from
            # being reported as unread
            after[day.date] = min((day.counted or 0) + day.arrived, day.present)
    return after


def store_day_counts(
    connection: Connection, day_counts: Mapping[date, int] | None, *, is_partial: bool
) -> None:
    """Store the day counts inside the run's commit.

    Args:
        connection: the run's transaction.
        day_counts: snapshots by UTC day; None deletes all counts, so that the next run that can
            count starts again and does not report this run's rows as unread.
        is_partial: keep the days that are not in day_counts; otherwise they have no snapshot.
    """
    if day_counts is None:
        connection.execute(delete(raw_day_counts))
        return
    columns = raw_day_counts.c
    rows = connection.execute(select(columns.date, columns.snapshots))
    stored = {row.date: row.snapshots for row in rows}
    target = day_counts if is_partial else {**dict.fromkeys(stored, 0), **day_counts}
    changed = [
        {"date": day, "snapshots": snapshots}
        for day, snapshots in target.items()
        if stored.get(day) != snapshots
    ]
    if changed:
        new = insert(raw_day_counts)
        upsert = new.on_conflict_do_update(
            index_elements=["date"], set_={"snapshots": new.excluded.snapshots}
        )
        connection.execute(upsert, changed)


def unread_message(days: Sequence[DayCount], window: ReadWindow) -> str:
    """Return a warning with days, counts and the command that reads the rows.

    Args:
        days: days with unread snapshots, at least one, ordered by day.
        window: days that the run reads completely.
    """
    listed = ", ".join(f"{day.date}: {day.unread:,}" for day in days[:LISTED_DAYS])
    if len(days) > LISTED_DAYS:
        listed += f" and {len(days) - LISTED_DAYS:,} more days up to {days[-1].date}"
    rows = sum(day.unread for day in days)
    # up to the last stored day that the rows can change
    end = min(days[-1].date + timedelta(days=window.reach), window.last_end)
    return (
        f"{rows:,} raw rows of {len(days):,} days ({listed}) were read by no run: they came with"
        " an insertion_timestamp older than the last run (a restore, a copy, replication). Read"
        f" them: `calculate_metrics --start {days[0].date} --end {end}`, or `--full-refresh`"
    )


def find_unread_rows(connection: Connection, job: str, reach: int) -> tuple[int, str | None]:
    """Look for raw rows that the next run of the job will not read. Writes nothing.

    Args:
        connection: reads raw history and the run ledger.
        job: name of the metrics job.
        reach: days that a snapshot can change.

    Returns:
        How many days raw history has, and the warning, None without unread rows.
    """
    last = last_good_run(connection, job)
    if last is None:
        return 0, None
    now = datetime.now(UTC)
    arrivals = read_arrivals(connection, last, watermark=last.watermark, now=now, machine_clock=now)
    last = replace(last, new_from=find_new_rows(last, arrivals, read_clock(connection))[0])
    counts = count_days(connection, last, end=last.end)
    # without a planned run, no day is read completely
    empty = ReadWindow(None, last.end, last.end, reach)
    days = unread_days(counts, last, empty)
    return len(counts), unread_message(days, empty) if days else None
