"""What a caller asks of a metrics run: mode, days, pools; or what an earlier run that failed was
asked.

In: options, or a row of the ledger. Out: a frozen `Request`. Whether there is anything to do is the
plan's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine, select

from common.errors import ConfigurationError
from database.connections.engine import checked_connection
from database.ledger.runs import is_free
from database.schema.tables import run_ledger

Mode = Literal["incremental", "backfill", "full_refresh"]

LAST = "last"
"""In place of a run id: the newest run of the job."""

RETRIED = ("failed", "blocked", "cancelled")


@dataclass(frozen=True)
class Request:
    """What the caller asked for; `end` and `until` are exclusive.

    `pools` leaves all other pools alone. `until` is a retry's: days from it on are left to the next
    run, as the failed one would have, but for those that another run has written since.
    `retire_missing` takes away what raw rows no longer bear out, in the days and pools asked for,
    of which all are recomputed.
    Raises: ConfigurationError for an interval that is none.
    """

    full_refresh: bool = False
    start: date | None = None
    end: date | None = None
    pools: tuple[str, ...] | None = None
    until: date | None = None
    retire_missing: bool = False

    def __post_init__(self) -> None:
        if (self.start is None) != (self.end is None):
            raise ConfigurationError(
                "--start and --end go together: give both days, as YYYY-MM-DD, or neither"
            )
        if self.start and self.end and self.start >= self.end:
            raise ConfigurationError(
                f"--start {self.start} is not before --end {self.end}; the interval is half-open,"
                " [start, end)"
            )
        if self.start and self.full_refresh:
            raise ConfigurationError(
                "--full-refresh recomputes every day: leave out --start and --end, or leave out"
                " --full-refresh"
            )

    @property
    def mode(self) -> Mode:
        """The mode asked for; a plan may widen an incremental one."""
        if self.start:
            return "backfill"
        return "full_refresh" if self.full_refresh or self.retire_missing else "incremental"

    @property
    def is_partial(self) -> bool:
        """Some days or some pools."""
        return self.mode == "backfill" or self.pools is not None

    def public(self) -> dict[str, Any]:
        """What the ledger keeps, as plain JSON values."""
        days = {
            name: day.isoformat() if day else None
            for name, day in (("start", self.start), ("end", self.end), ("until", self.until))
        }
        return {
            "mode": self.mode,
            **days,
            "pools": list(self.pools) if self.pools is not None else None,
            "retire_missing": self.retire_missing,
        }


def pools_option(value: str | None) -> tuple[str, ...] | None:
    """Pool ids of `--pools`: a file with one a line (blank lines and what follows a # left out), or
    ids with commas between them.

    Raises: ConfigurationError where it names no pool or the file can't be read.
    """
    if value is None:
        return None
    try:
        texts = (
            [
                line.partition("#")[0]
                for line in Path(value).read_text(encoding="utf-8-sig").splitlines()
            ]
            if _is_file(value)
            else value.split(",")
        )
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"--pools {value} can't be read as a text file of pool ids: {error}"
        ) from error
    ids = tuple(dict.fromkeys(filter(None, (text.strip() for text in texts))))
    if not ids:
        raise ConfigurationError(
            f"--pools {value!r} names no pool: give a file with one pool id a line, or ids with"
            " commas between them"
        )
    return ids


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except OSError:  # a list of ids may be longer than a file's name can be
        return False


def request_of(
    *,
    full_refresh: bool = False,
    start: date | None = None,
    end: date | None = None,
    pools: str | Sequence[str] | None = None,
    retire_missing: bool = False,
) -> Request:
    """A request from options as a command line has them."""
    return Request(
        full_refresh,
        start,
        end,
        (
            pools_option(pools)
            if isinstance(pools, str)
            else tuple(pools)
            if pools is not None
            else None
        ),
        retire_missing=retire_missing,
    )


def request_of_run(engine: Engine, job: str, run_id: str) -> Request:
    """What the failed run `run_id` (or `last`) was asked, with the days it would have written. One
    whose driver is gone has failed, whatever it says.

    Raises: ConfigurationError for a run that is unknown or did not fail, naming what to do.
    """
    if not run_id.strip():
        raise ConfigurationError(
            f"--retry needs the id of a run, or {LAST}: it was given an empty one"
        )
    ledger = run_ledger.c
    rows = select(run_ledger).where(ledger.job == job).order_by(ledger.started_at.desc()).limit(1)
    with checked_connection(engine) as connection:
        row = (
            connection.execute(rows if run_id == LAST else rows.where(ledger.run_id == run_id))
            .mappings()
            .first()
        )
        killed = row is not None and row["status"] == "running" and is_free(connection, job)
    if row is None:
        raise ConfigurationError(
            f"--retry {run_id}: {job} has no such run; `status --json` names the last one, and"
            f" --retry {LAST} takes it"
        )
    if row["status"] not in RETRIED and not killed:
        raise ConfigurationError(
            f"--retry {run_id}: {row['run_id']} is {row['status']}; only a run that is"
            f" {', '.join(RETRIED)} can be retried"
        )
    asked = (row["plan"] or {}).get("request") or {"mode": row["mode"], "pools": None}
    pools = tuple(asked["pools"]) if asked["pools"] is not None else None
    retire_missing = asked.get("retire_missing", False)
    if asked["mode"] == "backfill":
        return Request(
            start=_day(asked.get("start")) or row["start"],
            end=_day(asked.get("end")) or row["end"],
            pools=pools,
            retire_missing=retire_missing,
        )
    until = _day(asked.get("until")) or row["end"] or row["started_at"].astimezone(UTC).date()
    return Request(
        full_refresh=asked["mode"] == "full_refresh",
        pools=pools,
        until=until,
        retire_missing=retire_missing,
    )


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None
