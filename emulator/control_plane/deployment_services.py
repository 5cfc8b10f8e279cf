"""Fakes of the services that a deployment changes by gcloud: the Workflows API v1, and Cloud Run's
Admin API v1, which `gcloud run jobs` uses. An update makes a new revision or generation. Only the
size of a workflow's source is checked.

Sources: https://cloud.google.com/workflows/docs/reference/rest/v1/projects.locations.workflows and
https://cloud.google.com/run/docs/reference/rest/v1/namespaces.jobs
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emulator.services.http_service import Answer, ApiError, Request, Service

LARGEST_SOURCE = 128 * 1024
"""Bytes (https://cloud.google.com/workflows/quotas#resource_limits)."""
UPDATABLE = {
    "description",
    "labels",
    "serviceAccount",
    "sourceContents",
    "cryptoKeyName",
    "callLogLevel",
    "userEnvVars",
    "executionHistoryLevel",
    "tags",
}
"""Fields that a PATCH of a workflow may name."""

IMAGE_HOSTS = ("-docker.pkg.dev/", "docker.io/")
"""Registries of Cloud Run's images (and gcr.io, which is now Artifact Registry)."""

LOCATION = r"/v1/projects/(?P<project>[^/:]+)/locations/(?P<region>[^/:]+)"
NAMESPACE = r"/apis/run\.googleapis\.com/v1/namespaces/(?P<project>[^/:]+)"


class FakeWorkflows(Service):
    """Workflows that can be read and updated. An update's operation is done when it is read."""

    def __init__(self, workflows: Mapping[str, Mapping[str, Any]]) -> None:
        """Args:
        workflows: By full name, projects/P/locations/R/workflows/W.
        """
        super().__init__()
        self._lock = threading.Lock()
        self.workflows = {
            name: {
                "name": name,
                "state": "ACTIVE",
                "revisionId": "000001-000",
                "createTime": "2026-11-01T00:00:00Z",
                "updateTime": "2026-11-01T00:00:00Z",
                **fields,
            }
            for name, fields in workflows.items()
        }
        self._updated: dict[str, str] = {}
        self.route("GET", rf"{LOCATION}/workflows/(?P<workflow>[^/:]+)", self._get)
        self.route("PATCH", rf"{LOCATION}/workflows/(?P<workflow>[^/:]+)", self._patch)
        self.route("GET", rf"{LOCATION}/operations/(?P<operation>[^/:]+)", self._operation)

    def _get(self, request: Request, project: str, region: str, workflow: str) -> Answer:
        with self._lock:
            return Answer(self._workflow(f"projects/{project}/locations/{region}", workflow))

    def _patch(self, request: Request, project: str, region: str, workflow: str) -> Answer:
        with self._lock:
            parent = f"projects/{project}/locations/{region}"
            current = self._workflow(parent, workflow)
            mask = [name for name in request.query.get("updateMask", "").split(",") if name]
            unknown = sorted(set(mask) - UPDATABLE)
            if unknown or not mask:
                raise ApiError(400, f"Invalid update mask: {', '.join(unknown) or 'empty'}")
            body = request.json()
            source = body.get("sourceContents", "") if "sourceContents" in mask else "source"
            if not 0 < len(source.encode()) <= LARGEST_SOURCE:
                raise ApiError(400, "workflow source is empty or too large")
            current.update({name: body.get(name) for name in mask})
            number = int(current["revisionId"].partition("-")[0]) + 1
            current["revisionId"] = f"{number:06d}-000"
            # done only when it is read, so that gcloud has to poll
            operation = f"{parent}/operations/operation-{number}"
            self._updated[operation] = current["name"]
            return Answer({"name": operation, "done": False})

    def _operation(self, request: Request, project: str, region: str, operation: str) -> Answer:
        name = f"projects/{project}/locations/{region}/operations/{operation}"
        with self._lock:
            if name not in self._updated:
                raise ApiError(404, f"Operation {name} was not found.")
            workflow = self.workflows[self._updated[name]]
            kind = "type.googleapis.com/google.cloud.workflows.v1.Workflow"
            return Answer({"name": name, "done": True, "response": {"@type": kind, **workflow}})

    def _workflow(self, parent: str, workflow: str) -> dict[str, Any]:
        name = f"{parent}/workflows/{workflow}"
        if name not in self.workflows:
            raise ApiError(404, f"workflow {name} does not exist")
        return self.workflows[name]


class FakeRunJobs(Service):
    """Cloud Run jobs of one region, which can be read and replaced."""

    def __init__(
        self,
        jobs: Sequence[str],
        image: str,
        *,
        region: str,
        has_image: Callable[[str], bool] = lambda image: True,
    ) -> None:
        """Args:
        jobs: Names of the jobs.
        image: Initial image of every job.
        region: Region of the jobs.
        has_image: Whether a registry has an image.
        """
        super().__init__()
        self._lock = threading.Lock()
        self._has_image = has_image
        self.jobs = {job: _job(job, image, region) for job in jobs}
        self.route("GET", rf"{NAMESPACE}/jobs/(?P<job>[^/:]+)", self._get)
        self.route("PUT", rf"{NAMESPACE}/jobs/(?P<job>[^/:]+)", self._replace)

    def image_of(self, job: str) -> str:
        """Return the job's current image."""
        return str(_container(self.jobs[job])["image"])

    def _get(self, request: Request, project: str, job: str) -> Answer:
        with self._lock:
            return Answer(self._job(project, job))

    def _replace(self, request: Request, project: str, job: str) -> Answer:
        with self._lock:
            current, body = self._job(project, job), request.json()
            metadata = body.get("metadata", {})
            if metadata.get("name") != job:
                raise ApiError(400, f"metadata.name {metadata.get('name')} is not {job}")
            # the version that the client has read: a change in between is a conflict
            if metadata.get("resourceVersion") not in (
                None,
                current["metadata"]["resourceVersion"],
            ):
                raise ApiError(409, f"Conflict for resource '{job}'", reason="ABORTED")
            image = _container(body)["image"]
            if not any(host in image for host in IMAGE_HOSTS):
                raise ApiError(400, f"Expected an image path like HOST/PROJECT/IMAGE, not {image}")
            if not self._has_image(image):
                raise ApiError(400, f"Image '{image}' not found.")
            # an equal spec makes no new generation
            if body["spec"] != current["spec"]:
                current["spec"] = copy.deepcopy(body["spec"])
                generation = current["metadata"]["generation"] + 1
                current["metadata"] |= {
                    "generation": generation,
                    "resourceVersion": f"r{generation}",
                }
                current["status"]["observedGeneration"] = generation
            return Answer(current)

    def _job(self, project: str, job: str) -> dict[str, Any]:
        if job not in self.jobs:
            raise ApiError(
                404, f"Resource '{job}' of kind 'JOB' in project '{project}' does not exist."
            )
        resource = self.jobs[job]
        resource["metadata"]["namespace"] = project
        return resource


def _job(name: str, image: str, region: str) -> dict[str, Any]:
    container = {"image": image, "resources": {"limits": {"cpu": "4", "memory": "16Gi"}}}
    task = {
        "metadata": {},
        "spec": {"containers": [container], "maxRetries": 0, "timeoutSeconds": "7200"},
    }
    return {
        "apiVersion": "run.googleapis.com/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "generation": 1,
            "resourceVersion": "r1",
            "labels": {"cloud.googleapis.com/location": region},
        },
        "spec": {"template": {"metadata": {}, "spec": {"taskCount": 1, "template": task}}},
        "status": {
            "observedGeneration": 1,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def _container(job: Mapping[str, Any]) -> dict[str, Any]:
    containers: list[dict[str, Any]] = job["spec"]["template"]["spec"]["template"]["spec"][
        "containers"
    ]
    return containers[0]
