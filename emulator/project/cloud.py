"""An emulated project: the control plane that Terraform applies to, and the services of
`emulator/services/` that then run what it made, each caller with its own rights.

In: a folder, a project, optionally a PostgreSQL server for its Cloud SQL instance. Out: the control
plane's address, an address for every identity, and jobs that really run as processes. Batches,
container jobs and the workflow get what the control plane was told, and nothing else of the
checkout.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.errors import YieldSparkError
from common.private_files import private_folder, write_private
from emulator.control_plane.control_plane import ControlPlane
from emulator.control_plane.gateway import Gateway
from emulator.control_plane.method_permissions import Needed
from emulator.control_plane.other_methods import add_other_methods
from emulator.control_plane.policies import is_in
from emulator.control_plane.private_network import Unreachable, reached, require_batch_network
from emulator.control_plane.resource_store import TYPES, Document
from emulator.local.local_cloud import (
    CONTAINER_ENTRY,
    FASTER,
    log_line,
    looking_at,
    open_folder,
)
from emulator.project.database_server import DatabaseServer
from emulator.services.batch_lifecycle import BatchScript, RunningBatch
from emulator.services.batch_process import LocalPlatform, batch_account
from emulator.services.fake_cloud_run import FakeCloudRun
from emulator.services.fake_dataproc import FakeDataproc
from emulator.services.fake_executions import FakeExecutions, UntilCancelled
from emulator.services.fake_logging import FakeLogging
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_service import ApiError, Request, Service, serving
from emulator.services.object_store import Conditions, NoSuchBucket
from emulator.workflow_engine import execute, hosts_at
from workflows.spec.batch_request import DRIVER_VARIABLE

log = logging.getLogger(__name__)

BOOTSTRAP_APIS = (
    "cloudresourcemanager.googleapis.com",
    "iam.googleapis.com",
    "secretmanager.googleapis.com",
    "serviceusage.googleapis.com",
    "storage.googleapis.com",
)
"""What `terraform/bootstrap.sh` turns on."""

BATCH_PERMISSIONS = (
    "dataproc.agents.create",
    "dataproc.agents.delete",
    "dataproc.agents.get",
    "dataproc.agents.list",
    "dataproc.agents.update",
    "dataproc.tasks.lease",
    "dataproc.tasks.listInvalidatedLeases",
    "dataproc.tasks.reportStatus",
)
"""What the service's agent does in a batch's machines, as the batch's account
(https://cloud.google.com/dataproc-serverless/docs/concepts/service-account).
"""

SECONDS_BETWEEN = 0.2


class NotStarted:
    """A job that the platform could not start: it has failed, and its output says why."""

    def __init__(self, reason: str) -> None:
        self.output = f"{reason}\n".encode()

    def poll(self) -> int | None:
        return 1

    def cancel(self) -> None:
        """It has ended."""


@dataclass(frozen=True)
class _Entrance:
    """One identity's way in."""

    gateway: Gateway
    address: str
    token: str
    token_file: Path


class EmulatedCloud:
    """One project. `emulated_cloud` makes it, and ends what it runs."""

    def __init__(self, folder: Path, project: str, secret: str, stack: ExitStack) -> None:
        self.project = project
        self.server: DatabaseServer | None = None
        self._stack = stack
        self._lock = threading.Lock()
        self._entrances: dict[str, _Entrance] = {}
        self._writers: dict[str, str] = {}
        self._account = batch_account()
        self.folder = open_folder(folder, self._account)
        self.storage = FakeStorage(folder / "storage")
        self.plane = ControlPlane(project, BOOTSTRAP_APIS, self._changed)
        add_other_methods(self.plane)
        self._keep_secret(secret)
        self._cloud_run_jobs: dict[str, list[str]] = {}
        self.dataproc = FakeDataproc(
            BatchScript(pending_seconds=1, usage_delay_seconds=2),
            run=self._run_batch,
            write_output=self._write_output,
        )
        self.cloud_run = FakeCloudRun(
            BatchScript(pending_seconds=0), jobs=self._cloud_run_jobs, run=self._run_container
        )
        self.executions = FakeExecutions(run=self._run_workflow)
        self.logging = FakeLogging(self.cloud_run.lines)
        self.token = secrets.token_urlsafe(32)
        self._tokens = private_folder(folder / "tokens")
        self.url = stack.enter_context(serving([self.plane, self.storage], token=self.token))
        stack.enter_context(looking_at(self.dataproc, self.cloud_run))

    def address_of(self, member: str) -> str:
        """Where an identity reaches the services. Args: member is as in a policy."""
        return self._entrance(member).address

    def token_file_of(self, member: str) -> Path:
        """The file, of mode 600, with the token that this identity's address asks for."""
        return self._entrance(member).token_file

    def refusals(self) -> list[dict[str, str]]:
        """Every permission that was asked for and not granted."""
        return [
            {"member": member, "permission": one.permission, "resource": one.resource}
            for member, entrance in self._entrances.items()
            for one in entrance.gateway.refused
        ]

    def unused_grants(self) -> list[dict[str, str]]:
        """Grants that no call has needed so far."""
        used = [
            (member, one)
            for member, entrance in self._entrances.items()
            for one in entrance.gateway.used
        ]
        policies = self.plane.policies
        return [
            grant
            for grant in policies.grants()
            if not any(
                member == grant["member"]
                and one.permission in policies.permissions_of(grant["role"])
                and is_in(grant["resource"], one.resource)
                for member, one in used
            )
        ]

    def ended(self, execution: str) -> Document:
        """An execution of a Cloud Run job, looked at until it has ended. Args: its full name."""
        while True:
            answer = self.cloud_run.answer(Request("GET", f"/v2/{execution}", {}, {}, b""))
            if answer is None or answer.status != 200 or answer.body.get("completionTime"):
                return answer.body if answer else {}
            time.sleep(SECONDS_BETWEEN)

    def dispatch(self, job: str) -> Document:
        """Send the request of a schedule, as at its hour; returns the target's answer.

        Raises: YieldSparkError where the schedule is paused or the target refuses.
        """
        found = self._one("cloudscheduler.jobs", job)
        if found["state"] != "ENABLED":
            raise YieldSparkError(f"schedule {job} is {found['state']}, and starts nothing")
        target = found["httpTarget"]
        member = f"serviceAccount:{target['oauthToken']['serviceAccountEmail']}"
        place = urlsplit(target["uri"])
        request = urllib.request.Request(
            self.address_of(member) + place.path,
            data=base64.b64decode(target.get("body", "")),
            headers={
                **target.get("headers", {}),
                "Authorization": f"Bearer {self._entrance(member).token}",
            },
            method=target.get("httpMethod", "POST"),
        )
        try:
            with urllib.request.urlopen(request) as answer:
                document: Document = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise YieldSparkError(
                f"schedule {job}: {target['uri']} answered {error.code}: {error.read().decode()}"
            ) from error
        return document

    def settings_env(self, bucket: str, name: str) -> dict[str, str]:
        """The variables that an object of a bucket has, one `NAME=value` a line."""
        content = self.storage.store.read(bucket, name, Conditions())[1].decode()
        pairs = (line.partition("=") for line in content.splitlines() if line)
        return {key: value for key, _, value in pairs}

    def _entrance(self, member: str) -> _Entrance:
        services: list[Service] = [
            self.dataproc,
            self.cloud_run,
            self.executions,
            self.logging,
            self.plane,
            self.storage,
        ]
        with self._lock:  # batches and the workflow begin in threads of their own
            if member not in self._entrances:
                gateway = Gateway(member, self.plane, services, self._object_exists)
                token = secrets.token_urlsafe(32)
                token_file = self._tokens / str(len(self._entrances))
                write_private(token_file, token)
                address = self._stack.enter_context(serving([gateway], token=token))
                self._entrances[member] = _Entrance(gateway, address, token, token_file)
            return self._entrances[member]

    def _object_exists(self, bucket: str, name: str) -> bool:
        try:
            return name in self.storage.store.objects_of(bucket)
        except NoSuchBucket:
            return False

    def _keep_secret(self, name: str) -> None:
        """A secret with a random version: what `terraform/bootstrap.sh` leaves."""
        names = {"project": self.project, "id": name}
        replication: Document = {"replication": {"automatic": {}}}
        self.plane.store.create(TYPES["secretmanager.secrets"], names, replication)
        self.plane.secret_versions[name] = [secrets.token_urlsafe(24).encode()]

    def _changed(self, type_: str, verb: str, resource: Document) -> None:
        """Let the data plane have what the control plane was told."""
        if type_ == "storage.b" and verb == "create":
            self.storage.store.create_bucket(resource["name"])
        if type_ == "run.jobs" and verb != "delete":
            container = resource["template"]["template"]["containers"][0]
            self._cloud_run_jobs[resource["name"].rpartition("/")[2]] = container.get("args", [])
        if self.server and type_ == "sqladmin.databases" and verb == "create":
            self.server.create_database(resource["name"])
        if self.server and type_ == "sqladmin.users":
            self.server.set_user(resource["name"], resource.get("password"))

    def _one(self, type_: str, name: str) -> Document:
        """Raises: ApiError 404."""
        for resource in self.plane.store.of_type(type_):
            if resource["name"].rpartition("/")[2] == name:
                return resource
        raise ApiError(404, f"{type_} {name} was not found")

    def _run_batch(self, batch: Document, batch_id: str) -> RunningBatch:
        execution = batch["environmentConfig"]["executionConfig"]
        member = f"serviceAccount:{execution['serviceAccount']}"
        entrance = self._entrance(member)
        gateway = entrance.gateway
        self._writers[batch["runtimeInfo"]["outputUri"]] = member
        try:
            for permission in BATCH_PERMISSIONS:
                gateway.require(Needed(permission, f"projects/{self.project}"))
            gateway.require(self._image_permission(batch["runtimeConfig"]["containerImage"]))
            require_batch_network(self.plane, execution["subnetworkUri"])
            properties = batch["runtimeConfig"]["properties"]
            given = self._in_network(
                {
                    name.removeprefix(DRIVER_VARIABLE): value
                    for name, value in properties.items()
                    if name.startswith(DRIVER_VARIABLE)
                },
                execution["subnetworkUri"],
            )
        except (ApiError, Unreachable) as error:
            return NotStarted(f"batch {batch_id} was not started: {error}")
        seen = properties | {f"{DRIVER_VARIABLE}{name}": value for name, value in given.items()}
        changed = {**batch, "runtimeConfig": {**batch["runtimeConfig"], "properties": seen}}
        return self._platform(entrance).run_batch(changed, batch_id)

    def _run_container(
        self, name: str, arguments: list[str], given: dict[str, str]
    ) -> RunningBatch:
        job = self._one("run.jobs", name.rpartition("-")[0])
        task = job["template"]["template"]
        container = task["containers"][0]
        variables = {one["name"]: one["value"] for one in container.get("env", [])}
        interface = task["vpcAccess"]["networkInterfaces"][0]
        member = f"serviceAccount:{task['serviceAccount']}"
        settings = self.settings_env(variables["CODE_BUCKET"], "settings.env")
        try:
            private = self._in_network(
                {key: settings[key] for key in ("DB_HOST", "MLFLOW_TRACKING_URI")},
                interface["subnetwork"],
            )
        except Unreachable as error:
            return NotStarted(f"execution {name} was not started: {error}")
        environment = {**variables, **private, **given}
        return self._platform(self._entrance(member)).run_container(
            CONTAINER_ENTRY, arguments, environment, name
        )

    def _platform(self, entrance: _Entrance) -> LocalPlatform:
        return LocalPlatform(self.folder, entrance.address, self._account, entrance.token)

    def _in_network(self, variables: Mapping[str, str], subnetwork: str) -> dict[str, str]:
        """Raises: Unreachable."""
        if self.server is None:
            raise Unreachable("this emulated project has no database server")
        server = (self.server.host, self.server.port)
        return reached(self.plane, server, variables, subnetwork)

    def _image_permission(self, image: str) -> Needed:
        """Raises: Unreachable where no repository has the image's path."""
        host, project, repository, *_ = image.split("/")
        region = host.partition("-docker.pkg.dev")[0]
        found = [one["name"] for one in self.plane.store.of_type("artifactregistry.repositories")]
        name = f"projects/{project}/locations/{region}/repositories/{repository}"
        if name not in found:
            raise Unreachable(f"image {image}: repository {name} does not exist")
        return Needed("artifactregistry.repositories.downloadArtifacts", name)

    def _write_output(self, uri: str, content: bytes) -> None:
        """As the batch's account, whose right to the staging bucket is asked for."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        member = self._writers[uri.rpartition(".")[0]]
        resource = f"projects/_/buckets/{bucket}/objects/{name}"
        self._entrance(member).gateway.require(Needed("storage.objects.create", resource))
        kind = {"contentType": "text/plain"}
        self.storage.store.write(bucket, name, content, kind, Conditions(), {})

    def _run_workflow(self, execution: str, argument: Any) -> Any:
        """The source that was applied, as its account, with its variables."""
        (workflow,) = self.plane.store.of_type("workflows.workflows")
        _, project, _, region, _, name = workflow["name"].split("/")
        account = workflow["serviceAccount"].rpartition("/")[2]
        entrance = self._entrance(f"serviceAccount:{account}")
        environment = {
            "GOOGLE_CLOUD_PROJECT_ID": project,
            "GOOGLE_CLOUD_LOCATION": region,
            "GOOGLE_CLOUD_WORKFLOW_ID": name,
            "GOOGLE_CLOUD_WORKFLOW_EXECUTION_ID": execution,
            **workflow.get("userEnvVars", {}),
        }
        return execute(
            workflow["sourceContents"],
            argument,
            environment=environment,
            transport=hosts_at(entrance.address, entrance.token),
            clock=UntilCancelled(self.executions, execution, FASTER),
            log=partial(self._log, entrance.gateway),
        )

    def _log(self, gateway: Gateway, entry: dict[str, Any]) -> None:
        """Raises: ApiError 403 for an account that may not write logs."""
        gateway.require(Needed("logging.logEntries.create", f"projects/{self.project}"))
        log_line(entry)


@contextmanager
def emulated_cloud(
    folder: Path, project: str, secret: str, server: DatabaseServer | None = None
) -> Iterator[EmulatedCloud]:
    """A project as `terraform/bootstrap.sh` leaves it. Args: secret is the name of the database's
    password.
    """
    with ExitStack() as stack:
        cloud = EmulatedCloud(folder, project, secret, stack)
        cloud.server = server
        yield cloud
