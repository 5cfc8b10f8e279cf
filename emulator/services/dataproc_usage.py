"""Usage that Dataproc Serverless reports for a batch
(https://cloud.google.com/dataproc-serverless/pricing), standard tier. Independent of the product's
prices.
"""

from __future__ import annotations

from collections.abc import Mapping

from emulator.services.dataproc_machines import CORES, MIN_EXECUTORS, memory_mib

MIN_BILLED_SECONDS = 60

DCU_PER_VCPU = 0.6
DCU_PER_GB = 0.1
DCU_PER_GB_ABOVE = 0.2
GB_PER_VCPU_AT_THE_LOWER_RATE = 8.0
SYSTEM_GB_PER_VCPU = 0.72
"""Memory of the system, which is billed too: (16 - 13.1) / 4 for the default machine."""

DEFAULT_HEAP_MIB, DEFAULT_OVERHEAD_MIB, DEFAULT_DISK_GB = 12_200.0, 1_220.0, 400.0


INITIAL_EXECUTORS = ("spark.dynamicAllocation.initialExecutors", "spark.executor.instances")
"""Spark starts with the larger of them (Utils.getDynamicAllocationInitialExecutors)."""


def dcu_and_shuffle_gb(properties: Mapping[str, str]) -> tuple[float, float]:
    """Return DCU and GB of shuffle storage of a running batch: driver and initial executors."""
    # without dynamic allocation's changes, which depend on the load
    executors = max(int(properties.get(name, MIN_EXECUTORS)) for name in INITIAL_EXECUTORS)
    dcu = _dcu(properties, "driver") + executors * _dcu(properties, "executor")
    disk_gb = _disk_gb(properties, "driver") + executors * _disk_gb(properties, "executor")
    return dcu, disk_gb


def _dcu(properties: Mapping[str, str], role: str) -> float:
    cores = int(properties.get(f"spark.{role}.cores", CORES[0]))
    heap = _mib(properties, f"spark.{role}.memory", DEFAULT_HEAP_MIB)
    overhead = _mib(properties, f"spark.{role}.memoryOverhead", DEFAULT_OVERHEAD_MIB)
    gb = (heap + overhead) / 1024 + cores * SYSTEM_GB_PER_VCPU
    lower = min(gb, cores * GB_PER_VCPU_AT_THE_LOWER_RATE)
    return cores * DCU_PER_VCPU + lower * DCU_PER_GB + (gb - lower) * DCU_PER_GB_ABOVE


def _disk_gb(properties: Mapping[str, str], role: str) -> float:
    return _mib(properties, f"spark.dataproc.{role}.disk.size", DEFAULT_DISK_GB * 1024) / 1024


def _mib(properties: Mapping[str, str], name: str, default: float) -> float:
    mib = memory_mib(properties.get(name, ""))
    return default if mib is None else mib
