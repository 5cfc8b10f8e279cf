"""Prices batches and Cloud Run jobs by Google's list prices (`prices.toml`): estimates before a
run, actual cost from reported usage after it.

Costs are USD, usage is DCU-hours and GB-months of shuffle storage. Discounts and free tiers are
not included; only the standard tier is priced.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from common.errors import ConfigurationError
from workflows.spec.batch_size import CORES, MIN_EXECUTORS

PRICES = Path(__file__).with_name("prices.toml")
REGION_OF_THE_PAGE = "us-central1"

SECONDS_OF_AN_HOUR = 3600
DEFAULT_MEMORY_MIB = {"memory": 12_200.0, "memoryOverhead": 1_220.0}
DEFAULT_DISK_GB = 400.0
"""Memory and disk of the service's default machine of 4 cores."""


MEMORY = re.compile(r"(\d+)([kmgt])b?", re.IGNORECASE)
MIB_OF_A_UNIT = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}


@dataclass(frozen=True)
class Cost:
    """USD by the list prices of a region, and the usage it pays for."""

    usd: float
    dcu_hours: float
    shuffle_gb_months: float
    region: str


@cache
def prices() -> dict[str, Any]:
    """Return the price table."""
    return tomllib.loads(PRICES.read_text(encoding="utf-8"))


def actual_cost(batch: Mapping[str, Any], *, region: str | None = None) -> Cost | None:
    """Return the cost of an ended batch from `runtimeInfo.approximateUsage`.

    Args:
        batch: Batch as the REST API's JSON.
        region: Region if the batch does not name it.

    Returns:
        The cost; None until the service reports the usage, some minutes after the end.

    Raises:
        ConfigurationError: The region has no price.
    """
    # int64 fields are text in the REST API's JSON
    usage = batch.get("runtimeInfo", {}).get("approximateUsage", {})
    if "milliDcuSeconds" not in usage:
        return None
    return _priced(
        int(usage["milliDcuSeconds"]) / 1000,
        int(usage.get("shuffleStorageGbSeconds", 0)),
        region or region_of(batch),
    )


def estimate(batch: Mapping[str, Any], seconds: float, *, region: str | None = None) -> Cost:
    """Return the highest cost of a batch: all executors for all of the time.

    Args:
        batch: Batch as the REST API's JSON.
        seconds: Duration, start-up included.
        region: Region if the batch does not name it.

    Raises:
        ConfigurationError: The region has no price.
    """
    serverless = prices()["serverless"]
    properties = batch.get("runtimeConfig", {}).get("properties", {})
    executors = int(properties.get("spark.dynamicAllocation.maxExecutors", MIN_EXECUTORS))
    dcu = _dcu(properties, "driver", serverless) + executors * _dcu(
        properties, "executor", serverless
    )
    # the service bills the disk of each machine as shuffle storage
    disk_gb = _disk_gb(properties, "driver") + executors * _disk_gb(properties, "executor")
    billed = max(seconds, serverless["least_seconds"])
    return _priced(dcu * billed, disk_gb * billed, region or region_of(batch))


def region_of(batch: Mapping[str, Any]) -> str:
    """Return the region in a batch's name or subnetwork, else that of the pricing page."""
    subnetwork = (
        batch.get("environmentConfig", {}).get("executionConfig", {}).get("subnetworkUri", "")
    )
    match = re.search(r"/(?:locations|regions)/([^/]+)/", f"{batch.get('name', '')} {subnetwork}")
    return match[1] if match else REGION_OF_THE_PAGE


def cloud_run_usd(vcpu: float, gib: float, seconds: float, *, region: str) -> float:
    """Return the USD of one run of a Cloud Run job."""
    rates = prices()["cloud_run"]
    billed = max(seconds, rates["least_seconds"])
    # regions of tier 2 are dearer by one factor for CPU and memory
    factor = 1.0 if region in rates["tier_1"] else rates["tier_2_factor"]
    return float(factor * billed * (vcpu * rates["vcpu_second"] + gib * rates["gib_second"]))


def _priced(dcu_seconds: float, shuffle_gb_seconds: float, region: str) -> Cost:
    serverless = prices()["serverless"]
    if region not in serverless["regions"]:
        raise ConfigurationError(
            f"{PRICES.name} has no prices of region {region!r}; it has"
            f" {', '.join(serverless['regions'])}. Add a line to it"
        )
    rates = serverless["regions"][region]
    dcu_hours = dcu_seconds / SECONDS_OF_AN_HOUR
    gb_months = shuffle_gb_seconds / SECONDS_OF_AN_HOUR / serverless["hours_of_a_month"]
    return Cost(
        dcu_hours * rates["dcu_hour"] + gb_months * rates["shuffle_gb_month"],
        dcu_hours,
        gb_months,
        region,
    )


def _dcu(properties: Mapping[str, str], role: str, serverless: Mapping[str, Any]) -> float:
    cores = int(properties.get(f"spark.{role}.cores", CORES[0]))
    memory_mib = sum(
        _mib(properties, f"spark.{role}.{name}", default)
        for name, default in DEFAULT_MEMORY_MIB.items()
    )
    gb = memory_mib / 1024 + cores * serverless["system_gb_of_a_vcpu"]
    lower_rate_gb = min(gb, cores * serverless["gb_of_a_vcpu_at_the_lower_rate"])
    higher_rate_gb = gb - lower_rate_gb
    rates = (
        serverless["dcu_of_a_vcpu"],
        serverless["dcu_of_a_gb"],
        serverless["dcu_of_a_gb_above"],
    )
    return float(cores * rates[0] + lower_rate_gb * rates[1] + higher_rate_gb * rates[2])


def _disk_gb(properties: Mapping[str, str], role: str) -> float:
    return _mib(properties, f"spark.dataproc.{role}.disk.size", DEFAULT_DISK_GB * 1024) / 1024


def _mib(properties: Mapping[str, str], name: str, default: float) -> float:
    """Convert a JVM memory string such as 2048m to MiB; the default if it is none."""
    memory = MEMORY.fullmatch(properties.get(name, "").strip())
    return int(memory[1]) * MIB_OF_A_UNIT[memory[2].lower()] if memory else default
