"""Which job runs where: the one table of pairs (job, engine) and the serverless runtime each
belongs to.

In: a job, an engine, the day. Out: its platform, or a refusal that says what is allowed. It asks no
service: a new runtime is a new row here. Google supports an LTS runtime for 30 months and keeps it
available for two years more
(https://cloud.google.com/dataproc-serverless/docs/concepts/versions/spark-runtime-versions): of
every runtime both days stand in the table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from common.errors import ConfigurationError

METRICS_JOB = "calculate_metrics"
FORECAST_JOB = "forecast_pools"
JOBS = (METRICS_JOB, FORECAST_JOB)
MODULES = {
    METRICS_JOB: "data_processing.calculate_pool_metrics_spark",
    FORECAST_JOB: "forecasting.forecast_pools_spark",
}
"""Where each job's `main` is."""

SCALA_OF_RUNTIME = {
    "1.1": "2.12",
    "1.2": "2.12",
    "2.0": "2.13",
    "2.1": "2.13",
    "2.2": "2.13",
    "2.3": "2.13",
}
"""The Scala that each of Google's runtimes with Spark 3 has: a jar for the other one loads, and
fails in the middle of the work.
"""


@dataclass(frozen=True)
class Platform:
    """A row of the table. Both days are the last ones; warning is None while Google supports the
    runtime.
    """

    job: str
    engine: str | None
    runtime: str
    spark: str
    scala: str
    supported_to: date
    available_to: date
    warning: str | None = None

    @property
    def pair(self) -> str:
        return f"{self.job}/{self.engine}" if self.engine else self.job

    @property
    def row(self) -> str:
        """The row in words, for a message."""
        return (
            f"{self.pair} on runtime {self.runtime} (Spark {self.spark}, Scala {self.scala}), "
            f"supported to {self.supported_to}, available to {self.available_to}"
        )


RUNTIME_2_3 = {"runtime": "2.3", "spark": "3.5", "scala": "2.13"}
RUNTIME_1_2 = {"runtime": "1.2", "spark": "3.5", "scala": "2.12"}

TABLE = (
    Platform(
        METRICS_JOB,
        None,
        **RUNTIME_2_3,
        supported_to=date(2027, 11, 26),
        available_to=date(2029, 11, 26),
    ),
    # SynapseML 1.1.3 exists for Spark 3.5 in Scala 2.12 alone, and no runtime after this one has
    # that
    Platform(
        FORECAST_JOB,
        "synapseml",
        **RUNTIME_1_2,
        supported_to=date(2026, 9, 30),
        available_to=date(2028, 9, 30),
    ),
    Platform(
        FORECAST_JOB,
        "lightgbm",
        **RUNTIME_2_3,
        supported_to=date(2027, 11, 26),
        available_to=date(2029, 11, 26),
    ),
)


def platform_for(job: str, engine: str | None, *, today: date) -> Platform:
    """The platform of a pair; one that Google no longer supports but still runs comes with a
    `warning`.

    Raises: ConfigurationError for a pair outside the table, and for a runtime that is no longer
    available.
    """
    rows = "; ".join(row.row for row in TABLE)
    found = next((row for row in TABLE if (row.job, row.engine) == (job, engine)), None)
    if found is None:
        asked = f"{job}/{engine}" if engine else job
        raise ConfigurationError(
            f"{asked} has no platform; allowed: {rows}. Name one of these jobs, and an engine for"
            f" {FORECAST_JOB} alone"
        )
    if today > found.available_to:
        raise ConfigurationError(
            f"{found.pair} can't be submitted: runtime {found.runtime} is available to"
            f" {found.available_to} only, and today is {today}; the table: {rows}. Take another"
            " engine (ENGINE), or a version of YieldSpark with a newer runtime"
        )
    if today > found.supported_to:
        words = (
            f"runtime {found.runtime} of {found.pair} has had no support since {found.supported_to}"
            f" and goes on {found.available_to}"
            f"{'; ENGINE=lightgbm has a supported one' if found.engine == 'synapseml' else ''}"
        )
        return replace(found, warning=words)
    return found
