"""Inputs of the monthly bill, each with its default and its source. Units are in the names; days
are UTC days. `measured_inputs` replaces the ones that the ledger knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from config_spark import Settings
from workflows.costs.cost import REGION_OF_THE_PAGE


def _input(source: str, default: Any) -> Any:
    """Return a field with the source of its default, which `cost --pools` prints with it."""
    return field(default=default, metadata={"source": source})


TERRAFORM = "terraform's default"
TWO_CORES = "measured on 2 cores"
GUESS = "guess"
CONTAINER = "measured by benchmarks.container"


@dataclass(frozen=True)
class BillInputs:
    """Daily runs, a month of them, and the database.

    The billed share of a job is relative to all machines of its request for the whole run.
    """

    pools: int = _input("asked", 2_000)
    nights: int = _input("a month", 30)
    region: str = _input("the pricing page's", REGION_OF_THE_PAGE)
    engine: str = _input("default in the cloud", "lightgbm")
    train_days: int = _input("default of TRAIN_DAYS", 365)
    refit_days: int = _input("default of REFIT_DAYS", 7)
    max_executors: int = _input("default of MAX_EXECUTORS", 20)
    snapshots_of_a_day: float = _input(f"{GUESS}: raw rows of a pool and day", 4)
    days_read: float = _input("30 of the longest window, 7 carried, 7 of late rows, today", 45)
    metrics_rows_per_core_second: float = _input(
        f"{TWO_CORES}: 28.6 million rows in 434 s", 33_000.0
    )
    forecast_seconds_per_pool: float = _input(f"{TWO_CORES}: 487 pools in 14 s", 14 / 487)
    refit_seconds_per_pool: float = _input(f"{TWO_CORES}: 487 pools in 29 s", 29 / 487)
    executor: str = _input("default of EXECUTOR", "auto")
    cold_seconds: float = _input(f"{GUESS}: Python, the JVM, first tasks of cold executors", 45.0)
    cold_seconds_without_jvm: float = _input(f"{GUESS}: Python in a new container", 10.0)
    metrics_billed_share: float = _input("the most: all executors, all the time", 1.0)
    forecast_billed_share: float = _input("the most: all executors, all the time", 1.0)
    history_days: int = _input(f"{GUESS}: days that the database keeps", 365)
    raw_row_bytes: float = _input(f"{CONTAINER}, with indexes", 311.0)
    pool_day_bytes: float = _input(
        f"{CONTAINER}: 492 of metrics and observations, 825 of forecasts", 1_317.0
    )
    database_tier: str = _input(TERRAFORM, "db-custom-1-3840")
    database_replicas: int = _input(f"{TERRAFORM}: one zone", 1)
    database_disk_gb: float = _input(f"{TERRAFORM}; it grows with the data", 20.0)
    free_disk_share: float = _input(f"{GUESS}: of the disk, for merges and transaction logs", 0.5)
    backup_share: float = _input(f"{GUESS}: a whole copy, and each kept day's changes", 1.5)


SOURCES: Mapping[str, str] = MappingProxyType(
    {entry.name: entry.metadata["source"] for entry in fields(BillInputs)}
)
"""Source of each default."""


def inputs_of(settings: Settings, pools: int) -> tuple[BillInputs, dict[str, str]]:
    """Return the inputs with the values of the settings, and the source of each."""
    sourced_values = {
        "pools": ("asked", pools),
        "engine": ("ENGINE", settings.engine),
        "train_days": ("TRAIN_DAYS", settings.train_days),
        "refit_days": ("REFIT_DAYS", settings.refit_days),
        "max_executors": ("MAX_EXECUTORS", settings.max_executors),
        "executor": ("EXECUTOR", settings.executor),
        **({"region": ("REGION", settings.region)} if settings.region else {}),
    }
    # without REGION the pricing page's region stays
    values = {name: value for name, (_, value) in sourced_values.items()}
    inputs = BillInputs(**values)  # type: ignore[arg-type]
    return inputs, dict(SOURCES) | {name: source for name, (source, _) in sourced_values.items()}
