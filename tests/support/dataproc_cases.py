"""Shared parts of the Dataproc tests: a virtual clock, a valid batch, a served fake and
its client.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config_spark import Settings, load_settings
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.fake_dataproc import FakeDataproc
from emulator.services.http_server import serving
from emulator.services.http_service import Request
from emulator.workflow_engine import VirtualClock
from tests.support.processes import CommandLineHere
from workflows.clients.dataproc import Batches
from workflows.commands import main as entry

PARENT = "projects/acme/locations/europe-west1"
PASSWORD = "correct-horse"
START = 1_760_000_000.0
"""2025-10-09T08:53:20Z."""


def batch_request(ttl: str = "7200s", **properties: str) -> dict[str, Any]:
    """Return a small batch of the metrics job."""
    return {
        "pysparkBatch": {
            "mainPythonFileUri": "gs://acme-code/versions/abc1234/calculate_metrics.py",
            "pythonFileUris": ["gs://acme-code/versions/abc1234/yieldspark.zip"],
            "args": ["--json", "--batch", "metrics-1"],
        },
        "labels": {"app": "yieldspark", "job": "calculate_metrics", "version": "abc1234"},
        "runtimeConfig": {
            "version": "2.3",
            "properties": {
                "spark.driver.cores": "4",
                "spark.driver.memory": "16g",
                "spark.executor.cores": "4",
                "spark.executor.memory": "16g",
                "spark.executor.instances": "2",
                "spark.dynamicAllocation.maxExecutors": "20",
                "spark.sql.shuffle.partitions": "64",
                **properties,
            },
        },
        "environmentConfig": {
            "executionConfig": {
                "serviceAccount": "batch@acme.iam.gserviceaccount.com",
                "subnetworkUri": "projects/acme/regions/europe-west1/subnetworks/batches",
                "stagingBucket": "acme-staging",
                "ttl": ttl,
                "authenticationConfig": {"userWorkloadAuthenticationType": "SERVICE_ACCOUNT"},
            }
        },
    }


@dataclass
class Cloud:
    """A served fake, the product's client, and their clock."""

    url: str
    fake: FakeDataproc
    clock: VirtualClock
    settings: Settings
    batches: Batches

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request; return status and JSON. `path` begins behind /v1/."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/v1/{path}", data, {"content-type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def create(
        self, batch_id: str = "metrics-1", request_id: str = "m-1", body: Any = None
    ) -> tuple[int, Any]:
        return self.ask(
            "POST",
            f"{PARENT}/batches?batchId={batch_id}&requestId={request_id}",
            batch_request() if body is None else body,
        )

    def asked(self, method: str, ending: str = "") -> list[Request]:
        """Return the requests of this method whose path has this ending."""
        return [
            request
            for request in self.fake.requests
            if request.method == method and request.path.endswith(ending)
        ]


@contextmanager
def served(
    script: BatchScript | Callable[[str], BatchScript] = BatchScript(),  # noqa: B008 - frozen
    **fake: Any,
) -> Iterator[Cloud]:
    clock = VirtualClock(START)
    service = FakeDataproc(script, now=clock.now, **fake)
    with serving([service]) as url:
        settings = load_settings(
            _env_file=None, project_id="acme", region="europe-west1", google_api_endpoint=url
        )
        yield Cloud(
            url,
            service,
            clock,
            settings,
            Batches(settings, now=clock.now, sleep=clock.sleep, first_retry_seconds=0.01),
        )


class WorkflowsHere(CommandLineHere):
    """Runs `python -m workflows` in this process, with these variables and no others of
    the product.
    """

    program = "python -m workflows"
    entry = staticmethod(entry.main)

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = os.environ | {"YIELDSPARK_HOME": str(folder / "home")} | dict(variables)


def cloud_variables(url: str) -> dict[str, str]:
    """Return the variables of a user who submits to the fakes; the database does not answer."""
    return {
        "GOOGLE_API_ENDPOINT": url,
        "PROJECT_ID": "acme",
        "REGION": "europe-west1",
        "CODE_BUCKET": "acme-code",
        "STAGING_BUCKET": "acme-staging",
        "BATCH_SERVICE_ACCOUNT": "batch@acme.iam.gserviceaccount.com",
        "BATCH_SUBNETWORK": "projects/acme/regions/europe-west1/subnetworks/batches",
        "CONTAINER_IMAGE": f"europe-west1-docker.pkg.dev/acme/yieldspark/batch@sha256:{'0' * 64}",
        "DB_HOST": "127.0.0.1",
        "DB_PORT": "1",
        "DB_PASSWORD": PASSWORD,
        "DB_PASSWORD_SECRET": "projects/acme/secrets/database-password/versions/1",
    }
