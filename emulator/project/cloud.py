"""An emulated project: the control plane that Terraform applies to, and the services that run what
it created. Each identity has its own address, token and permissions. Batches, containers and the
workflow get only what the control plane was given.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.errors import YieldSparkError
from common.private_files import private_folder
from emulator.control_plane.control_plane import ControlPlane
from emulator.control_plane.gateway import Gateway
from emulator.control_plane.method_permissions import Needed
from emulator.control_plane.other_methods import add_other_methods
from emulator.control_plane.private_network import (
    Unreachable,
    require_batch_network,
    route_variables,
)
from emulator.control_plane.resource_store import TYPES, Document
from emulator.local.local_cloud import (
    CONTAINER_ENTRY,
    SPEED_UP,
    log_line,
    open_folder,
    polling,
)
from emulator.project.database_server import DatabaseServer
from emulator.project.identities import Access, Identities
from emulator.services.batch_lifecycle import BatchScript, RunningBatch
from emulator.services.batch_process import LocalPlatform, batch_account
from emulator.services.fake_cloud_run import FakeCloudRun
from emulator.services.fake_dataproc import FakeDataproc
from emulator.services.fake_executions import FakeExecutions, UntilCancelled
from emulator.services.fake_logging import FakeLogging
from emulator.services.fake_monitoring import FakeMonitoring
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from emulator.services.http_service import ApiError, Request
from emulator.services.object_store import Conditions, NoSuchBucket
from emulator.workflow_engine import execute, route_to
from workflows.spec.batch_request import DRIVER_VARIABLE

log = logging.getLogger(__name__)

BOOTSTRAP_APIS = (
    "cloudresourcemanager.googleapis.com",
    "iam.googleapis.com",
    "secretmanager.googleapis.com",
    "serviceusage.googleapis.com",
    "storage.googleapis.com",
)
"""APIs that `terraform/bootstrap.sh` enables."""

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
"""Permissions of the service's agent in a batch, as the batch's account
(https://cloud.google.com/dataproc-serverless/docs/concepts/service-account).
"""

SECONDS_BETWEEN = 0.2
"""Polling interval."""


class NotStarted:
    """A job that the platform could not start: failed, with the reason as its output."""

    def __init__(self, reason: str) -> None:
        self.output = f"{reason}\n".encode()

    def poll(self) -> int | None:
        """Return the exit code of a failure."""
        return 1

    def cancel(self) -> None:
        """Do nothing: it has ended."""


class EmulatedCloud:
    """One project, created and ended by `emulated_cloud`."""

    def __init__(self, folder: Path, project: str, secret: str, stack: ExitStack) -> None:
        self.project = project
        self.server: DatabaseServer | None = None
        self._writers: dict[str, str] = {}
        self._account = batch_account()
        self.folder = open_folder(folder, self._account)
        self.storage = FakeStorage(folder / "storage")
        self.plane = ControlPlane(project, BOOTSTRAP_APIS, self._apply_change)
        add_other_methods(self.plane)
        self._create_secret(secret)
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
        self.identities = Identities(
            self.plane,
            [
                self.dataproc,
                self.cloud_run,
                self.executions,
                self.logging,
                self.plane,
                self.storage,
            ],
            self._object_exists,
            private_folder(folder / "tokens"),
            stack,
        )
        self.monitoring = FakeMonitoring(
            self.plane.store.metric_descriptors, refusal=self._monitoring_refusal
        )
        self._monitoring_address = stack.enter_context(self.monitoring.listening())
        self.token = secrets.token_urlsafe(32)
        self.url = stack.enter_context(serving([self.plane, self.storage], token=self.token))
        stack.enter_context(polling(self.dataproc, self.cloud_run))

    def ended(self, execution: str) -> Document:
        """Poll an execution of a Cloud Run job, by its full name, until it has ended."""
        while True:
            response = self.cloud_run.answer(Request("GET", f"/v2/{execution}", {}, {}, b""))
            if response is None or response.status != 200 or response.body.get("completionTime"):
                return response.body if response else {}
            time.sleep(SECONDS_BETWEEN)

    def dispatch(self, job: str) -> Document:
        """Send the request of a schedule and return the target's response.

        Raises:
            YieldSparkError: The schedule is paused or the target rejects the request.
        """
        schedule = self._resource("cloudscheduler.jobs", job)
        if schedule["state"] != "ENABLED":
            raise YieldSparkError(f"schedule {job} is {schedule['state']}, and starts nothing")
        target = schedule["httpTarget"]
        member = f"serviceAccount:{target['oauthToken']['serviceAccountEmail']}"
        # the host is Google's; only the path is used
        target_url = urlsplit(target["uri"])
        access = self.identities.access_of(member)
        request = urllib.request.Request(
            access.address + target_url.path,
            data=base64.b64decode(target.get("body", "")),
            headers={
                **target.get("headers", {}),
                "Authorization": f"Bearer {access.token}",
            },
            method=target.get("httpMethod", "POST"),
        )
        try:
            with urllib.request.urlopen(request) as response:
                body: Document = json.loads(response.read())
        except urllib.error.HTTPError as error:
            raise YieldSparkError(
                f"schedule {job}: {target['uri']} answered {error.code}: {error.read().decode()}"
            ) from error
        return body

    def settings_env(self, bucket: str, name: str) -> dict[str, str]:
        """Return the variables in an object of a bucket, one `NAME=value` a line."""
        content = self.storage.store.read(bucket, name, Conditions())[1].decode()
        pairs = (line.partition("=") for line in content.splitlines() if line)
        return {key: value for key, _, value in pairs}

    def _object_exists(self, bucket: str, name: str) -> bool:
        try:
            return name in self.storage.store.objects_of(bucket)
        except NoSuchBucket:
            return False

    def _create_secret(self, name: str) -> None:
        """Create a secret with a random version, as `terraform/bootstrap.sh` does."""
        names = {"project": self.project, "id": name}
        replication: Document = {"replication": {"automatic": {}}}
        self.plane.store.create(TYPES["secretmanager.secrets"], names, replication)
        self.plane.secret_versions[name] = [secrets.token_urlsafe(24).encode()]

    def _apply_change(self, type_: str, verb: str, resource: Document) -> None:
        """Pass a change of the control plane to the data plane."""
        if type_ == "storage.b" and verb == "create":
            self.storage.store.create_bucket(resource["name"])
        if type_ == "run.jobs" and verb != "delete":
            container = resource["template"]["template"]["containers"][0]
            self._cloud_run_jobs[resource["name"].rpartition("/")[2]] = container.get("args", [])
        if self.server and type_ == "sqladmin.databases" and verb == "create":
            self.server.create_database(resource["name"])
        if self.server and type_ == "sqladmin.users":
            self.server.set_user(resource["name"], resource.get("password"))

    def _resource(self, type_: str, name: str) -> Document:
        """Return a resource by type and short name.

        Raises:
            ApiError: 404.
        """
        for resource in self.plane.store.of_type(type_):
            if resource["name"].rpartition("/")[2] == name:
                return resource
        raise ApiError(404, f"{type_} {name} was not found")

    def _run_batch(self, batch: Document, batch_id: str) -> RunningBatch:
        execution = batch["environmentConfig"]["executionConfig"]
        member = f"serviceAccount:{execution['serviceAccount']}"
        access = self.identities.access_of(member)
        gateway = access.gateway
        # the driver's output is written later, with the rights of this account
        self._writers[batch["runtimeInfo"]["outputUri"]] = member
        try:
            for permission in BATCH_PERMISSIONS:
                gateway.require(Needed(permission, f"projects/{self.project}"))
            gateway.require(self._image_permission(batch["runtimeConfig"]["containerImage"]))
            require_batch_network(self.plane, execution["subnetworkUri"])
            properties = batch["runtimeConfig"]["properties"]
            driver_variables = self._in_network(
                {
                    name.removeprefix(DRIVER_VARIABLE): value
                    for name, value in properties.items()
                    if name.startswith(DRIVER_VARIABLE)
                },
                execution["subnetworkUri"],
            )
        except (ApiError, Unreachable) as error:
            return NotStarted(f"batch {batch_id} was not started: {error}")
        driver_variables["MONITORING_ENDPOINT"] = self._monitoring_address
        job_properties = properties | {
            f"{DRIVER_VARIABLE}{name}": value for name, value in driver_variables.items()
        }
        job_batch = {
            **batch,
            "runtimeConfig": {**batch["runtimeConfig"], "properties": job_properties},
        }
        return self._platform(access).run_batch(job_batch, batch_id)

    def _run_container(
        self, name: str, arguments: list[str], start_variables: dict[str, str]
    ) -> RunningBatch:
        job = self._resource("run.jobs", name.rpartition("-")[0])
        task = job["template"]["template"]
        container = task["containers"][0]
        variables = {entry["name"]: entry["value"] for entry in container.get("env", [])}
        interface = task["vpcAccess"]["networkInterfaces"][0]
        member = f"serviceAccount:{task['serviceAccount']}"
        settings = self.settings_env(variables["CODE_BUCKET"], "settings.env")
        try:
            # these two come from the release, which the entry reads later in the container
            private = self._in_network(
                {key: settings[key] for key in ("DB_HOST", "MLFLOW_TRACKING_URI")},
                interface["subnetwork"],
            )
        except Unreachable as error:
            return NotStarted(f"execution {name} was not started: {error}")
        emulated = {"MONITORING_ENDPOINT": self._monitoring_address}
        environment = {**variables, **private, **emulated, **start_variables}
        return self._platform(self.identities.access_of(member)).run_container(
            CONTAINER_ENTRY, arguments, environment, name
        )

    def _platform(self, access: Access) -> LocalPlatform:
        return LocalPlatform(self.folder, access.address, self._account, access.token)

    def _in_network(self, variables: Mapping[str, str], subnetwork: str) -> dict[str, str]:
        """Replace the database's private name in a job's variables.

        Raises:
            Unreachable: The job cannot reach the database.
        """
        if self.server is None:
            raise Unreachable("this emulated project has no database server")
        server = (self.server.host, self.server.port)
        return route_variables(self.plane, server, variables, subnetwork)

    def _image_permission(self, image: str) -> Needed:
        """Return the permission to pull an image.

        Raises:
            Unreachable: No repository has the image's path.
        """
        host, project, repository, *_ = image.split("/")
        region = host.partition("-docker.pkg.dev")[0]
        repositories = [
            entry["name"] for entry in self.plane.store.of_type("artifactregistry.repositories")
        ]
        name = f"projects/{project}/locations/{region}/repositories/{repository}"
        if name not in repositories:
            raise Unreachable(f"image {image}: repository {name} does not exist")
        return Needed("artifactregistry.repositories.downloadArtifacts", name)

    def _write_output(self, uri: str, content: bytes) -> None:
        """Write an output object with the permissions of the batch's account."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        # an object is outputUri and a number
        member = self._writers[uri.rpartition(".")[0]]
        resource = f"projects/_/buckets/{bucket}/objects/{name}"
        self.identities.access_of(member).gateway.require(
            Needed("storage.objects.create", resource)
        )
        settings = {"contentType": "text/plain"}
        self.storage.store.write(bucket, name, content, settings, Conditions(), {})

    def _monitoring_refusal(self, authorization: str) -> str | None:
        """Return why an identity may not write time series; None if it may."""
        gateway = self.identities.gateway_of(authorization.removeprefix("Bearer "))
        if gateway is None:
            return "Request had invalid authentication credentials."
        try:
            self.plane.require_api("monitoring.googleapis.com")
            gateway.require(Needed("monitoring.timeSeries.create", f"projects/{self.project}"))
        except ApiError as error:
            return str(error)
        return None

    def _run_workflow(self, execution: str, argument: Any) -> Any:
        """Run the applied source as its account, with its variables."""
        (workflow,) = self.plane.store.of_type("workflows.workflows")
        _, project, _, region, _, name = workflow["name"].split("/")
        account = workflow["serviceAccount"].rpartition("/")[2]
        access = self.identities.access_of(f"serviceAccount:{account}")
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
            transport=route_to(access.address, access.token),
            clock=UntilCancelled(self.executions, execution, SPEED_UP),
            log=partial(self._log, access.gateway),
        )

    def _log(self, gateway: Gateway, entry: dict[str, Any]) -> None:
        """Log an event of the workflow.

        Raises:
            ApiError: 403, if the account may not write logs.
        """
        gateway.require(Needed("logging.logEntries.create", f"projects/{self.project}"))
        log_line(entry)


@contextmanager
def emulated_cloud(
    folder: Path, project: str, secret: str, server: DatabaseServer | None = None
) -> Iterator[EmulatedCloud]:
    """Run a project as `terraform/bootstrap.sh` leaves it.

    Args:
        folder: Receives its files.
        project: Id of the project.
        secret: Name of the database password's secret.
        server: Database behind its Cloud SQL instance.
    """
    with ExitStack() as stack:
        cloud = EmulatedCloud(folder, project, secret, stack)
        cloud.server = server
        yield cloud
