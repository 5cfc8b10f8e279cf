"""Monthly list price of Cloud SQL for PostgreSQL: instance, disk and backups. Edition ENTERPRISE as
in terraform/, without committed use or a public address. A GB is 2^30 bytes, as the service
bills it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigurationError
from workflows.costs.bill_inputs import BillInputs
from workflows.costs.cost import PRICES, REGION_OF_THE_PAGE, prices

CUSTOM_TIER = re.compile(r"db-custom-(\d+)-(\d+)")
"""vCPU and MiB of memory."""

BYTES_OF_A_GB = 2**30


@dataclass(frozen=True)
class DatabaseCost:
    """USD of a month.

    Attributes:
        instance_usd: Instance, with its replicas.
        disk_gb: Size of the disk.
        disk_usd: Disk, with its replicas.
        backup_gb: Size of the backups.
        backup_usd: Backups.
        price_region: Region of the prices, if the table has none of the bill's region.
    """

    instance_usd: float
    disk_gb: float
    disk_usd: float
    backup_gb: float
    backup_usd: float
    price_region: str

    @property
    def usd(self) -> float:
        """Return the USD of instance, disk and backups."""
        return self.instance_usd + self.disk_usd + self.backup_usd


def database_cost(inputs: BillInputs) -> DatabaseCost:
    """Price the database of a month.

    Raises:
        ConfigurationError: The tier has no price.
    """
    region, rates = _rates(inputs.region)
    data_gb = _data_gb(inputs)
    # the disk grows with the data and never shrinks
    disk_gb = max(inputs.database_disk_gb, data_gb / (1 - inputs.free_disk_share))
    backup_gb = data_gb * inputs.backup_share
    hours = prices()["cloud_sql"]["hours_of_a_month"]
    return DatabaseCost(
        hours * _usd_an_hour(inputs.database_tier, rates) * inputs.database_replicas,
        disk_gb,
        disk_gb * rates["disk_gb_month"] * inputs.database_replicas,
        backup_gb,
        backup_gb * rates["backup_gb_month"],
        region,
    )


def _data_gb(inputs: BillInputs) -> float:
    """Return the size of tables and indexes: raw snapshots and the product's rows of each pool and
    day.
    """
    bytes_of_a_day = inputs.snapshots_of_a_day * inputs.raw_row_bytes + inputs.pool_day_bytes
    return inputs.pools * inputs.history_days * bytes_of_a_day / BYTES_OF_A_GB


def _rates(region: str) -> tuple[str, dict[str, Any]]:
    regions = prices()["cloud_sql"]["regions"]
    priced_region = region if region in regions else REGION_OF_THE_PAGE
    return priced_region, regions[priced_region]


def _usd_an_hour(tier: str, rates: dict[str, Any]) -> float:
    shared_core_prices = prices()["cloud_sql"]["shared_core_hour"]
    if tier in shared_core_prices:
        return float(shared_core_prices[tier])
    custom = CUSTOM_TIER.fullmatch(tier)
    if not custom:
        raise ConfigurationError(
            f"{PRICES.name} has no price of the Cloud SQL tier {tier!r}; it has"
            f" db-custom-VCPU-MIB and {', '.join(shared_core_prices)}. Add a line to it"
        )
    vcpu, mib = (int(part) for part in custom.groups())
    return float(vcpu * rates["vcpu_hour"] + mib / 1024 * rates["memory_gb_hour"])
