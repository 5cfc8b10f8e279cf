"""Reads the last good run and decides from which insertion timestamp on raw rows are new.

Reads the run ledger, raw history and quarantine inside the caller's transaction, and compares the
clocks of the server and of this machine (UTC). Does not write. Raw rows without an insertion
timestamp are new to every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, text

from data_processing.raw.history import TABLE, moment
from data_processing.raw.quarantine_table import QUARANTINE, RAW_ROW
from database.schema.own_tables import GOOD, run_ledger

OVERLAP = timedelta(minutes=10)
"""How far before its watermark a run looks for new rows. After a failover the new server's clock
may lag that much.
"""

ANY_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Used if an older version did not record the insertion of its first unused row."""


@dataclass(frozen=True)
class ArrivalDigests:
    """Digests of the newest arrivals: raw rows by insertion timestamp, dropped rows by decision
    time.

    Attributes:
        machine_clock: this machine's clock when the run planned, UTC.
        overlap: digest of the arrivals in [watermark - OVERLAP, watermark).
        later: digest of the arrivals from the watermark on; None if one of them has a timestamp in
            the future and may be used later.
        newest: time of the last arrival; None without one.
    """

    machine_clock: datetime
    overlap: str
    later: str | None
    newest: datetime | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values for the run ledger."""
        return {
            "machine_clock": self.machine_clock.isoformat(),
            "overlap": self.overlap,
            "later": self.later,
            "newest": self.newest.isoformat() if self.newest else None,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any] | None) -> ArrivalDigests | None:
        """Read the ledger's values; return None for a run of a version that did not record them."""
        if values is None:
            return None
        return cls(
            datetime.fromisoformat(values["machine_clock"]),
            values["overlap"],
            values["later"],
            datetime.fromisoformat(values["newest"]) if values["newest"] else None,
        )


@dataclass(frozen=True)
class LastRun:
    """The last run that left the tables complete.

    Every raw row that was inserted before `watermark` and belongs to a day before `end` is in them.

    Attributes:
        watermark: insertion timestamp at which the run stopped looking.
        end: day after the last complete day.
        unused_since: insertion of the first raw row whose day was not over; None without one.
        rules: rules of the stored values; None if a later partial run used others.
        new_from: rows inserted from here on are new. It is the watermark, later if all rows since
            then were seen, earlier if the server's clock went back.
        arrivals: digests of the newest arrivals; None for a run of an older version.
    """

    watermark: datetime
    end: date
    unused_since: datetime | None
    rules: Any
    new_from: datetime
    arrivals: ArrivalDigests | None


def last_good_run(connection: Connection, job: str) -> LastRun | None:
    """Return the newest complete run of all pools that succeeded or had nothing to do.

    Backfills do not count: they leave other days behind.

    Args:
        connection: reads the run ledger.
        job: name of the metrics job.
    """
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
            # a run of some pools leaves the others behind
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
    # a partial run since then may have stored values of other rules
    mixed = any(rules != row.plan["rules"] for rules in connection.execute(since).scalars())
    unused = row.plan.get("unused_since", ANY_TIME.isoformat())
    return LastRun(
        row.watermark,
        row.end,
        datetime.fromisoformat(unused) if unused else None,
        None if mixed else row.plan["rules"],
        new_from=row.watermark,
        arrivals=ArrivalDigests.from_json(row.plan.get("seen")),
    )


def read_clock(connection: Connection) -> datetime:
    """Return the server's clock."""
    clock: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return clock


@dataclass(frozen=True)
class Arrivals:
    """The newest arrivals as a plan reads them.

    Attributes:
        digests: for the next run.
        overlap: the last run's `overlap` digest computed again; None without a last run.
        later: the last run's `later` digest computed again; None without a last run.
    """

    digests: ArrivalDigests
    overlap: str | None
    later: str | None


def read_arrivals(
    connection: Connection,
    last: LastRun | None,
    *,
    watermark: datetime,
    now: datetime,
    machine_clock: datetime,
) -> Arrivals:
    """Count the rows that arrived since OVERLAP before the watermarks, in one scan.

    Args:
        connection: the plan's transaction.
        last: the last good run, if there is one.
        watermark: watermark of this plan.
        now: clock of the run, UTC; a later raw row is in the future.
        machine_clock: clock of this machine, UTC; the next run compares its progress with the
            server's.

    Returns:
        Digests for the next run, and the last run's digests computed again.
    """
    windows = {"own": watermark} | ({"last": last.watermark} if last else {})
    digests = ", ".join(
        f"{_digest(f'at >= {moment(at - OVERLAP)} AND at < {moment(at)}')} AS {name}_overlap,"
        f" {_digest(f'at >= {moment(at)}')} AS {name}_later"
        for name, at in windows.items()
    )
    since_watermark = f"FILTER (WHERE at >= {moment(watermark)})"
    row = connection.exec_driver_sql(f"""
    SELECT {digests},
        max(at) {since_watermark} AS newest,
        bool_or(in_future) {since_watermark} AS in_future
    FROM ({_arrivals(min(windows.values()) - OVERLAP, now)}) AS arrivals""").one()
    own_digests = ArrivalDigests(
        machine_clock,
        row.own_overlap,
        None if row.in_future else row.own_later,
        row.newest,
    )
    if last is None:
        return Arrivals(own_digests, None, None)
    return Arrivals(own_digests, row.last_overlap, row.last_later)


def _digest(condition: str) -> str:
    """Return an SQL expression: number and checksum of the arrivals in a window."""
    rows = f"FILTER (WHERE {condition})"
    return f"count(*) {rows} || ':' || coalesce(sum(hash) {rows}, 0)"


def _arrivals(earliest: datetime, now: datetime) -> str:
    # an infinite insertion timestamp is new to every run
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
    # with the moment, because ids start again after a TRUNCATE
    return f"hashint8extended({number}, extract(epoch FROM {at})::bigint)"


def find_new_rows(
    last: LastRun, arrivals: Arrivals, server_clock: datetime
) -> tuple[datetime, str | None]:
    """Return the insertion timestamp from which on rows are new, and a warning about clocks.

    The server's clock went back if it is behind the watermark, or if since the last run it has
    advanced less than this machine's clock by more than OVERLAP. Rows inserted since then may be as
    far before the watermark as the clock went back.

    Args:
        last: the last good run.
        arrivals: the newest arrivals.
        server_clock: the database server's clock.

    Returns:
        The timestamp (UTC), and a message if a clock went back, else None.
    """
    lag = timedelta(0)
    if last.arrivals:
        advanced = arrivals.digests.machine_clock - last.arrivals.machine_clock
        lag = max(lag, advanced - (server_clock - last.watermark))
    is_behind = server_clock < last.watermark
    if is_behind or lag > OVERLAP:
        new_from = last.watermark - lag - OVERLAP
        if is_behind:
            new_from = min(new_from, server_clock - OVERLAP)
        return new_from, _clock_warning(last, server_clock, new_from, lag)
    if last.arrivals is None:
        return last.watermark, None
    # rows came into the overlap after the last run had looked at it
    if arrivals.overlap != last.arrivals.overlap:
        return last.watermark - OVERLAP, None
    if last.arrivals.newest is None or arrivals.later != last.arrivals.later:
        return last.watermark, None
    # the last run saw all of them, so that only later rows are new
    return max(last.watermark, last.arrivals.newest + timedelta(microseconds=1)), None


def _clock_warning(
    last: LastRun, server_clock: datetime, new_from: datetime, lag: timedelta
) -> str:
    if server_clock < last.watermark:
        problem = (
            f"the database server's clock says {_format(server_clock)}, which is before the last"
            f" run's watermark {_format(last.watermark)}"
        )
    else:
        problem = (
            "since the last run the database server's clock has advanced"
            f" {lag.total_seconds():,.0f} s less than this machine's"
        )
    return (
        f"{problem}: raw rows inserted since {_format(new_from)} are read again. Check the clocks"
    )


def _format(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
