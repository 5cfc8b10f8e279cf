"""Costs and durations in the run ledger: records the cost of a batch and reads past daily runs in
the cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any

from sqlalchemy import Select, select, update

from common.errors import CloudRefused, CloudUnavailable, DatabaseError
from common.jobs import job_names
from config_spark import Settings
from database.connections.engine import checked_connection, make_engine
from database.embedded.resolve import resolve_database
from database.schema.own_tables import run_ledger
from workflows.spec.platform_choice import (
    CLOUD_RUN,
    CLOUD_RUN_PREFIX,
    DATAPROC,
    PLATFORMS,
    PlatformName,
)

PAST_RUNS = 30
"""Daily runs of a month."""

DAILY_RUN_MODES = ("incremental", "daily")
"""Modes of the daily run. Backfills and past days take other times."""


@dataclass(frozen=True)
class PastRun:
    """A successful daily run in the cloud.

    Attributes:
        job: Name of the job.
        platform: Where it ran.
        batch_id: Id of the batch.
        started: Start of the run.
        engine: Engine of a forecast.
        seconds: Duration in the ledger; the machines are billed for longer.
        pools: Planned pools.
        rows: Rows read.
        refits: Models fitted.
        cost_usd: None if it was never requested, and for a Cloud Run job.
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
    """Past runs, newest first for each job and platform, and their source for a reader."""

    runs: tuple[PastRun, ...]
    source: str


def record_cost(settings: Settings, batch_id: str, usd: float) -> int:
    """Write a batch's cost to the ledger.

    Args:
        settings: Database.
        batch_id: Id of the batch.
        usd: Its cost.

    Returns:
        Number of updated rows; 0 if the batch opened no run.

    Raises:
        DatabaseError: The database cannot be reached or rejects the update.
    """
    statement = update(run_ledger).where(run_ledger.c.batch_id == batch_id).values(cost_usd=usd)
    with checked_connection(make_engine(settings)) as connection:
        return connection.execute(statement).rowcount


def past_runs(
    settings: Settings,
    jobs: Sequence[str] | None = None,
    platforms: Sequence[PlatformName] = PLATFORMS,
) -> PastRuns:
    """Return the last successful daily runs of each job on each platform, at most PAST_RUNS. Runs
    on a laptop are excluded. Empty if DB_HOST is not set or its ledger cannot be reached.
    """
    if not settings.db_host:
        return PastRuns((), "not read: DB_HOST is not set")
    try:
        with checked_connection(make_engine(resolve_database(settings))) as connection:
            runs: list[PastRun] = []
            for job, platform in product(jobs or job_names(), platforms):
                rows = connection.execute(_daily_runs_query(job, platform)).mappings()
                runs += [_past_run(job, platform, dict(row)) for row in rows]
    except (DatabaseError, CloudRefused, CloudUnavailable) as error:
        return PastRuns((), f"not read: {error}")
    return PastRuns(tuple(runs), f"{len(runs)} good daily runs in the cloud")


def _daily_runs_query(job: str, platform: PlatformName) -> Select[Any]:
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
            ledger.mode.in_(DAILY_RUN_MODES),
            ledger.seconds.is_not(None),
            # null, as of a run outside the cloud, matches neither
            on_cloud_run if platform == CLOUD_RUN else ~on_cloud_run,
        )
        .order_by(ledger.started_at.desc())
        .limit(PAST_RUNS)
    )


def _past_run(job: str, platform: PlatformName, row: dict[str, Any]) -> PastRun:
    # null if the JSON of the row has no such key
    counted = {"rows": row["rows"] or 0, "refits": row["refits"] or 0}
    return PastRun(job=job, platform=platform, **row | counted)


def usual_seconds(settings: Settings, job: str) -> list[float]:
    """Return the seconds of the job's last successful daily runs as a batch, newest first."""
    return [run.seconds for run in past_runs(settings, [job], [DATAPROC]).runs]
