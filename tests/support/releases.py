"""Releases for tests: settings of the fakes, a small release with the files of a real one, and a
check of the bucket.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from config_spark import Settings, load_settings
from emulator.services.fake_storage import FakeStorage
from emulator.services.object_store import Conditions
from workflows.releases.code_bucket import CodeBucket
from workflows.releases.release import publish_content
from workflows.releases.release_content import ReleaseContent, as_json
from workflows.spec.release_paths import (
    BATCHES,
    CODE,
    LATEST,
    MANIFEST,
    OPERATOR_CODE,
    Release,
    object_name,
)

BUCKET = "acme-code"
FIRST, SECOND, THIRD = (letter * 40 for letter in "abc")
JAR = "postgresql-42.7.14.jar"
JAR_BYTES = bytes(range(256)) * 1_200
"""Large enough for an upload in parts."""


def cloud_settings(url: str | None, **more: Any) -> Settings:
    """Return the settings of a release.

    Args:
        url: Address of the fakes; None: Google's.
        more: Further settings.
    """
    settings = {
        "google_api_endpoint": url,
        "project_id": "acme",
        "region": "europe-west1",
        "code_bucket": BUCKET,
        "staging_bucket": "acme-staging",
        "batch_service_account": "batch@acme.iam.gserviceaccount.com",
        "batch_subnetwork": "batches",
        "container_image": f"europe-west1-docker.pkg.dev/acme/yieldspark/batch@sha256:{'0' * 64}",
        "db_host": "10.0.0.3",
        "db_password_secret": "projects/acme/secrets/database-password/versions/1",
        "mlflow_tracking_uri": "postgresql+psycopg2://10.0.0.3/mlflow",
        "mlflow_artifacts_uri": "gs://acme-models/models",
        # the default engine's runtime has a last day
        "engine": "lightgbm",
    }
    return load_settings(_env_file=None, **settings | more)


PLATFORM = {"platform": "dataproc", "platform_reason": "PLATFORM=dataproc"}


def small_release(version: str, **batches: Any) -> ReleaseContent:
    """Return a release with small files; `batches` is the content of batches.json."""
    files = {
        CODE: f"the code of {version}".encode(),
        OPERATOR_CODE: f"the operator's code of {version}".encode(),
        "calculate_metrics.py": b"print('metrics')",
        "forecast_pools.py": b"print('forecast')",
        f"jars/{JAR}": JAR_BYTES,
        BATCHES: as_json({"version": version, **PLATFORM, "batches": batches}),
    }
    return ReleaseContent(Release(BUCKET, version, (JAR,)), version, files)


def publish_at(url: str, content: ReleaseContent, token_file: str | None = None) -> None:
    """Publish from a process of its own."""
    publish_content(CodeBucket(cloud_settings(url, google_api_token_file=token_file)), content)


def objects(fake: FakeStorage) -> dict[str, bytes]:
    """Return all objects of the code bucket."""
    names = list(fake.store.objects_of(BUCKET))
    return {name: fake.store.read(BUCKET, name, Conditions())[1] for name in names}


def latest_version(fake: FakeStorage) -> str | None:
    """Return the version in latest.json after checking that it is complete: its manifest, and every
    file by SHA-256.
    """
    contents = objects(fake)
    if LATEST not in contents:
        return None
    latest = json.loads(contents[LATEST])
    version = str(latest["version"])
    manifest = contents[object_name(version, MANIFEST)]
    assert latest == {"version": version, "manifest_sha256": hashlib.sha256(manifest).hexdigest()}
    files: Mapping[str, Any] = json.loads(manifest)["files"]
    for name, entry in files.items():
        content = contents[object_name(version, name)]
        assert (len(content), hashlib.sha256(content).hexdigest()) == (
            entry["bytes"],
            entry["sha256"],
        ), name
    return version
