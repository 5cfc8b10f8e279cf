"""The last good run: what it left complete, and from which insertion timestamp on rows are new to
the next one.

In: the ledger, raw history and quarantine, read inside the caller's transaction; the clocks of the
server and of this machine (UTC). Out: `LastRun`, `SeenRows`, the moment and the warnings. Nothing
is written here. Raw rows without an insertion timestamp are not looked at: every run takes them for
new.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, text

from data_processing.raw.history import TABLE, moment
from data_processing.raw.quarantine_table import QUARANTINE, RAW_ROW
from database.schema.tables import GOOD, run_ledger

OVERLAP = timedelta(minutes=10)
"""How far before its watermark a run looks for new rows: the clock of a server that took over may
be that far behind its predecessor's.
"""

ANY_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""For a run of a version that did not note when its first unused row was inserted."""


@dataclass(frozen=True)
class SeenRows:
    """What a run has seen of the newest arrivals: raw rows by insertion timestamp and drops by the
    moment of the decision.

    `overlap` is the digest of those in [watermark - OVERLAP, watermark), `later` of those from the
    watermark on, None where one of them has a timestamp in the future and may be used later.
    `newest` is the last arrival. `machine_clock` is this machine's when the run planned.
    """

    machine_clock: datetime
    overlap: str
    later: str | None
    newest: datetime | None

    def public(self) -> dict[str, Any]:
        """What the ledger keeps, as plain JSON values."""
        return {
            "machine_clock": self.machine_clock.isoformat(),
            "overlap": self.overlap,
            "later": self.later,
            "newest": self.newest.isoformat() if self.newest else None,
        }

    @classmethod
    def of(cls, kept: dict[str, Any] | None) -> SeenRows | None:
        """From the ledger; None for a run of a version that did not note it."""
        if kept is None:
            return None
        return cls(
            datetime.fromisoformat(kept["machine_clock"]),
            kept["overlap"],
            kept["later"],
            datetime.fromisoformat(kept["newest"]) if kept["newest"] else None,
        )


@dataclass(frozen=True)
class LastRun:
    """The last run that left the tables complete: every raw row inserted before `watermark` and of
    a day before `end` is in them.

    `new_from` is the insertion timestamp from which on rows are new to the next run: the watermark,
    later where all rows since then were seen, earlier where the server's clock went back.
    `unused_since` is when the first row was inserted that it knew and could not use yet, its day
    not being over; None where there was none. `rules` is None where a partial run since then
    followed others: the tables mix both.
    """

    watermark: datetime
    end: date
    unused_since: datetime | None
    rules: Any
    new_from: datetime
    seen: SeenRows | None


def last_good_run(connection: Connection, job: str) -> LastRun | None:
    """The newest run of all pools, other than a backfill, that succeeded or found nothing to do."""
    ledger = run_ledger.c
    newest = (
        select(ledger.started_at, ledger.watermark, ledger.end, ledger.plan)
        .where(
            ledger.job == job,
            ledger.status.in_(GOOD),
            ledger.mode.in_(["incremental", "full_refresh"]),
        )
        .where(
            ledger.watermark.is_not(None),
            ledger.end.is_not(None),
            ledger.plan.is_not(None),
            text("plan #>> '{request,pools}' IS NULL"),
        )
        .order_by(ledger.started_at.desc())
    )
    row = connection.execute(newest.limit(1)).first()
    if row is None:
        return None
    since = select(ledger.plan["rules"]).where(
        ledger.job == job, ledger.status == "succeeded", ledger.started_at > row.started_at
    )
    mixed = any(rules != row.plan["rules"] for rules in connection.execute(since).scalars())
    unused = row.plan.get("unused_since", ANY_TIME.isoformat())
    return LastRun(
        row.watermark,
        row.end,
        datetime.fromisoformat(unused) if unused else None,
        None if mixed else row.plan["rules"],
        new_from=row.watermark,
        seen=SeenRows.of(row.plan.get("seen")),
    )


def read_clock(connection: Connection) -> datetime:
    """The server's clock."""
    clock: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return clock


@dataclass(frozen=True)
class Arrivals:
    """What a plan finds of the newest arrivals.

    `seen` is for the next run. `overlap` and `later` are the digests that the last run's would be
    now, None without a last run.
    """

    seen: SeenRows
    overlap: str | None
    later: str | None


def read_arrivals(
    connection: Connection, last: LastRun | None, *, watermark: datetime, now: datetime
) -> Arrivals:
    """Count the rows that arrived since OVERLAP before the watermarks, in one scan.

    Args: watermark is the plan's own, now the run's clock: a raw row with a later timestamp is
    in the future.
    """
    windows = {"own": watermark} | ({"last": last.watermark} if last else {})
    digests = ", ".join(
        f"{_digest(f'at >= {moment(at - OVERLAP)} AND at < {moment(at)}')} AS {name}_overlap,"
        f" {_digest(f'at >= {moment(at)}')} AS {name}_later"
        for name, at in windows.items()
    )
    own = f"FILTER (WHERE at >= {moment(watermark)})"
    found = connection.exec_driver_sql(f"""
    SELECT {digests}, max(at) {own} AS newest, bool_or(in_future) {own} AS in_future
    FROM ({_arrivals(min(windows.values()) - OVERLAP, now)}) AS arrivals""").one()
    seen = SeenRows(
        datetime.now(UTC),
        found.own_overlap,
        None if found.in_future else found.own_later,
        found.newest,
    )
    return Arrivals(seen, found.last_overlap if last else None, found.last_later if last else None)


def _digest(condition: str) -> str:
    """SQL: number and checksum of the arrivals in a window."""
    these = f"FILTER (WHERE {condition})"
    return f"count(*) {these} || ':' || coalesce(sum(hash) {these}, 0)"


def _arrivals(earliest: datetime, now: datetime) -> str:
    """SELECT of at, hash and in_future. An infinite insertion timestamp is new to every run."""
    return f"""
        SELECT h.insertion_timestamp AS at,
            {_hash("coalesce(h.id::bigint, 0)", "h.insertion_timestamp")} AS hash,
            h.timestamp > {moment(now)} AS in_future
        FROM {TABLE} AS h
        WHERE h.insertion_timestamp >= {moment(earliest)}
            AND h.insertion_timestamp < 'infinity'
        UNION ALL
        SELECT q.resolved_at, {_hash("q.source_id::bigint", "q.resolved_at")}, false
        FROM {QUARANTINE} AS q
        WHERE {RAW_ROW}
            AND q.resolution = 'dropped'
            AND q.resolved_at >= {moment(earliest)}
            AND q.resolved_at < 'infinity'"""


def _hash(number: str, at: str) -> str:
    """SQL: 64 bits of an id and a moment; an id may come again after a TRUNCATE."""
    return f"hashint8extended({number}, extract(epoch FROM {at})::bigint)"


def find_new_rows(
    last: LastRun, arrivals: Arrivals, server_clock: datetime
) -> tuple[datetime, str | None]:
    """The insertion timestamp from which on rows are new, and a warning where a clock went back.

    The server's clock went back where it is behind the watermark, or where it has advanced less
    than this machine's since the last run, by more than OVERLAP. Rows inserted since then may be as
    far before the watermark as the clock went back.
    """
    lag = timedelta(0)
    if last.seen:
        advanced = arrivals.seen.machine_clock - last.seen.machine_clock
        lag = max(lag, advanced - (server_clock - last.watermark))
    behind = server_clock < last.watermark
    if behind or lag > OVERLAP:
        new_from = last.watermark - lag - OVERLAP
        if behind:
            new_from = min(new_from, server_clock - OVERLAP)
        return new_from, _clock_went_back(last, server_clock, new_from, lag)
    if last.seen is None:
        return last.watermark, None
    if arrivals.overlap != last.seen.overlap:
        return last.watermark - OVERLAP, None
    if last.seen.newest is None or arrivals.later != last.seen.later:
        return last.watermark, None
    return max(last.watermark, last.seen.newest + timedelta(microseconds=1)), None


def _clock_went_back(
    last: LastRun, server_clock: datetime, new_from: datetime, lag: timedelta
) -> str:
    found = (
        f"the database server's clock says {_shown(server_clock)}, which is before the last run's"
        f" watermark {_shown(last.watermark)}"
        if server_clock < last.watermark
        else "since the last run the database server's clock has advanced"
        f" {lag.total_seconds():,.0f} s less than this machine's"
    )
    return f"{found}: raw rows inserted since {_shown(new_from)} are read again. Check the clocks"


def _shown(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
