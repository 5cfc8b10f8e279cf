"""What a month of nights costs by list price: both jobs, every input a figure that is printed, and
whether the goal of 3 USD is met.

In: pools, nights, a region; seconds of past runs (`cost_ledger`) win over the model of what a night
takes. Out: a `Month`. It reads no database and no settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil
from statistics import median
from typing import Any

from workflows.batches.batch_request import batch_key
from workflows.batches.batch_size import BatchSize, size_for
from workflows.batches.platforms import FORECAST_JOB, METRICS_JOB
from workflows.costs.cost import Cost, cloud_run_usd, estimate, prices

GOAL_USD = 3.0
"""For both jobs, thirty nights, 2,000 pools."""


@dataclass(frozen=True)
class NightInputs:
    """What a night is taken to be. Measured ones say so."""

    pools: int = 2_000
    nights: int = 30
    region: str = "us-central1"
    engine: str = "lightgbm"
    snapshots_of_a_day: int = 4
    """Raw rows of a pool and day."""
    days_read: int = 45
    """That the metrics read again: the longest window, what is carried forward, and a week of late
    rows.
    """
    train_days: int = 365
    refit_every: int = 7
    """Nights between two fits of a model."""
    metrics_rows_per_core_second: float = 33_000.0
    """Measured: 28.6 million rows in 434 s on 2 cores."""
    forecast_seconds_per_pool: float = 14 / 487
    """Measured on 2 cores, start of Spark included, and counted in full for each pool."""
    refit_seconds_per_pool: float = 29 / 487
    cold_seconds: float = 45.0
    """Python, the JVM and the first task of cold executors, which no laptop shows: a guess."""


@dataclass(frozen=True)
class JobOfAMonth:
    """One job: rows and seconds of a night, its smallest batch, and the same night as a Cloud Run
    job of 4 vCPU and 16 GiB.
    """

    job: str
    rows: int
    seconds: float
    seconds_from: str
    cost: Cost
    cloud_run_usd: float


@dataclass(frozen=True)
class Month:
    """USD of both jobs for all nights. room_seconds is how much longer each batch could take until
    the goal is missed; less than 0: it is.
    """

    inputs: NightInputs
    jobs: tuple[JobOfAMonth, ...]
    usd: float
    cloud_run_usd: float
    goal_usd: float
    room_seconds: float

    @property
    def meets_goal(self) -> bool:
        return self.usd <= self.goal_usd

    def pairs(self) -> dict[str, str]:
        """For a person: every input, every price, and what they come to."""
        document = self.document()
        usd_a_month = (
            f"{self.usd:.2f} USD for {self.inputs.nights} nights by the list price of"
            f" {document['prices']['read_on']}"
        )
        room = (
            f"each batch may take {self.room_seconds:.0f} s longer"
            if self.meets_goal
            else f"{self.usd - self.goal_usd:.2f} USD too much"
        )
        return {
            **{
                name.replace("_", " "): f"{value:g}" if isinstance(value, float) else str(value)
                for name, value in document["inputs"].items()
            },
            **{
                f"price: {name.replace('_', ' ')}": str(value)
                for name, value in document["prices"].items()
            },
            **{
                job.job: (
                    f"{job.rows:,} rows, {job.seconds:.0f} s ({job.seconds_from}),"
                    f" {job.cost.words()}"
                )
                for job in self.jobs
            },
            "a month": usd_a_month,
            "goal": f"{self.goal_usd:.2f} USD, {'met' if self.meets_goal else 'missed'}: {room}",
            "the same as Cloud Run jobs": f"{self.cloud_run_usd:.2f} USD",
        }

    def document(self) -> dict[str, Any]:
        """For `--json`: every input, every price, every result."""
        serverless = {
            name: value for name, value in prices()["serverless"].items() if name != "regions"
        }
        rates = prices()["serverless"]["regions"][self.inputs.region]
        return asdict(self) | {
            "meets_goal": self.meets_goal,
            "prices": {
                "read_on": prices()["read_on"],
                **serverless,
                **rates,
                "cloud_run": prices()["cloud_run"],
            },
        }


def monthly_estimate(
    inputs: NightInputs | None = None, *, past_seconds: Mapping[str, list[float]] | None = None
) -> Month:
    """Args: past_seconds are durations of good runs by job, as the ledger has them: their median
    stands in for the model.

    Raises: ConfigurationError for a region without a price.
    """
    night = inputs or NightInputs()
    jobs = tuple(
        _job(job, night, (past_seconds or {}).get(job, [])) for job in (METRICS_JOB, FORECAST_JOB)
    )
    usd = night.nights * sum(job.cost.usd for job in jobs)
    # every batch is above the least time that is billed, so that cost and time grow together
    usd_of_a_second = night.nights * sum(job.cost.usd / job.seconds for job in jobs)
    run_usd = night.nights * sum(job.cloud_run_usd for job in jobs)
    return Month(night, jobs, usd, run_usd, GOAL_USD, (GOAL_USD - usd) / usd_of_a_second)


def _job(job: str, night: NightInputs, past: list[float]) -> JobOfAMonth:
    engine = night.engine if job == FORECAST_JOB else None
    rows = night.pools * (
        night.train_days if job == FORECAST_JOB else night.days_read * night.snapshots_of_a_day
    )
    size = size_for(job, engine, rows, max_executors=ceil(rows / 1_000_000) + 2)
    work = (
        median(past)
        if past
        else night.cold_seconds
        + (_forecast_seconds(night) if job == FORECAST_JOB else _metrics_seconds(night, rows, size))
    )
    words = (
        f"median of {len(past)} runs in the ledger"
        if past
        else f"model: cold start {night.cold_seconds:g} s, then measured work"
    )
    seconds = prices()["serverless"]["start_seconds"] + work
    cost = estimate(
        {"runtimeConfig": {"properties": size.properties()}}, seconds, region=night.region
    )
    return JobOfAMonth(
        batch_key(job, engine), rows, seconds, words, cost, cloud_run_usd(4, 16, work)
    )


def _metrics_seconds(night: NightInputs, rows: int, size: BatchSize) -> float:
    return rows / night.metrics_rows_per_core_second / (size.executors_max * size.executor.cores)


def _forecast_seconds(night: NightInputs) -> float:
    refits = 1 / night.refit_every
    return night.pools * (
        refits * night.refit_seconds_per_pool + (1 - refits) * night.forecast_seconds_per_pool
    )
