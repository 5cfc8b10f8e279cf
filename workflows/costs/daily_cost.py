"""Models one daily run of one job: rows, seconds and USD, as a batch and as a Cloud Run job.
Metrics use all cores of the platform. Native LightGBM uses the driver's 4 cores, also in a
batch, whose executors stay idle. Performs no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.jobs import CALCULATE_METRICS, FORECAST_POOLS, job_spec
from spark.executor_choice import IN_PROCESS_POOL_DAYS, IN_PROCESS_RAW_ROWS
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
class DailyJobCost:
    """One daily run of a job; `seconds` are billed time."""

    job: str
    rows: int
    seconds: float
    usd: float


def daily_job_cost(job: str, platform: PlatformName, inputs: BillInputs) -> DailyJobCost:
    """Model one daily run of a job.

    Args:
        job: `calculate_metrics` or `forecast_pools`.
        platform: `dataproc` or `cloud_run`.
        inputs: Inputs of the bill.

    Raises:
        ConfigurationError: The region has no price, or no machine can hold the rows.
    """
    rows = daily_rows(job, inputs)
    key = batch_key(job, _engine(job, inputs))
    seconds = cold_seconds_of(job, platform, rows, inputs) + (
        _metrics_seconds(rows, cores_of(job, platform, rows, inputs), inputs)
        if job == CALCULATE_METRICS.name
        else _forecast_seconds(inputs)
    )
    if platform == CLOUD_RUN:
        usd = cloud_run_usd(CONTAINER_VCPU, CONTAINER_GIB, seconds, region=inputs.region)
        return DailyJobCost(key, rows, seconds, usd)
    share = (
        inputs.metrics_billed_share
        if job == CALCULATE_METRICS.name
        else inputs.forecast_billed_share
    )
    usd = batch_usd(job, rows, seconds, inputs) * share
    return DailyJobCost(key, rows, seconds + start_seconds(), usd)


def daily_rows(job: str, inputs: BillInputs) -> int:
    """Return the raw rows of the metrics, or the pool-days of a forecast."""
    if job == CALCULATE_METRICS.name:
        return round(inputs.pools * inputs.snapshots_of_a_day * inputs.days_read)
    return inputs.pools * inputs.train_days


def cold_seconds_of(job: str, platform: PlatformName, rows: int, inputs: BillInputs) -> float:
    """Return the seconds before the work of a run begins."""
    if has_jvm(job, platform, rows, inputs):
        return inputs.cold_seconds
    return inputs.cold_seconds_without_jvm


def has_jvm(job: str, platform: PlatformName, rows: int, inputs: BillInputs) -> bool:
    """Return whether a run starts a JVM, by the rules of `spark.executor_choice`."""
    if platform != CLOUD_RUN or inputs.executor == "spark":
        return True
    if _engine(job, inputs) == "synapseml":
        return True
    limit = IN_PROCESS_RAW_ROWS if job == CALCULATE_METRICS.name else IN_PROCESS_POOL_DAYS
    return inputs.executor == "auto" and rows > limit


def cores_of(job: str, platform: PlatformName, rows: int, inputs: BillInputs) -> int:
    """Return the cores that share the work of the metrics."""
    if platform == CLOUD_RUN:
        return CONTAINER_VCPU
    size = _size(job, rows, inputs)
    return size.executors_max * size.executor.cores


def batch_usd(job: str, rows: int, seconds: float, inputs: BillInputs) -> float:
    """Return the highest USD of a batch.

    Args:
        job: Name of the job.
        rows: Rows that size the batch.
        seconds: Duration in the ledger; the service's start is added.
        inputs: Inputs of the bill.
    """
    batch = {"runtimeConfig": {"properties": _size(job, rows, inputs).properties()}}
    return estimate(batch, seconds + start_seconds(), region=inputs.region).usd


def start_seconds() -> float:
    """Return the seconds from a batch's creation to its driver's start."""
    return float(prices()["serverless"]["start_seconds"])


def _engine(job: str, inputs: BillInputs) -> str | None:
    return job_spec(job).engine_of(inputs.engine)


def _size(job: str, rows: int, inputs: BillInputs) -> BatchSize:
    return size_for(job, _engine(job, inputs), rows, max_executors=inputs.max_executors)


def _metrics_seconds(rows: int, cores: int, inputs: BillInputs) -> float:
    return rows / inputs.metrics_rows_per_core_second / cores


def _forecast_seconds(inputs: BillInputs) -> float:
    # one daily run in `refit_days` fits a model, the others use it
    refits = 1 / inputs.refit_days
    return inputs.pools * (
        refits * inputs.refit_seconds_per_pool + (1 - refits) * inputs.forecast_seconds_per_pool
    )
