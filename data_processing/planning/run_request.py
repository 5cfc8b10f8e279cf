"""Defines the request of a metrics run: mode, days and pools.

Reads it from command-line options, or from the ledger row of a failed run. Does not decide whether
there is anything to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine, select

from common.errors import ConfigurationError
from data_processing.files.pool_ids import read_pool_ids, unique_ids
from database.connections.engine import checked_connection
from database.ledger.run_records import RunRecord
from database.ledger.runs import is_job_idle
from database.schema.own_tables import run_ledger

Mode = Literal["incremental", "backfill", "full_refresh"]

LAST = "last"
"""Replaces a run id: the newest run of the job."""

RETRYABLE = ("failed", "blocked", "cancelled")


@dataclass(frozen=True)
class Request:
    """What the caller requests of a run.

    Attributes:
        full_refresh: recompute every day.
        start: first day of a backfill, UTC.
        end: end of a backfill, exclusive.
        pools: recompute these pools only; None for all.
        until: set by a retry, exclusive. Days from it on are left to the next run, as the failed
            run would have left them, except those that another run has written since.
        retire_missing: remove metrics whose raw rows are gone, in the requested days and pools, all
            of which are recomputed.

    Raises:
        ConfigurationError: start and end are no interval, or contradict full_refresh.
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
        """Whether the run covers some days or some pools only."""
        return self.mode == "backfill" or self.pools is not None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values for the run ledger."""
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


def parse_pools(value: str | None) -> tuple[str, ...] | None:
    """Parse the option `--pools`: a file with one pool id a line, or ids separated by commas.

    Args:
        value: text of the option; None if it is not used.

    Returns:
        Each id once, in order; None for all pools.

    Raises:
        ConfigurationError: the value names no pool, or the file can't be read.
    """
    if value is None:
        return None
    try:
        ids = read_pool_ids(Path(value)) if _is_file(value) else unique_ids(value.split(","))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"--pools {value} can't be read as a text file of pool ids: {error}"
        ) from error
    if not ids:
        raise ConfigurationError(
            f"--pools {value!r} names no pool: give a file with one pool id a line, or ids with"
            " commas between them"
        )
    return tuple(ids)


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except OSError:  # a list of ids may be longer than a file name can be
        return False


def parse_request(
    *,
    full_refresh: bool = False,
    start: date | None = None,
    end: date | None = None,
    pools: str | Sequence[str] | None = None,
    retire_missing: bool = False,
) -> Request:
    """Build a request from the options of a command line.

    Args:
        full_refresh: recompute every day.
        start: first day to recompute, UTC.
        end: the day after the last one.
        pools: text of `--pools`, or pool ids; None for all.
        retire_missing: remove metrics whose raw rows are gone.

    Raises:
        ConfigurationError: options contradict each other, or pools can't be read.
    """
    if isinstance(pools, str):
        pools = parse_pools(pools)
    return Request(
        full_refresh,
        start,
        end,
        tuple(pools) if pools is not None else None,
        retire_missing=retire_missing,
    )


def request_from_run(engine: Engine, job: str, run_id: str) -> Request:
    """Return the request of a failed run, with the days that it would have written.

    Args:
        engine: database with the run ledger.
        job: name of the job.
        run_id: id of the run, or `last`.

    Raises:
        ConfigurationError: the run is unknown or did not fail; the message names the next step.
    """
    failed, was_killed = _find_run(engine, job, run_id)
    if failed.status not in RETRYABLE and not was_killed:
        raise ConfigurationError(
            f"--retry {run_id}: {failed.run_id} is {failed.status}; only a run that is"
            f" {', '.join(RETRYABLE)} can be retried"
        )
    request = (failed.plan or {}).get("request") or {"mode": failed.mode, "pools": None}
    pools = tuple(request["pools"]) if request["pools"] is not None else None
    retire_missing = request.get("retire_missing", False)
    if request["mode"] == "backfill":
        return Request(
            start=_day(request.get("start")) or failed.start,
            end=_day(request.get("end")) or failed.end,
            pools=pools,
            retire_missing=retire_missing,
        )
    # a run that failed before its plan has no end; it would have ended before that day
    started = failed.started_at.astimezone(UTC).date()
    return Request(
        full_refresh=request["mode"] == "full_refresh",
        pools=pools,
        until=_day(request.get("until")) or failed.end or started,
        retire_missing=retire_missing,
    )


def _find_run(engine: Engine, job: str, run_id: str) -> tuple[RunRecord, bool]:
    """Return the run, and whether its driver is gone although its status is `running`."""
    if not run_id.strip():
        raise ConfigurationError(
            f"--retry needs the id of a run, or {LAST}: it was given an empty one"
        )
    ledger = run_ledger.c
    rows = select(run_ledger).where(ledger.job == job).order_by(ledger.started_at.desc()).limit(1)
    if run_id != LAST:
        rows = rows.where(ledger.run_id == run_id)
    with checked_connection(engine) as connection:
        row = connection.execute(rows).mappings().first()
        # a running job holds its lock; without it the driver was killed
        was_killed = row is not None and row["status"] == "running" and is_job_idle(connection, job)
    if row is None:
        raise ConfigurationError(
            f"--retry {run_id}: {job} has no such run; `status --json` names the last one, and"
            f" --retry {LAST} takes it"
        )
    return RunRecord.from_row(row), was_killed


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None
