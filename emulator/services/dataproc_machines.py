"""Rules of Dataproc Serverless for the machines in a batch's properties: cores, memory, tiers,
number of executors. Properties that are not set have the service's defaults, which are valid.

Source: https://cloud.google.com/dataproc-serverless/docs/concepts/properties
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

CORES = (4, 8, 16)
MEMORY_PER_CORE_MIB = {"standard": (1024, 7424), "premium": (1024, 24_576)}
MIN_EXECUTORS = 2
MAX_EXECUTORS = 2_000

OVERHEAD_SHARE = 0.4
"""Memory overhead as a share of the heap, if a PySpark batch does not set it."""

MEMORY = re.compile(r"(\d+)([kmgt])b?", re.IGNORECASE)
MIB_OF_A_UNIT = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}


def machine_faults(properties: Mapping[str, str]) -> list[str]:
    """Return a message for each fault of driver, executors and their number."""
    return [
        *_role_faults(properties, "driver"),
        *_role_faults(properties, "executor"),
        *_tier_faults(properties),
        *_executor_faults(properties),
    ]


def memory_mib(text: str) -> float | None:
    """Convert a JVM memory string such as 2048m or 4g to MiB; None if it is none."""
    match = MEMORY.fullmatch(text.strip())
    return int(match[1]) * MIB_OF_A_UNIT[match[2].lower()] if match else None


def _role_faults(properties: Mapping[str, str], role: str) -> Iterator[str]:
    cores_text = properties.get(f"spark.{role}.cores", str(CORES[0]))
    cores = int(cores_text) if cores_text.isdecimal() else None
    if cores not in CORES:
        yield f"spark.{role}.cores={cores_text}: allowed are {', '.join(map(str, CORES))}"
    sizes = {}
    for name in (
        f"spark.{role}.memory",
        f"spark.{role}.memoryOverhead",
        # the service counts off-heap memory into the limits of an executor
        *(["spark.memory.offHeap.size"] if role == "executor" else []),
    ):
        if name in properties:
            sizes[name] = memory_mib(properties[name])
            if sizes[name] is None:
                yield (
                    f"{name}={properties[name]}: memory is a number with k, m, g or t behind it,"
                    " such as 2048m"
                )
    heap = sizes.get(f"spark.{role}.memory")
    # a fault above is reported already; without a heap the service's defaults apply, which fit
    if cores not in CORES or heap is None or None in sizes.values():
        return
    total = sum(size for size in sizes.values() if size is not None)
    if f"spark.{role}.memoryOverhead" not in sizes:
        total += OVERHEAD_SHARE * heap
    tier = _tier(properties, role)
    least, most = MEMORY_PER_CORE_MIB[tier]
    if not least <= total / cores <= most:
        yield (
            f"{role} has {total / cores:g} MiB of memory a core, overhead included: the {tier} tier"
            f" allows {least} to {most}, {least * cores} to {most * cores} for its {cores} cores"
        )


def _tier(properties: Mapping[str, str], role: str) -> str:
    tier = (
        properties.get(f"spark.dataproc.{role}.compute.tier")
        or properties.get("dataproc.tier")
        or "standard"
    )
    return tier if tier in MEMORY_PER_CORE_MIB else "standard"


def _tier_faults(properties: Mapping[str, str]) -> Iterator[str]:
    names = (
        "dataproc.tier",
        "spark.dataproc.driver.compute.tier",
        "spark.dataproc.executor.compute.tier",
    )
    present = [name for name in names if name in properties]
    for name in present:
        if properties[name] not in MEMORY_PER_CORE_MIB:
            yield f"{name}={properties[name]}: allowed are {', '.join(MEMORY_PER_CORE_MIB)}"
    if len(present) > 1 and present[0] == names[0]:
        yield f"{names[0]} and {present[1]} are both set; the service accepts only one"


def _executor_faults(properties: Mapping[str, str]) -> Iterator[str]:
    most_name = "spark.dynamicAllocation.maxExecutors"
    counted = {}
    for name in (
        "spark.executor.instances",
        "spark.dynamicAllocation.minExecutors",
        "spark.dynamicAllocation.initialExecutors",
        most_name,
    ):
        if name not in properties:
            continue
        text = properties[name]
        if text.isdecimal() and MIN_EXECUTORS <= int(text) <= MAX_EXECUTORS:
            counted[name] = int(text)
        else:
            yield f"{name}={text}: allowed are {MIN_EXECUTORS} to {MAX_EXECUTORS}"
    for name, number in counted.items():
        if number > counted.get(most_name, number):
            yield f"{name}={number} is above {most_name}={counted[most_name]}"
