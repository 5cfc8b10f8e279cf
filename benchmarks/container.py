"""Both jobs of a night in a container's limits: whether a night fits into a Cloud Run job of 4 vCPU
and 16 GiB, which is what PLATFORM=auto goes by (`workflows/spec/platform_choice.py`).

In: a number of pools and days. Out: seconds, processor seconds, peak memory and files of each job,
and what a row takes in the database, on standard output. Raw history is generated in an embedded
PostgreSQL of its own. Every run is of the longest kind: the metrics read all of it, the forecast
fits its first model. A container keeps its files in memory: files count as memory. Memory is in MB
(2^20 bytes).
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
"""As terraform/ sets SPARK_DRIVER_MEMORY of the jobs: half of the container's memory."""

SENSIBLE_SECONDS = 1_800
"""Processor seconds of both jobs together, the server's included: where nothing else runs, what a
night takes at most, however many cores it has, but for waits. A busy machine adds none.
"""

JOBS = {
    "calculate_metrics": ["calculate_metrics"],
    "forecast_pools": ["forecast_pools", "--engine", "lightgbm"],
}

LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Held:
    """A job's timing, and the most that its files had."""

    timing: Timing
    files_mb: float

    @property
    def total_mb(self) -> float:
        """The two peaks together, which may not have been at one time: an upper bound."""
        return self.timing.peak_mb + self.files_mb


def run_night(settings: Settings, history: History, say: Say) -> dict[str, Held]:
    """Load the history and run both jobs on it. Raises: RuntimeError where one failed."""
    load(make_engine(settings), history, say)
    held = {}
    for job, words in JOBS.items():
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
        with _largest(files) as largest:
            timing = measure(
                job,
                [*COMMAND, *words, "--json"],
                variables,
                folder=settings.yieldspark_home,
                server=server_process(settings),
            )
        if timing.error or timing.status != "succeeded":
            raise RuntimeError(f"{job} ended as {timing.status}: {timing.error}")
        held[job] = Held(timing, round(max(largest) / MEGABYTE))
        say(f"{job}: {timing.seconds:.0f} s, {timing.peak_mb:.0f} MB")
    return held


@contextmanager
def _largest(folder: Path) -> Iterator[list[int]]:
    """Bytes in the folder, as they are seen while the block runs."""
    sizes, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            sizes.append(_bytes_in(folder))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()


def _bytes_in(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):  # which passes over folders that go meanwhile
        for name in names:
            with suppress(OSError):
                total += (Path(root) / name).stat().st_size
    return total


def bytes_of_rows(settings: Settings) -> dict[str, float]:
    """What a raw row, and all that the product keeps of a pool and day, take with their indexes."""
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


def report(held: dict[str, Held], sizes: dict[str, float], pool_days: int) -> str:
    """A line for each job, what rows take, and whether the night fits."""
    lines = [
        f"{job}: {one.timing.rows['read']:,} rows, {one.timing.seconds:.0f} s"
        f" ({one.timing.cpu_seconds:.0f} processor seconds), {one.timing.peak_mb:,.0f} MB and"
        f" {one.files_mb:,.0f} MB of files"
        for job, one in held.items()
    ]
    lines += [f"{name}: {size:.0f} bytes in the database" for name, size in sizes.items()]
    seconds = sum(one.timing.cpu_seconds for one in held.values())
    most = max(one.total_mb for one in held.values())
    fits = seconds <= SENSIBLE_SECONDS and most <= CONTAINER_GIB * 1024
    return "\n".join(
        [
            *lines,
            f"{pool_days:,} pool-days in {CONTAINER_VCPU} vCPU and {CONTAINER_GIB} GiB:"
            f" {'fits' if fits else 'does not fit'}, {seconds:.0f} of {SENSIBLE_SECONDS} s of"
            f" processor, {most:,.0f} of {CONTAINER_GIB * 1024:,} MB; PLATFORM=auto goes up to"
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
        held = run_night(settings, history, lambda line: print(f"  {line}", flush=True))
        print(report(held, bytes_of_rows(settings), options.pools * options.days))


if __name__ == "__main__":
    main()
