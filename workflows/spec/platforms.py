"""The serverless runtime of each job and engine, with the last days of its support.

`RUNTIME_OF_ENGINE` is the only table; a new runtime is a new row. Calls no service. Google
supports an LTS runtime for 30 months and keeps it available for two more years:
https://cloud.google.com/dataproc-serverless/docs/concepts/versions/spark-runtime-versions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from common import jobs
from common.errors import ConfigurationError

SCALA_OF_RUNTIME = {
    "1.1": "2.12",
    "1.2": "2.12",
    "2.0": "2.13",
    "2.1": "2.13",
    "2.2": "2.13",
    "2.3": "2.13",
}
"""Scala version of each of Google's runtimes with Spark 3. A jar for another Scala loads, and fails
only when its code runs.
"""


@dataclass(frozen=True)
class Platform:
    """The runtime of one job and engine. Both days are the last ones.

    `warning` is None while Google supports the runtime.
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
        """Return JOB, or JOB/ENGINE for a job with engines."""
        return f"{self.job}/{self.engine}" if self.engine else self.job

    @property
    def row(self) -> str:
        """Return the row as text, for a message."""
        return (
            f"{self.pair} on runtime {self.runtime} (Spark {self.spark}, Scala {self.scala}), "
            f"supported to {self.supported_to}, available to {self.available_to}"
        )


@dataclass(frozen=True)
class Runtime:
    """A serverless runtime of Google. Both days are the last ones."""

    version: str
    spark: str
    scala: str
    supported_to: date
    available_to: date


RUNTIME_2_3 = Runtime("2.3", "3.5", "2.13", date(2027, 11, 26), date(2029, 11, 26))
RUNTIME_1_2 = Runtime("1.2", "3.5", "2.12", date(2026, 9, 30), date(2028, 9, 30))

RUNTIME_OF_ENGINE: dict[str | None, Runtime] = {
    None: RUNTIME_2_3,
    # SynapseML 1.1.3 exists for Spark 3.5 in Scala 2.12 only, and no later runtime has that
    "synapseml": RUNTIME_1_2,
    "lightgbm": RUNTIME_2_3,
}
"""The runtime of a job by its engine; None is a job without an engine."""


def platform_rows() -> tuple[Platform, ...]:
    """Return the platform of each job and engine, jobs in the order of the pipeline."""
    rows = []
    for job in jobs.JOBS:
        rows += [_platform(job.name, engine) for engine in job.engine_choices]
    return tuple(rows)


def _platform(job: str, engine: str | None) -> Platform:
    runtime = RUNTIME_OF_ENGINE[engine]
    return Platform(
        job,
        engine,
        runtime=runtime.version,
        spark=runtime.spark,
        scala=runtime.scala,
        supported_to=runtime.supported_to,
        available_to=runtime.available_to,
    )


def platform_for(job: str, engine: str | None, *, today: date) -> Platform:
    """Return the platform of a job and engine, with a warning if Google no longer supports it.

    Args:
        job: name of the job.
        engine: forecasting engine, or None for a job without one.
        today: the day (UTC) that the runtime's last days are compared with.

    Raises:
        ConfigurationError: the table has no such pair, or the runtime is no longer available.
    """
    rows = platform_rows()
    table = "; ".join(row.row for row in rows)
    platform = next((row for row in rows if (row.job, row.engine) == (job, engine)), None)
    if platform is None:
        pair = f"{job}/{engine}" if engine else job
        with_engine = ", ".join(spec.name for spec in jobs.JOBS if spec.engines)
        raise ConfigurationError(
            f"{pair} has no platform; allowed: {table}. Name one of these jobs, and an engine for"
            f" {with_engine} only"
        )
    if today > platform.available_to:
        raise ConfigurationError(
            f"{platform.pair} can't be submitted: runtime {platform.runtime} is available to"
            f" {platform.available_to} only, and today is {today}; the table: {table}. Take"
            " another engine (ENGINE), or a version of YieldSpark with a newer runtime"
        )
    if today > platform.supported_to:
        warning = (
            f"runtime {platform.runtime} of {platform.pair} has had no support since"
            f" {platform.supported_to} and is available until {platform.available_to}"
        )
        if platform.engine == "synapseml":
            warning += "; ENGINE=lightgbm has a supported one"
        return replace(platform, warning=warning)
    return platform
