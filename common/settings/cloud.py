"""Settings of Google Cloud."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from common.settings.addresses import Origin
from common.settings.paths import AbsolutePath
from common.version import PRODUCT_VERSION


class CloudSettings(BaseSettings):
    """Google Cloud: project, buckets, batches, and the release that runs."""

    code_version: str = Field(
        PRODUCT_VERSION,
        description="version recorded in the run ledger; a release sets it to its commit",
    )
    project_id: str | None = Field(None, description="Google Cloud project")
    region: str | None = Field(
        None, description="Google Cloud region of the batches, the workflow and the Cloud Run jobs"
    )
    google_api_endpoint: Origin | None = Field(
        None,
        description=(
            "address that replaces all Google Cloud services, such as that of the local emulator;"
            " unset: Google Cloud itself"
        ),
    )
    google_api_token_file: AbsolutePath | None = Field(
        None,
        description=(
            "file with the bearer token for GOOGLE_API_ENDPOINT; the command"
            " `python -m workflows local up` prints its path"
        ),
    )
    code_bucket: str | None = Field(None, description="bucket of the releases, the name alone")
    staging_bucket: str | None = Field(
        None, description="bucket for the output of batches, the name alone"
    )
    batch_service_account: str | None = Field(None, description="service account of the batches")
    batch_subnetwork: str | None = Field(
        None,
        description="subnetwork of the batches: projects/P/regions/R/subnetworks/S, or S alone",
    )
    container_image: str | None = Field(
        None,
        description=(
            "image with the native packages: HOST/PATH@sha256:..., or HOST/PROJECT/IMAGE:TAG in a"
            " repository with immutable tags"
        ),
    )
    batch_ttl_minutes: Annotated[int, Field(ge=10, le=10_070)] = Field(
        120, description="time after which the service cancels a batch; minutes"
    )
    max_executors: Annotated[int, Field(ge=2, le=2_000)] = Field(
        20, description="maximum number of executors of a batch"
    )
    expected_rows: Annotated[int, Field(ge=0)] = Field(
        1_000_000, description="number of rows that a daily run reads; sizes the batches"
    )
    platform: Literal["dataproc", "cloud_run", "auto"] = Field(
        "dataproc",
        description=(
            "where the jobs of a release run: Dataproc batches (`dataproc`), Cloud Run jobs"
            " (`cloud_run`), or the cheaper of the two for EXPECTED_ROWS (`auto`)"
        ),
    )
    batch_id: str | None = Field(
        None,
        description=(
            "id of the batch or container execution, recorded in the run ledger; the option"
            " `--batch` of a job sets it"
        ),
    )
    workflow_name: str = Field("yieldspark-pipeline", description="name of the Cloud Workflow")
