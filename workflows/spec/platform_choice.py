"""Chooses the platform on which the jobs of a release run: Dataproc Serverless or Cloud Run jobs.

Reads the settings PLATFORM, EXPECTED_ROWS and ENGINE; asks no service. The release keeps the choice
and its reason in `batches.json`; the argument `platform` of a run takes precedence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from config_spark import Settings

PlatformName = Literal["dataproc", "cloud_run"]

DATAPROC: PlatformName = "dataproc"
CLOUD_RUN: PlatformName = "cloud_run"
PLATFORMS: tuple[PlatformName, ...] = (DATAPROC, CLOUD_RUN)

CLOUD_RUN_PREFIX = "cloud-run-"
"""Begins the id of a run as a Cloud Run job in the run ledger; the rest is as a batch's id."""

CONTAINER_VCPU = 4
CONTAINER_GIB = 16

MEASURED_ENGINE = "lightgbm"
"""The engine with which a container was measured."""

CLOUD_RUN_ROWS = 1_800_000
"""Rows of the larger job that were measured in a container.

`python -m benchmarks.container` with 5,000 pools and 365 days on 2 cores of an AMD EPYC: metrics of
1,786,232 raw rows and a forecast of 1,820,834 pool-days that fits its first model take 986
processor seconds together and 8.2 of the 16 GiB. Above this number memory is the risk, because it
grows with the rows of a forecast. Cost is not: by the model a container is cheaper at every size.
"""


@dataclass(frozen=True)
class PlatformChoice:
    """A platform, and the reason for it as a sentence."""

    platform: PlatformName
    reason: str


def choose_platform(settings: Settings) -> PlatformChoice:
    """Return the platform of PLATFORM; for `auto`, that of EXPECTED_ROWS and ENGINE."""
    if settings.platform != "auto":
        return PlatformChoice(settings.platform, f"PLATFORM={settings.platform}")
    return choice_for(settings.expected_rows, settings.engine)


def choice_for(rows: int, engine: str) -> PlatformChoice:
    """Return the platform for PLATFORM=auto: Cloud Run jobs for measured sizes, else batches.

    Args:
        rows: rows of the larger job.
        engine: forecasting engine; only MEASURED_ENGINE was measured in a container.
    """
    container = f"a container of {CONTAINER_VCPU} vCPU and {CONTAINER_GIB} GiB"
    if engine != MEASURED_ENGINE:
        return PlatformChoice(
            DATAPROC, f"PLATFORM=auto, and ENGINE={engine} was not measured in {container}"
        )
    setting = f"PLATFORM=auto, and EXPECTED_ROWS={rows} is"
    limit = f"{CLOUD_RUN_ROWS}, the most that was measured in {container}"
    if rows <= CLOUD_RUN_ROWS:
        return PlatformChoice(CLOUD_RUN, f"{setting} at most {limit}")
    return PlatformChoice(DATAPROC, f"{setting} above {limit}")
