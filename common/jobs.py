"""The batch jobs of YieldSpark: one table that everything which names a job reads.

A job is one command, one `job` in the run ledger and one key of a release's `batches.json`, all by
the same name. A new job is an entry of `JOBS` and a command
(CONTRIBUTING, "Jobs"). The table imports no job's module.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from common.errors import ConfigurationError


@dataclass(frozen=True)
class JobOption:
    """An option of a job's command that a pipeline run or `workflows submit` can set.

    Attributes:
        name: key of the pipeline's argument and of `submit`'s parameter, such as `full_refresh`.
        has_value: False for a switch, which the command line has or has not.
    """

    name: str
    has_value: bool = True

    @property
    def flag(self) -> str:
        """The option on the job's command line, such as `--full-refresh`."""
        return f"--{self.name.replace('_', '-')}"


class MemoryNeed(Enum):
    """The rows that a job holds in memory, for which its machines are sized."""

    STREAMED = "streamed"
    """Rows pass through the executors, one partition at a time."""
    COLLECTED = "collected"
    """All rows are fitted in one process: the driver's or an executor's, as the engine does it."""


@dataclass(frozen=True)
class JobSpec:
    """A batch job.

    Attributes:
        name: name of the command, of the ledger's `job` and of the key in `batches.json`.
        module: module whose `main` runs the job's command line.
        short_name: begins the id of a batch, `<short_name>-<uuid>`.
        request_prefix: begins the request id, `<request_prefix>-<uuid>`, unique among jobs. The
            service allows 40 characters, and a UUID has 36.
        options: options that a run or a submit can set, in the order of the command line.
        plan_rows: `module:function` that returns the number of rows that a run will read, from
            settings and options, without Spark; None if the job has no plan.
        memory: rows that the job holds at once.
        engines: forecasting engines of the job, one batch each; empty for a job without an engine.
        needs_model_registry: whether the job must keep models in a registry that outlives a batch.
    """

    name: str
    module: str
    short_name: str
    request_prefix: str
    options: tuple[JobOption, ...]
    plan_rows: str | None = None
    memory: MemoryNeed = MemoryNeed.STREAMED
    engines: tuple[str, ...] = ()
    needs_model_registry: bool = False

    @property
    def engine_choices(self) -> tuple[str | None, ...]:
        """The engines, or a single None for a job without one."""
        return self.engines or (None,)

    @property
    def package(self) -> str:
        """The top-level package of the job's code."""
        return self.module.partition(".")[0]

    def engine_of(self, engine: str) -> str | None:
        """Return the engine that is set for a run, or None for a job without engines."""
        return engine if self.engines else None


DRY_RUN = JobOption("dry_run", has_value=False)

CALCULATE_METRICS = JobSpec(
    name="calculate_metrics",
    module="data_processing.calculate_pool_metrics_spark",
    short_name="metrics",
    request_prefix="m",
    options=(
        JobOption("start"),
        JobOption("end"),
        JobOption("full_refresh", has_value=False),
        DRY_RUN,
    ),
    plan_rows="data_processing.planning.dry_run:rows_to_read",
)

FORECAST_POOLS = JobSpec(
    name="forecast_pools",
    module="forecasting.forecast_pools_spark",
    short_name="forecast",
    request_prefix="f",
    options=(JobOption("as_of"), DRY_RUN),
    plan_rows="forecasting.run.plan:rows_to_read",
    memory=MemoryNeed.COLLECTED,
    engines=("synapseml", "lightgbm"),
    needs_model_registry=True,
)

# All batch jobs, in the order in which the pipeline runs them
JOBS: tuple[JobSpec, ...] = (CALCULATE_METRICS, FORECAST_POOLS)


def job_names() -> tuple[str, ...]:
    """Return the names of all jobs, in the order in which the pipeline runs them."""
    return tuple(job.name for job in JOBS)


def job_spec(name: str) -> JobSpec:
    """Return the job of this name.

    Raises:
        ConfigurationError: no job has this name.
    """
    for job in JOBS:
        if job.name == name:
            return job
    raise ConfigurationError(f"{name} is no job; allowed: {', '.join(job_names())}")
