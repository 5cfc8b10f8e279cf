"""Chooses what computes a run of a job: Spark, or this machine without a JVM.

Both give the same tables, counts and checks. A pure function of settings and rows, which a plan
states with its reason. Imports no PySpark.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from common.settings.spark import Executor
from config_spark import Settings

IN_PROCESS_RAW_ROWS = 7_000_000
"""Up to this number of raw rows to read, `auto` computes metrics in process.

It is the largest measured number at which Spark was not faster: 178.7 seconds for 7.15 million rows
on 2 cores, and 187.1 by Spark. Memory does not grow with the rows: 548 MB, and 556 MB for 28.6
million.
"""

IN_PROCESS_POOL_DAYS = 3_600_000
"""Up to this number of pool-days to read, `auto` forecasts in process, which has them in memory.

A refit of 20,000 pools x 180 days had its peak of 7,020 MB before the fits, and up to 4,340 MB in
the first minutes of them. With Spark, Python and the JVM had 10,920 MB together during the fits.
"""


@dataclass(frozen=True)
class ExecutorChoice:
    """What computes a run.

    Attributes:
        name: spark or inprocess.
        reason: why, for the plan.
    """

    name: Executor
    reason: str


def choose_executor(
    settings: Settings, rows_to_read: int, *, limit: int, prefers_spark: bool
) -> ExecutorChoice:
    """Return the executor of a run that has work.

    Args:
        settings: EXECUTOR, the transports and the environment.
        rows_to_read: rows of the source that the run reads.
        limit: IN_PROCESS_RAW_ROWS or IN_PROCESS_POOL_DAYS.
        prefers_spark: whether `auto` is Spark here, whatever the number of rows.
    """
    if settings.executor == "spark":
        return ExecutorChoice("spark", "EXECUTOR=spark")
    is_auto = settings.executor == "auto"
    if is_auto and not _is_container(settings):
        if settings.environment != "local":
            return ExecutorChoice("spark", "EXECUTOR=auto is Spark on a platform of Spark")
        if prefers_spark:
            return ExecutorChoice("spark", "EXECUTOR=auto is Spark in the demo and the scripts")
    if obstacle := _in_process_obstacle(settings):
        return ExecutorChoice("spark", obstacle)
    if not is_auto:
        return ExecutorChoice("inprocess", "EXECUTOR=inprocess")
    if rows_to_read > limit:
        return ExecutorChoice("spark", f"more than {limit:,} rows to read")
    return ExecutorChoice("inprocess", f"at most {limit:,} rows to read")


def _is_container(settings: Settings) -> bool:
    """Whether the run is a Cloud Run job, which has no Spark but its own."""
    return settings.environment != "local" and (settings.spark_master or "").startswith("local")


def _in_process_obstacle(settings: Settings) -> str | None:
    """Return why no run can be computed in process, or None."""
    if importlib.util.find_spec("adbc_driver_postgresql") is None:
        return "adbc-driver-postgresql is not installed"
    # READ_TRANSPORT is jdbc by default, which is about Spark's reads: only the user's own choice
    # excludes a read by ADBC
    jdbc = [
        name.upper()
        for name in ("read_transport", "write_transport")
        if getattr(settings, name) == "jdbc" and name in settings.model_fields_set
    ]
    return f"{' and '.join(jdbc)}=jdbc is for Spark" if jdbc else None
