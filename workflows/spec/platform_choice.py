"""Where the jobs of a release run unless a run says otherwise: as batches of Dataproc Serverless,
or as Cloud Run jobs.

In: PLATFORM and EXPECTED_ROWS. Out: the platform and a sentence that says why it was chosen. Pure.
The release keeps both in `batches.json`; the run argument `platform` wins over them.
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
"""Begins the id that a run as a Cloud Run job has in the ledger; what follows is as a batch's."""

CONTAINER_VCPU = 4
CONTAINER_GIB = 16

MEASURED_ENGINE = "lightgbm"

CLOUD_RUN_ROWS = 1_800_000
"""Rows of the larger job. `python -m benchmarks.container`, 5,000 pools and 365 days, 2 cores of an
AMD EPYC: metrics of 1,786,232 raw rows and a forecast of 1,820,834 pool-days that fits its first
model take 986 processor seconds together, 17 minutes on one core, and 8.2 of the 16 GiB with their
files. Beyond it memory is the risk: it grows with the rows of a forecast. Cost is not: by the model
a container is cheaper at every size, as a batch's executors wait while a model is fitted.
"""


@dataclass(frozen=True)
class PlatformChoice:
    """A platform, and why: for a person."""

    platform: PlatformName
    reason: str


def choose_platform(settings: Settings) -> PlatformChoice:
    """PLATFORM itself; with `auto`, what `choice_for` takes for EXPECTED_ROWS and ENGINE."""
    if settings.platform != "auto":
        return PlatformChoice(settings.platform, f"PLATFORM={settings.platform}")
    return choice_for(settings.expected_rows, settings.engine)


def choice_for(rows: int, engine: str) -> PlatformChoice:
    """What PLATFORM=auto takes: Cloud Run jobs for what was measured in a container, else
    batches.
    """
    container = f"a container of {CONTAINER_VCPU} vCPU and {CONTAINER_GIB} GiB"
    if engine != MEASURED_ENGINE:
        return PlatformChoice(
            DATAPROC, f"PLATFORM=auto, and ENGINE={engine} was not measured in {container}"
        )
    asked = f"PLATFORM=auto, and EXPECTED_ROWS={rows} is"
    limit = f"{CLOUD_RUN_ROWS}, the most that was measured in {container}"
    if rows <= CLOUD_RUN_ROWS:
        return PlatformChoice(CLOUD_RUN, f"{asked} at most {limit}")
    return PlatformChoice(DATAPROC, f"{asked} above {limit}")
