"""One night of one job by the model: rows, seconds and USD, as a batch and as a Cloud Run job.

In: the inputs of a bill. Out: a `JobOfANight`. Pure. The metrics spread over all cores that the
platform gives them; a forecast with native LightGBM works on the driver, whose 4 cores a container
has too, and a batch's executors wait beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.jobs import CALCULATE_METRICS, FORECAST_POOLS, job_spec
from workflows.costs.bill_inputs import BillInputs
from workflows.costs.cost import cloud_run_usd, estimate, prices
from workflows.spec.batch_request import batch_key
from workflows.spec.batch_size import BatchSize, size_for
from workflows.spec.platform_choice import (
    CLOUD_RUN,
    CONTAINER_GIB,
    CONTAINER_VCPU,
    PlatformName,
)

MODELLED_JOBS = (CALCULATE_METRICS.name, FORECAST_POOLS.name)
"""Jobs whose seconds were measured; a job without measurements has no modelled cost."""


@dataclass(frozen=True)
class JobOfANight:
    """seconds are those for which the machines are paid."""

    job: str
    rows: int
    seconds: float
    usd: float


def night_of(job: str, platform: PlatformName, inputs: BillInputs) -> JobOfANight:
    """Raises: ConfigurationError for a region without a price, and where no machine holds the
    rows.
    """
    rows = rows_of_a_night(job, inputs)
    key = batch_key(job, _engine(job, inputs))
    seconds = inputs.cold_seconds + (
        _metrics_seconds(rows, cores_of(job, platform, rows, inputs), inputs)
        if job == CALCULATE_METRICS.name
        else _forecast_seconds(inputs)
    )
    if platform == CLOUD_RUN:
        usd = cloud_run_usd(CONTAINER_VCPU, CONTAINER_GIB, seconds, region=inputs.region)
        return JobOfANight(key, rows, seconds, usd)
    share = (
        inputs.metrics_billed_share
        if job == CALCULATE_METRICS.name
        else inputs.forecast_billed_share
    )
    usd = batch_usd(job, rows, seconds, inputs) * share
    return JobOfANight(key, rows, seconds + start_seconds(), usd)


def rows_of_a_night(job: str, inputs: BillInputs) -> int:
    """Raw rows of the metrics, pool-days of a forecast."""
    if job == CALCULATE_METRICS.name:
        return round(inputs.pools * inputs.snapshots_of_a_day * inputs.days_read)
    return inputs.pools * inputs.train_days


def cores_of(job: str, platform: PlatformName, rows: int, inputs: BillInputs) -> int:
    """That share the work of the metrics."""
    if platform == CLOUD_RUN:
        return CONTAINER_VCPU
    size = _size(job, rows, inputs)
    return size.executors_max * size.executor.cores


def batch_usd(job: str, rows: int, seconds: float, inputs: BillInputs) -> float:
    """A batch for so many rows, with all its executors for the seconds of the ledger and the
    service's start.
    """
    batch = {"runtimeConfig": {"properties": _size(job, rows, inputs).properties()}}
    return estimate(batch, seconds + start_seconds(), region=inputs.region).usd


def start_seconds() -> float:
    """From a batch's creation to its driver's start."""
    return float(prices()["serverless"]["start_seconds"])


def _engine(job: str, inputs: BillInputs) -> str | None:
    return job_spec(job).engine_of(inputs.engine)


def _size(job: str, rows: int, inputs: BillInputs) -> BatchSize:
    return size_for(job, _engine(job, inputs), rows, max_executors=inputs.max_executors)


def _metrics_seconds(rows: int, cores: int, inputs: BillInputs) -> float:
    return rows / inputs.metrics_rows_per_core_second / cores


def _forecast_seconds(inputs: BillInputs) -> float:
    refits = 1 / inputs.refit_days
    return inputs.pools * (
        refits * inputs.refit_seconds_per_pool + (1 - refits) * inputs.forecast_seconds_per_pool
    )
