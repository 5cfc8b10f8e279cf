"""Raw rows that no run looks at: their `insertion_timestamp` is older than what the last run had
read, as after a restore, a copy or replication, so that they are not new.

In: raw history, the last good run, and `yieldspark.raw_day_counts`, the snapshots of each UTC day
that the runs before knew. Out: days with more snapshots than that, and the counts after a run.
Rows are compared by number: what is deleted is no news, and hides as many unread rows of its day.
Rows that were there before the first count are taken for known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection, delete, select, text
from sqlalchemy.dialects.postgresql import insert

from config_spark import Settings
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
from database.schema.tables import raw_day_counts

SHOWN_DAYS = 5


@dataclass(frozen=True)
class DayCount:
    """Snapshots of a UTC day: there are `present`, the runs before knew `known` (None: no run has
    counted the day), `arrived` are new to the next run.
    """

    date: date
    present: int
    arrived: int
    known: int | None

    @property
    def unread(self) -> int:
        """At least so many snapshots were read by no run, and will not be."""
        return max(0, self.present - self.arrived - (self.known or 0))


@dataclass(frozen=True)
class Reading:
    """Which days a run reads whole, so that none of their snapshots stays unread: [start, end) of
    all pools, less the days whose changes reach beyond `end`, where metrics go on to `last_end`.

    `start` None: none of them.
    """

    start: date | None
    end: date
    last_end: date
    reach: int

    def includes(self, day: date) -> bool:
        if self.start is None or not self.start <= day < self.end:
            return False
        return min(day + timedelta(days=self.reach), self.last_end) <= self.end


def count_days(connection: Connection, last: LastRun | None, *, end: date) -> list[DayCount]:
    """Every day before `end` that has snapshots, in order.

    Two aggregates: one over the whole table, by its index on (pool_id, timestamp) alone where that
    is vacuumed, and one over the rows that are new to the next run.
    """
    before = max(end, last.end) if last else end
    possible = f"timestamp >= {midnight(EARLIEST_DAY)} AND timestamp < {midnight(before)}"
    day = "(timestamp AT TIME ZONE 'UTC')::date AS date"
    is_new = (
        f"(insertion_timestamp >= {moment(last.new_from)} OR insertion_timestamp IS NULL)"
        if last
        else "true"
    )
    return [
        DayCount(*row)
        for row in connection.execute(
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
    ]


def unread_days(
    counts: Sequence[DayCount], last: LastRun | None, reading: Reading
) -> list[DayCount]:
    """The days with snapshots that stay unread after a run. Days that the last run did not reach
    are read as they come.
    """
    if last is None or not _were_counted(counts):
        return []
    return [
        one
        for one in counts
        if one.unread and one.date < last.end and not reading.includes(one.date)
    ]


def _were_counted(counts: Sequence[DayCount]) -> bool:
    return any(one.known is not None for one in counts)


def known_after(
    counts: Sequence[DayCount], last: LastRun | None, reading: Reading, *, is_partial: bool
) -> dict[date, int]:
    """What the runs know of each day once this one is committed; a partial run says it of the days
    that it reads whole.

    A row that two runs read may count twice, but never above what is there: no row is taken for
    unread that was read.
    """
    if is_partial:
        return {one.date: one.present for one in counts if reading.includes(one.date)}
    is_first = last is None or not _were_counted(counts)
    return {
        one.date: one.present
        if is_first or reading.includes(one.date) or (last and one.date >= last.end)
        else min((one.known or 0) + one.arrived, one.present)
        for one in counts
    }


def store_day_counts(
    connection: Connection, known: Mapping[date, int] | None, *, is_partial: bool
) -> None:
    """Inside the run's commit. A partial run leaves other days as they are; else a day that is not
    in `known` has no snapshot any more. None forgets all of them: the next run that can count
    begins anew, instead of taking this run's rows for unread.
    """
    if known is None:
        connection.execute(delete(raw_day_counts))
        return
    columns = raw_day_counts.c
    rows = connection.execute(select(columns.date, columns.snapshots))
    stored = {row.date: row.snapshots for row in rows}
    wanted = known if is_partial else {**dict.fromkeys(stored, 0), **known}
    changed = [
        {"date": day, "snapshots": snapshots}
        for day, snapshots in wanted.items()
        if stored.get(day) != snapshots
    ]
    if changed:
        new = insert(raw_day_counts)
        upsert = new.on_conflict_do_update(
            index_elements=["date"], set_={"snapshots": new.excluded.snapshots}
        )
        connection.execute(upsert, changed)


def unread_sentence(days: Sequence[DayCount], reading: Reading) -> str:
    """Days and counts, and the command that takes the rows in."""
    shown = ", ".join(f"{one.date}: {one.unread:,}" for one in days[:SHOWN_DAYS])
    if len(days) > SHOWN_DAYS:
        shown += f" and {len(days) - SHOWN_DAYS:,} more days up to {days[-1].date}"
    rows = sum(one.unread for one in days)
    end = min(days[-1].date + timedelta(days=reading.reach), reading.last_end)
    return (
        f"{rows:,} raw rows of {len(days):,} days ({shown}) were read by no run: they came with"
        " an insertion_timestamp older than the last run (a restore, a copy, replication). Take"
        f" them in: `calculate_metrics --start {days[0].date} --end {end}`, or `--full-refresh`"
    )


def find_unread_rows(
    connection: Connection, settings: Settings, job: str, reach: int
) -> tuple[int, str | None]:
    """How many days raw history has, and the sentence on rows that the next run of the job will
    not look at, None without any. Writes nothing.
    """
    last = last_good_run(connection, job)
    if last is None:
        return 0, None
    now = datetime.now(UTC)
    arrivals = read_arrivals(connection, last, watermark=last.watermark, now=now)
    last = replace(last, new_from=find_new_rows(last, arrivals, read_clock(connection))[0])
    counts = count_days(connection, last, end=last.end)
    nothing = Reading(None, last.end, last.end, reach)
    days = unread_days(counts, last, nothing)
    return len(counts), unread_sentence(days, nothing) if days else None
