"""Settings, a release and batches for the tests of batches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import date
from typing import Any

from common.jobs import CALCULATE_METRICS, FORECAST_POOLS
from config_spark import Settings, load_settings
from workflows.spec.batch_request import build_batch
from workflows.spec.release_paths import Release

TODAY = date(2026, 11, 22)
PASSWORD = "correct-horse"
SECRET = "projects/a-project/secrets/yieldspark-db/versions/3"
IMAGE = "europe-west1-docker.pkg.dev/a-project/jobs/yieldspark@sha256:" + "0123456789abcdef" * 4

REGISTRY = "postgresql+psycopg2://10.20.0.3/mlflow"

RELEASE = Release(
    "a-project-code",
    "2158279" + "0" * 33,
    (
        "lightgbmlib-3.3.510.jar",
        "postgresql-42.7.14.jar",
        "spray-json_2.12-1.3.5.jar",
        "synapseml-core_2.12-1.1.3.jar",
        "synapseml-lightgbm_2.12-1.1.3.jar",
    ),
)

BATCHES: tuple[tuple[str, str | None], ...] = (
    (CALCULATE_METRICS.name, None),
    (FORECAST_POOLS.name, "lightgbm"),
    (FORECAST_POOLS.name, "synapseml"),
)


def cloud_settings(**overrides: Any) -> Settings:
    """Return the settings of a user who submits batches."""
    settings: dict[str, Any] = {
        "project_id": "a-project",
        "region": "europe-west1",
        "db_host": "10.20.0.3",
        "db_password": PASSWORD,
        "db_password_secret": SECRET,
        "code_bucket": "a-project-code",
        "staging_bucket": "a-project-staging",
        "batch_service_account": "batches@a-project.iam.gserviceaccount.com",
        "batch_subnetwork": "projects/a-project/regions/europe-west1/subnetworks/yieldspark",
        "container_image": IMAGE,
        "mlflow_tracking_uri": REGISTRY,
        "mlflow_artifacts_uri": "gs://a-project-models/models",
    }
    return load_settings(_env_file=None, **(settings | overrides))


def a_batch(
    job: str = CALCULATE_METRICS.name, engine: str | None = None, **overrides: Any
) -> dict[str, Any]:
    """Return a valid batch; overrides are settings."""
    return build_batch(cloud_settings(**overrides), RELEASE, job, engine=engine, today=TODAY)


def properties_of(batch: dict[str, Any]) -> dict[str, str]:
    properties: dict[str, str] = batch["runtimeConfig"]["properties"]
    return properties


def changed(batch: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return a copy with one fault."""
    broken = copy.deepcopy(batch)
    change(broken)
    return broken
