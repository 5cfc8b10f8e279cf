"""A cloud for tests of the workflow: all fakes at one address and on one virtual clock, a release
with the builder's batches, and executions of pipeline.yaml by the interpreter or the PyPI emulator.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from common.jobs import job_names
from config_spark import Settings
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.fake_cloud_run import FakeCloudRun
from emulator.services.fake_dataproc import FakeDataproc
from emulator.services.fake_executions import FakeExecutions
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from emulator.services.http_service import Answer, Request, Service
from emulator.services.object_store import Conditions
from emulator.workflow_engine import VirtualClock, execute, route_to
from workflows.releases.code_bucket import md5_hash
from workflows.releases.release_batches import job_entries
from workflows.spec.batch_request import batch_key, build_batch
from workflows.spec.platforms import platform_rows
from workflows.spec.release_paths import (
    VALIDATE_JOB,
    Release,
    cloud_run_job,
    entry_name,
    jar_name,
)

PIPELINE = (Path(__file__).resolve().parents[2] / "workflows" / "pipeline.yaml").read_text(
    encoding="utf-8"
)
PROJECT, REGION, WORKFLOW, BUCKET = (
    "test-project",
    "europe-west1",
    "yieldspark-pipeline",
    "code-bucket",
)
WORKFLOW_PATH = f"projects/{PROJECT}/locations/{REGION}/workflows/{WORKFLOW}"
NEW, OLD = "b" * 40, "a" * 40
DEADLINE = 7800
JARS = (
    "postgresql-42.7.5.jar",
    "synapseml-core_2.12-1.1.3.jar",
    "synapseml-lightgbm_2.12-1.1.3.jar",
    "lightgbmlib-3.3.510.jar",
    "spray-json_2.12-1.3.5.jar",
)


def release_files() -> list[str]:
    """Return the files of a release, without its two JSON files."""
    entries = [entry_name(job) for job in job_names()]
    return ["yieldspark.zip", *entries, *(jar_name(jar) for jar in JARS)]


USUAL = BatchScript()

Log = Callable[[dict[str, Any]], None]
Executor = Callable[[str, Any, Mapping[str, str], str, VirtualClock, Log], Any]
"""Receives source, argument, environment, address of the fakes, clock, and the function that takes
log entries. Raises WorkflowFailed.
"""


def by_interpreter(
    source: str,
    argument: Any,
    environment: Mapping[str, str],
    url: str,
    clock: VirtualClock,
    log: Log,
) -> Any:
    return execute(
        source, argument, environment=environment, transport=route_to(url), clock=clock, log=log
    )


class SharedClock(Service):
    """Serves the virtual clock to other processes: POST /clock/sleep?seconds=S advances it."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.clock = clock
        self.route("GET", "/clock/now", lambda request: Answer({"now": clock.now()}))
        self.route("POST", "/clock/sleep", self._sleep)

    def _sleep(self, request: Request) -> Answer:
        self.clock.sleep(float(request.query["seconds"]))
        return Answer({"now": self.clock.now()})


@dataclass
class Outcome:
    """End of an execution. `error` is the payload that was raised, `log` the entries' maps."""

    execution: str
    state: str
    result: Any
    error: Any
    log: list[dict[str, Any]]

    @property
    def events(self) -> list[str]:
        return [entry["jsonPayload"]["event"] for entry in self.log]


@dataclass
class World:
    """The fakes, and executions on them. `before` is called with an execution's id before its first
    step.
    """

    url: str
    clock: VirtualClock
    storage: FakeStorage
    dataproc: FakeDataproc
    cloud_run: FakeCloudRun
    executor: Executor
    source: str = PIPELINE
    before: Callable[[str], object] = str
    logs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    hold: threading.Event = field(default_factory=threading.Event)

    def run(self, argument: Any = None) -> Outcome:
        """Start an execution over the API and wait for its end."""
        name = self.start(argument)["name"]
        while (execution := self.ask("GET", f"/v1/{name}"))["state"] == "ACTIVE":
            time.sleep(0.005)
        execution_id = name.rpartition("/")[2]
        payload = execution.get("error", {}).get("payload")
        result = json.loads(execution.get("result", "null"))
        return Outcome(
            execution_id,
            execution["state"],
            result,
            payload and json.loads(payload),
            self.logs[execution_id],
        )

    def start(self, argument: Any) -> Any:
        return self.ask(
            "POST", f"/v1/{WORKFLOW_PATH}/executions", {"argument": json.dumps(argument)}
        )

    def execute(self, execution_id: str, argument: Any) -> Any:
        """Run an execution for the fake. The argument "hold" waits for the test."""
        if argument == "hold":
            self.hold.wait()
            return None
        environment = {
            "GOOGLE_CLOUD_PROJECT_ID": PROJECT,
            "GOOGLE_CLOUD_LOCATION": REGION,
            "GOOGLE_CLOUD_WORKFLOW_ID": WORKFLOW,
            "GOOGLE_CLOUD_WORKFLOW_EXECUTION_ID": execution_id,
            "CODE_BUCKET": BUCKET,
        }
        self.before(execution_id)
        log = self.logs.setdefault(execution_id, [])
        return self.executor(self.source, argument, environment, self.url, self.clock, log.append)

    def put_release(self, version: str, batches: Any) -> None:
        """Write a release with these batches, its files and its manifest."""
        files = {name: f"{name} of {version}".encode() for name in release_files()}
        files["batches.json"] = json.dumps(batches).encode()
        entries = {name: {"md5": md5_hash(content)} for name, content in files.items()}
        for name, content in files.items():
            self.put(f"versions/{version}/{name}", content)
        self.put(f"versions/{version}/manifest.json", {"version": version, "files": entries})

    def put(self, name: str, value: Any) -> None:
        """Write an object to the code bucket; bytes as they are, other values as JSON.

        It goes to the store without a request: a world has 22 of them.
        """
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        settings = {"contentType": "application/json"}
        self.storage.store.write(BUCKET, name, content, settings, Conditions(), {})

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, content, {"content-type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request) as response:
            return json.loads(response.read())

    @property
    def created(self) -> list[Request]:
        """Return the requests that create a batch."""
        return [
            request
            for request in self.dataproc.requests
            if request.method == "POST" and request.path.endswith("/batches")
        ]

    @property
    def cancels(self) -> list[str]:
        """Return the paths of requests that cancel something."""
        requests = [*self.dataproc.requests, *self.cloud_run.requests]
        return [request.path for request in requests if request.path.endswith(":cancel")]


@contextmanager
def world(
    folder: Path,
    executor: Executor,
    source: str = PIPELINE,
    *,
    dataproc: BatchScript | Callable[[str], BatchScript] = USUAL,
    cloud_run: BatchScript = USUAL,
    deadline: int = DEADLINE,
) -> Iterator[World]:
    """Run the fakes while the block runs.

    Args:
        folder: Storage of the fake.
        executor: Executes the workflow.
        source: Source of the workflow.
        dataproc: Behaviour of a batch, or a function from its id to it.
        cloud_run: Behaviour of an execution of a Cloud Run job.
        deadline: Deadline of the releases, in seconds.
    """
    clock = VirtualClock()
    storage, batches, containers = (
        FakeStorage(folder, [BUCKET]),
        FakeDataproc(dataproc, now=clock.now),
        FakeCloudRun(cloud_run, now=clock.now),
    )
    services: list[Service] = [storage, batches, containers, SharedClock(clock)]
    with serving(services) as url:
        cloud = World(url, clock, storage, batches, containers, executor, source)
        services.append(FakeExecutions(cloud.execute, now=clock.now))
        for version in (OLD, NEW):
            cloud.put_release(version, release_batches(version) | {"deadline_seconds": deadline})
        cloud.put("latest.json", {"version": NEW, "manifest_sha256": "0" * 64})
        try:
            yield cloud
        finally:
            cloud.hold.set()


def release_batches(version: str) -> dict[str, Any]:
    """Return a copy of the release's batches.json, which the caller may change."""
    document: dict[str, Any] = json.loads(_released(version, job_names()))
    return document


@cache
def _released(version: str, _jobs: tuple[str, ...]) -> str:
    settings = Settings(
        _env_file=None,
        project_id=PROJECT,
        region=REGION,
        db_host="10.0.0.5",
        db_password_secret=f"projects/{PROJECT}/secrets/db/versions/1",
        code_bucket=BUCKET,
        staging_bucket="staging-bucket",
        batch_service_account=f"batch@{PROJECT}.iam.gserviceaccount.com",
        batch_subnetwork="yieldspark",
        container_image=f"{REGION}-docker.pkg.dev/{PROJECT}/yieldspark/batch@sha256:{'0' * 64}",
        mlflow_tracking_uri="postgresql+psycopg2://10.0.0.5/mlflow",
        mlflow_artifacts_uri="gs://models-bucket/models",
    )
    release = Release(BUCKET, version, JARS)
    document = {
        "version": version,
        "project": PROJECT,
        "region": REGION,
        "jobs": job_entries(),
        "batches": {
            batch_key(row.job, row.engine): build_batch(
                settings, release, row.job, engine=row.engine, today=date(2026, 1, 1)
            )
            for row in platform_rows()
        },
        "cloud_run_jobs": {job: cloud_run_job(job) for job in job_names()},
        "validation_job": VALIDATE_JOB,
        "deadline_seconds": DEADLINE,
    }
    return json.dumps(document)
