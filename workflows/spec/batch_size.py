"""How big a batch is: rows that the job will read in, machines and partitions out. Pure; memory in
MiB, disk in GB.

Rules of the service (https://cloud.google.com/dataproc-serverless/docs/concepts/properties): 4, 8
or 16 cores; of memory 1024 to 7424 MiB a core in the standard tier, to 24576 in the premium one,
heap and overhead together; 2 executors at least. What stands here for time and memory was measured
on 2 cores: metrics of 7.1 million raw rows take 100 s, of 28.6 million 434 s; a night of 487 pools
14 s with a champion and 29 s with a refit; 900,000 feature rows (5,000 pools, 180 days) peak at 4.1
GB in one process.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from common.errors import ConfigurationError
from common.jobs import MemoryNeed, job_spec

CORES = (4, 8, 16)
MEMORY_PER_CORE_MIB = (1024, 7424)
MIN_EXECUTORS = 2

DISK_GB = 250
"""What each machine gets for shuffles, and what it costs with or without any: the service's own
default is 400 for 4 cores, and the least is this.
"""

SMALLEST_HALF_MIB = 2048
"""Heap, and as much beside it for Python and native code: the two are the least memory of the least
machine. All of a laptop's run has this heap.
"""

ROWS_OF_AN_EXECUTOR = 10_000_000
"""Some 75 s of work on 4 cores. Fewer rows would buy seconds, and every executor costs its start-up
of a minute.
"""

ROWS_OF_A_PARTITION = 1_000_000
"""As in the run of 7.1 million rows on the laptop's 8 partitions, with a heap of 2 GB."""

MOST_PARTITIONS = 10_000

JVM_BYTES_OF_A_FEATURE_ROW = 800
"""400 of data, and as much again while they are handed on."""

NATIVE_BYTES_OF_A_FEATURE_ROW = 3_200
"""Peak of 4.1 GB for 900,000 rows, less some 1.2 GB that no row causes: the frame in Python, and
LightGBM's own copy beside it.
"""


@dataclass(frozen=True)
class Machine:
    """A driver or an executor: cores, the JVM's heap, and what Python and native code have beside
    it.
    """

    cores: int
    heap_mib: int
    overhead_mib: int


@dataclass(frozen=True)
class BatchSize:
    """What a batch's properties say. Executors begin at executors_max: the rows are known, and a
    small job ends before a ramp of minutes does.
    """

    driver: Machine
    executor: Machine
    executors_min: int
    executors_max: int
    shuffle_partitions: int

    def properties(self) -> dict[str, str]:
        """As `runtimeConfig.properties` of a batch has it."""
        return {
            **_properties_of("driver", self.driver),
            **_properties_of("executor", self.executor),
            "spark.dynamicAllocation.enabled": "true",
            "spark.dynamicAllocation.initialExecutors": str(self.executors_max),
            "spark.dynamicAllocation.minExecutors": str(self.executors_min),
            "spark.dynamicAllocation.maxExecutors": str(self.executors_max),
            "spark.sql.shuffle.partitions": str(self.shuffle_partitions),
            # Spark's own value counts the executors that have registered by then, and reads are
            # split by it
            "spark.default.parallelism": str(self.executors_max * self.executor.cores),
        }


def _properties_of(role: str, machine: Machine) -> dict[str, str]:
    return {
        f"spark.{role}.cores": str(machine.cores),
        f"spark.{role}.memory": f"{machine.heap_mib}m",
        f"spark.{role}.memoryOverhead": f"{machine.overhead_mib}m",
        f"spark.dataproc.{role}.disk.size": f"{DISK_GB}g",
    }


def size_for(job: str, engine: str | None, rows: int, *, max_executors: int) -> BatchSize:
    """Args: rows are raw rows for the metrics, rows of daily metrics for a forecast; max_executors
    is the setting's ceiling.

    A small night gets the smallest batch that is legal: two jobs a night for at most 3 USD a month
    (`workflows.costs.cost`).
    Raises: ConfigurationError where no machine of the standard tier holds the rows of a forecast.
    """
    executors = min(max(MIN_EXECUTORS, ceil(rows / ROWS_OF_AN_EXECUTOR)), max_executors)
    held_here, held_there = _held(job, engine, rows)
    driver, executor = _machine(held_here), _machine(held_there)
    # two waves of tasks even out pools of different length
    partitions = max(2 * executor.cores * executors, ceil(rows / ROWS_OF_A_PARTITION))
    return BatchSize(driver, executor, MIN_EXECUTORS, executors, min(partitions, MOST_PARTITIONS))


def _held(job: str, engine: str | None, rows: int) -> tuple[int, int]:
    """Feature rows that the driver and one executor hold at once."""
    if job_spec(job).memory is MemoryNeed.STREAMED:
        return 0, 0  # they pass through, a partition at a time
    if engine == "lightgbm":
        return rows, 0  # collected, and fitted by native LightGBM in the driver's Python
    return (
        rows // 4,
        rows,
    )  # one task fits (numTasks=1), and what was forecast on past days comes back


def _machine(feature_rows: int) -> Machine:
    heap = SMALLEST_HALF_MIB + ceil(feature_rows * JVM_BYTES_OF_A_FEATURE_ROW / 2**20)
    overhead = SMALLEST_HALF_MIB + ceil(feature_rows * NATIVE_BYTES_OF_A_FEATURE_ROW / 2**20)
    _, most = MEMORY_PER_CORE_MIB
    cores = next((cores for cores in CORES if heap + overhead <= cores * most), None)
    if cores is None:
        raise ConfigurationError(
            f"{feature_rows:,} feature rows need {heap + overhead:,} MiB on one machine, and the"
            f" standard tier has {CORES[-1] * most:,}; forecast from fewer days (TRAIN_DAYS) or"
            " fewer pools"
        )
    least = MEMORY_PER_CORE_MIB[0]
    return Machine(cores, max(heap, cores * least - overhead), overhead)
