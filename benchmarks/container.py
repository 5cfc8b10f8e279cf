"""Measures both jobs within the limits of a Cloud Run container (4 vCPU, 16 GiB), on generated
history in an embedded PostgreSQL: seconds, processor seconds, memory and files. PLATFORM=auto
uses the result (`workflows/spec/platform_choice.py`). Each run is of the longest kind: metrics
read all rows, the forecast fits its first model. MB are 2^20 bytes.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.databases import (
    copied_database,
    environment,
    server_process,
    settle,
    temporary_server,
)
from benchmarks.forecast_data import COMMAND
from benchmarks.metrics_data import History, Say, load
from benchmarks.metrics_table import machine_facts
from benchmarks.processes import MEGABYTE, PASSIVE_THREADS, Timing, measure
from config_spark import Settings
from database.connections.engine import make_engine
from workflows.spec.platform_choice import CLOUD_RUN_ROWS, CONTAINER_GIB, CONTAINER_VCPU

POOLS, DAYS = 5_000, 365

DRIVER_MEMORY = "8g"
"""SPARK_DRIVER_MEMORY of the jobs in terraform/: half of the container's memory."""

MAX_PROCESSOR_SECONDS = 1_800
"""Limit of the processor seconds of both jobs and the server: an upper bound of a daily run's
duration on an idle machine, without waits.
"""

JOBS = {
    "calculate_metrics": ["calculate_metrics"],
    "forecast_pools": ["forecast_pools", "--engine", "lightgbm"],
}

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class JobUsage:
    """A job's timing and the largest size of its files."""

    timing: Timing
    files_mb: float

    @property
    def total_mb(self) -> float:
        """Return the sum of both peaks, an upper bound: a container keeps files in memory."""
        return self.timing.peak_mb + self.files_mb


def run_jobs(settings: Settings, history: History, say: Say) -> dict[str, JobUsage]:
    """Load the history and run both jobs on it.

    Args:
        settings: Empty database.
        history: Generated history.
        say: Receives progress lines.

    Raises:
        RuntimeError: A job failed.
    """
    load(make_engine(settings), history, say)
    usage = {}
    for job, arguments in JOBS.items():
        settle(make_engine(settings))
        files = settings.yieldspark_home / f"files_of_{job}"
        files.mkdir()
        variables = {
            **environment(settings),
            **PASSIVE_THREADS,
            "SPARK_DRIVER_MEMORY": DRIVER_MEMORY,
            "SPARK_LOCAL_DIRS": str(files),
            "TMPDIR": str(files),
        }
        with _folder_sizes(files) as sizes:
            timing = measure(
                job,
                [*COMMAND, *arguments, "--json"],
                variables,
                folder=settings.yieldspark_home,
                server=server_process(settings),
            )
        if timing.error or timing.status != "succeeded":
            raise RuntimeError(f"{job} ended as {timing.status}: {timing.error}")
        usage[job] = JobUsage(timing, round(max(sizes) / MEGABYTE))
        say(f"{job}: {timing.seconds:.0f} s, {timing.peak_mb:.0f} MB")
    return usage


@contextmanager
def _folder_sizes(folder: Path) -> Iterator[list[int]]:
    """Collect the folder's size in bytes while the block runs."""
    sizes, ended = [0], threading.Event()

    def poll() -> None:
        while not ended.wait(POLL_SECONDS):
            sizes.append(_bytes_in(folder))

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        ended.set()
        thread.join()


def _bytes_in(folder: Path) -> int:
    total = 0
    # os.walk skips folders that are deleted meanwhile
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(root) / name).stat().st_size
    return total


def bytes_of_rows(settings: Settings) -> dict[str, float]:
    """Return the bytes, with indexes, of a raw row and of all product rows of a pool and day."""
    with make_engine(settings).connect() as connection:
        raw_rows, raw_bytes, days, own_bytes = connection.exec_driver_sql(SIZES).one()
    return {"raw row": raw_bytes / raw_rows, "pool-day": float(own_bytes / days)}


SIZES = """
    SELECT
        (SELECT count(*) FROM raw_defillama_pool_history),
        pg_total_relation_size('raw_defillama_pool_history'),
        (SELECT count(*) FROM pool_daily_metrics),
        pg_total_relation_size('pool_daily_metrics') + (
            SELECT sum(pg_total_relation_size(format('%%I.%%I', schemaname, tablename)::regclass))
            FROM pg_tables
            WHERE schemaname = 'yieldspark'
        )
"""


def report(usage: dict[str, JobUsage], sizes: dict[str, float], pool_days: int) -> str:
    """Describe each job, the size of rows, and whether both jobs fit."""
    lines = [
        f"{job}: {job_usage.timing.rows['read']:,} rows, {job_usage.timing.seconds:.0f} s"
        f" ({job_usage.timing.cpu_seconds:.0f} processor seconds),"
        f" {job_usage.timing.peak_mb:,.0f} MB and {job_usage.files_mb:,.0f} MB of files"
        for job, job_usage in usage.items()
    ]
    lines += [f"{name}: {size:.0f} bytes in the database" for name, size in sizes.items()]
    seconds = sum(job_usage.timing.cpu_seconds for job_usage in usage.values())
    peak_mb = max(job_usage.total_mb for job_usage in usage.values())
    fits = seconds <= MAX_PROCESSOR_SECONDS and peak_mb <= CONTAINER_GIB * 1024
    return "\n".join(
        [
            *lines,
            f"{pool_days:,} pool-days in {CONTAINER_VCPU} vCPU and {CONTAINER_GIB} GiB:"
            f" {'fits' if fits else 'does not fit'}, {seconds:.0f} of {MAX_PROCESSOR_SECONDS} s of"
            f" processor, {peak_mb:,.0f} of {CONTAINER_GIB * 1024:,} MB; PLATFORM=auto goes up to"
            f" {CLOUD_RUN_ROWS:,} rows",
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.container", description=__doc__)
    parser.add_argument("--pools", type=int, default=POOLS, help=f"default: {POOLS:,}")
    parser.add_argument("--days", type=int, default=DAYS, help=f"default: {DAYS}")
    options = parser.parse_args(argv)
    print(*(f"{name}: {value}" for name, value in machine_facts().items()), sep="\n", flush=True)
    history = History.until_today(options.pools, options.days)
    with temporary_server() as server, copied_database(server, "container") as settings:
        usage = run_jobs(settings, history, lambda line: print(f"  {line}", flush=True))
        print(report(usage, bytes_of_rows(settings), options.pools * options.days))


if __name__ == "__main__":
    main()
