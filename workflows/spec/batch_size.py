"""Sizes a batch: machines and partitions from the number of rows that the job reads.

Memory is in MiB, disk in GB. Calls no service. The limits are those of Dataproc Serverless:
https://cloud.google.com/dataproc-serverless/docs/concepts/properties.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from common.errors import ConfigurationError
from common.jobs import MemoryNeed, job_spec
from spark.driver_memory import heap_mib

CORES = (4, 8, 16)
MEMORY_PER_CORE_MIB = (1024, 7424)
"""Least and most memory of a core in the standard tier, heap and overhead together."""
MIN_EXECUTORS = 2

# The constants below were measured on 2 cores: metrics of 7.1 million raw rows take 100 s, of 28.6
# million 434 s; a forecast of 487 pools takes 14 s with a champion and 29 s with a refit; 900,000
# feature rows (5,000 pools, 180 days) peak at 4.1 GB in one process.

DISK_GB = 250
"""Shuffle disk of each machine, which is billed whether it is used or not. This is the least that
the service allows; its default is 400 for 4 cores.
"""

MIN_OVERHEAD_MIB = 2048
"""Least overhead for Python and native code. With the least heap it is the least memory of the
smallest machine.
"""

ROWS_PER_EXECUTOR = 10_000_000
"""About 75 s of work on 4 cores. An executor takes a minute to start, so fewer rows save little."""

ROWS_PER_PARTITION = 1_000_000
"""As in the measured run of 7.1 million rows: 8 partitions and a heap of 2 GB."""

MAX_PARTITIONS = 10_000

NATIVE_BYTES_PER_FEATURE_ROW = 3_200
"""Peak of 4.1 GB for 900,000 rows, less about 1.2 GB that does not depend on the rows: the frame in
Python, and LightGBM's own copy.
"""


@dataclass(frozen=True)
class Machine:
    """A driver or an executor: cores, heap of the JVM, and memory of Python and native code."""

    cores: int
    heap_mib: int
    overhead_mib: int


@dataclass(frozen=True)
class BatchSize:
    """The machines and partitions of a batch."""

    driver: Machine
    executor: Machine
    executors_min: int
    executors_max: int
    shuffle_partitions: int

    def properties(self) -> dict[str, str]:
        """Return the properties of `runtimeConfig.properties`, by name."""
        return {
            **_machine_properties("driver", self.driver),
            **_machine_properties("executor", self.executor),
            "spark.dynamicAllocation.enabled": "true",
            # all executors from the start: the rows are known, and a small job would end before
            # the allocation has grown
            "spark.dynamicAllocation.initialExecutors": str(self.executors_max),
            "spark.dynamicAllocation.minExecutors": str(self.executors_min),
            "spark.dynamicAllocation.maxExecutors": str(self.executors_max),
            "spark.sql.shuffle.partitions": str(self.shuffle_partitions),
            # Spark's own value counts the executors that have registered by then, and reads are
            # split by it
            "spark.default.parallelism": str(self.executors_max * self.executor.cores),
        }


def _machine_properties(role: str, machine: Machine) -> dict[str, str]:
    return {
        f"spark.{role}.cores": str(machine.cores),
        f"spark.{role}.memory": f"{machine.heap_mib}m",
        f"spark.{role}.memoryOverhead": f"{machine.overhead_mib}m",
        f"spark.dataproc.{role}.disk.size": f"{DISK_GB}g",
    }


def size_for(job: str, engine: str | None, rows: int, *, max_executors: int) -> BatchSize:
    """Return the smallest batch that holds the rows of a job.

    Args:
        job: name of the job.
        engine: forecasting engine, or None for a job without one.
        rows: raw rows of the metrics job, or rows of daily metrics of a forecast.
        max_executors: largest number of executors (setting MAX_EXECUTORS).

    Raises:
        ConfigurationError: no machine of the standard tier holds the rows of a forecast.
    """
    executors = min(max(MIN_EXECUTORS, ceil(rows / ROWS_PER_EXECUTOR)), max_executors)
    driver_rows, executor_rows = _rows_in_memory(job, engine, rows)
    driver, executor = _machine(driver_rows), _machine(executor_rows)
    # two waves of tasks even out pools of different length
    partitions = max(2 * executor.cores * executors, ceil(rows / ROWS_PER_PARTITION))
    return BatchSize(driver, executor, MIN_EXECUTORS, executors, min(partitions, MAX_PARTITIONS))


def _rows_in_memory(job: str, engine: str | None, rows: int) -> tuple[int, int]:
    """Return the feature rows that the driver and one executor hold at once."""
    if job_spec(job).memory is MemoryNeed.STREAMED:
        return 0, 0
    if engine == "lightgbm":
        # collected, and fitted by native LightGBM in the driver's Python
        return rows, 0
    # one task fits (numTasks=1), and the driver collects the forecasts of past days
    return rows // 4, rows


def _machine(feature_rows: int) -> Machine:
    heap = heap_mib(feature_rows)
    overhead = MIN_OVERHEAD_MIB + ceil(feature_rows * NATIVE_BYTES_PER_FEATURE_ROW / 2**20)
    least, most = MEMORY_PER_CORE_MIB
    cores = next((cores for cores in CORES if heap + overhead <= cores * most), None)
    if cores is None:
        raise ConfigurationError(
            f"{feature_rows:,} feature rows need {heap + overhead:,} MiB on one machine, and the"
            f" standard tier has {CORES[-1] * most:,}; forecast from fewer days (TRAIN_DAYS) or"
            " fewer pools"
        )
    return Machine(cores, max(heap, cores * least - overhead), overhead)
