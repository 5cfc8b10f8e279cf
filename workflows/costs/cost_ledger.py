"""Costs and durations in the ledger: what a batch cost goes into the rows of the runs it made, and
past runs in the cloud come out for an estimate.

In: settings whose database has this version's tables. The database is reached through
`database.connections.engine`; its errors are the product's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select, update

from common.errors import CloudRefused, CloudUnavailable, DatabaseError
from common.jobs import job_names
from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from database.embedded.resolve import with_database
from database.schema.tables import run_ledger
from workflows.spec.platform_choice import (
    CLOUD_RUN,
    CLOUD_RUN_PREFIX,
    DATAPROC,
    PLATFORMS,
    PlatformName,
)

PAST_RUNS = 30
"""A month of nights."""

NIGHTLY_MODES = ("incremental", "daily")
"""Not a backfill and not a past day: their durations say nothing of a night's."""


@dataclass(frozen=True)
class PastRun:
    """A good nightly run in the cloud. seconds are the ledger's: the machines were held for longer.
    pools and rows are what it planned and read; refits is 0 where it fitted no model. cost_usd is
    None where nobody asked for it, and for a Cloud Run job.
    """

    job: str
    platform: PlatformName
    batch_id: str
    started: datetime
    engine: str | None
    seconds: float
    pools: int | None
    rows: int
    refits: int
    cost_usd: float | None


@dataclass(frozen=True)
class PastRuns:
    """Past runs, newest first for each job and platform, and in words where they are from."""

    runs: tuple[PastRun, ...]
    source: str


def record_cost(settings: Settings, batch_id: str, usd: float) -> int:
    """Write what a batch cost into the ledger. Returns: rows updated; 0 where the batch ended
    before it opened a run, or made none.

    Raises: DatabaseError.
    """
    statement = update(run_ledger).where(run_ledger.c.batch_id == batch_id).values(cost_usd=usd)
    with checked_connection(make_engine(settings)) as connection:
        return connection.execute(statement).rowcount


def past_runs(
    settings: Settings,
    jobs: Sequence[str] | None = None,
    platforms: Sequence[PlatformName] = PLATFORMS,
) -> PastRuns:
    """The last good nightly runs of each job on each platform, PAST_RUNS at most; a laptop's are
    another machine's. None where no DB_HOST is set, or its ledger is out of reach from here.
    """
    if not settings.db_host:
        return PastRuns((), "not read: DB_HOST is not set")
    try:
        with checked_connection(make_engine(with_database(settings))) as connection:
            found = tuple(
                _past_run(job, platform, dict(row))
                for job in jobs or job_names()
                for platform in platforms
                for row in connection.execute(_nights_of(job, platform)).mappings()
            )
    except (DatabaseError, CloudRefused, CloudUnavailable) as error:
        return PastRuns((), f"not read: {error}")
    return PastRuns(found, f"{len(found)} good nightly runs in the cloud")


def _nights_of(job: str, platform: PlatformName) -> Select[Any]:
    ledger = run_ledger.c
    on_cloud_run = ledger.batch_id.startswith(CLOUD_RUN_PREFIX, autoescape=True)
    return (
        select(
            ledger.batch_id,
            ledger.started_at.label("started"),
            ledger.engine,
            ledger.seconds,
            ledger.plan["pools"].as_integer().label("pools"),
            ledger.rows["read"].as_integer().label("rows"),
            ledger.plan["refits"].as_integer().label("refits"),
            ledger.cost_usd,
        )
        .where(
            ledger.job == job,
            ledger.status == "succeeded",
            ledger.mode.in_(NIGHTLY_MODES),
            ledger.seconds.is_not(None),
            # null, which a run outside of the cloud has, is neither
            on_cloud_run if platform == CLOUD_RUN else ~on_cloud_run,
        )
        .order_by(ledger.started_at.desc())
        .limit(PAST_RUNS)
    )


def _past_run(job: str, platform: PlatformName, row: dict[str, Any]) -> PastRun:
    counted = {"rows": row["rows"] or 0, "refits": row["refits"] or 0}
    return PastRun(job=job, platform=platform, **row | counted)


def usual_seconds(settings: Settings, job: str) -> list[float]:
    """Seconds of the job's last good nights as a batch, newest first."""
    return [run.seconds for run in past_runs(settings, [job], [DATAPROC]).runs]
