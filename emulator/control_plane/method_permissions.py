"""Table of the permissions that calls of the data plane need, and the resource they are checked on.

Sources: https://cloud.google.com/storage/docs/access-control/iam-json,
https://cloud.google.com/dataproc/docs/concepts/iam,
https://cloud.google.com/run/docs/reference/iam/permissions,
https://cloud.google.com/workflows/docs/access-control,
https://cloud.google.com/secret-manager/docs/access-control,
https://cloud.google.com/logging/docs/access-control
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from emulator.services.http_service import ApiError, Request


@dataclass(frozen=True)
class Needed:
    """One permission on one resource, both in IAM's names."""

    permission: str
    resource: str


@dataclass(frozen=True)
class Method:
    """One row; `{..}` in `resource` are groups of the path."""

    method: str
    path: str
    permissions: tuple[str, ...]
    resource: str
    api: str


PROJECT = "projects/(?P<project>[^/:]+)"
PLACE = rf"{PROJECT}/(?:locations|regions)/(?P<location>[^/:]+)"
BUCKET = r"/storage/v1/b/(?P<bucket>[^/]+)"
JOB = rf"/v2/{PLACE}/jobs/(?P<job>[^/:]+)"
WORKFLOW = rf"/v1/{PLACE}/workflows/(?P<workflow>[^/:]+)"

ON_PROJECT = "projects/{project}"
ON_BUCKET = "projects/_/buckets/{bucket}"
ON_OBJECT = "projects/_/buckets/{bucket}/objects/{name}"
ON_JOB = "projects/{project}/locations/{location}/jobs/{job}"

STORAGE = "storage.googleapis.com"
DATAPROC = "dataproc.googleapis.com"
RUN = "run.googleapis.com"
LOGGING = "logging.googleapis.com"
EXECUTIONS = "workflowexecutions.googleapis.com"

METHODS = (
    Method("GET", BUCKET, ("storage.buckets.get",), ON_BUCKET, STORAGE),
    Method("GET", f"{BUCKET}/o", ("storage.objects.list",), ON_BUCKET, STORAGE),
    Method(
        "GET",
        rf"(?:/download)?{BUCKET}/o/(?P<name>[^/]+)",
        ("storage.objects.get",),
        ON_OBJECT,
        STORAGE,
    ),
    Method(
        "DELETE", rf"{BUCKET}/o/(?P<name>[^/]+)", ("storage.objects.delete",), ON_OBJECT, STORAGE
    ),
    Method("POST", rf"(?:/resumable)?/upload{BUCKET}/o", ("storage.objects.create",), "", STORAGE),
    # a later part of an upload, whose start was checked; its address has the upload's id
    Method("PUT", rf"(?:/resumable)?/upload{BUCKET}/o", (), "", STORAGE),
    Method(
        "GET",
        rf"/v1/{PROJECT}/secrets/(?P<secret>[^/:]+)/versions/[^/:]+:access",
        ("secretmanager.versions.access",),
        "projects/{project}/secrets/{secret}",
        "secretmanager.googleapis.com",
    ),
    Method("POST", rf"/v1/{PLACE}/batches", ("dataproc.batches.create",), ON_PROJECT, DATAPROC),
    Method("GET", rf"/v1/{PLACE}/batches", ("dataproc.batches.list",), ON_PROJECT, DATAPROC),
    Method("GET", rf"/v1/{PLACE}/batches/[^/:]+", ("dataproc.batches.get",), ON_PROJECT, DATAPROC),
    Method(
        "DELETE", rf"/v1/{PLACE}/batches/[^/:]+", ("dataproc.batches.delete",), ON_PROJECT, DATAPROC
    ),
    Method(
        "GET", rf"/v1/{PLACE}/operations/[^/:]+", ("dataproc.operations.get",), ON_PROJECT, DATAPROC
    ),
    Method(
        "POST",
        rf"/v1/{PLACE}/operations/[^/:]+:cancel",
        ("dataproc.operations.cancel", "dataproc.batches.cancel"),
        ON_PROJECT,
        DATAPROC,
    ),
    Method("POST", f"{JOB}:run", ("run.jobs.run",), ON_JOB, RUN),
    Method("GET", f"{JOB}/executions/[^/:]+", ("run.executions.get",), ON_JOB, RUN),
    Method("POST", f"{JOB}/executions/[^/:]+:cancel", ("run.executions.cancel",), ON_JOB, RUN),
    Method("GET", f"{JOB}/executions/[^/:]+/tasks", ("run.tasks.list",), ON_JOB, RUN),
    Method("GET", JOB, ("run.jobs.get",), ON_JOB, RUN),
    Method(
        "POST",
        f"{WORKFLOW}/executions",
        ("workflows.clients.executions.create",),
        ON_PROJECT,
        EXECUTIONS,
    ),
    Method(
        "GET",
        f"{WORKFLOW}/executions",
        ("workflows.clients.executions.list",),
        ON_PROJECT,
        EXECUTIONS,
    ),
    Method(
        "GET",
        f"{WORKFLOW}/executions/[^/:]+",
        ("workflows.clients.executions.get",),
        ON_PROJECT,
        EXECUTIONS,
    ),
    Method(
        "POST",
        f"{WORKFLOW}/executions/[^/:]+:cancel",
        ("workflows.clients.executions.cancel",),
        ON_PROJECT,
        EXECUTIONS,
    ),
)

LOG_ENTRIES = "/v2/entries:list"
"""Its body has the projects."""


def needed(request: Request, object_exists: Callable[[str, str], bool]) -> tuple[str, list[Needed]]:
    """Return the API of a call and the permissions it needs.

    Args:
        request: The call.
        object_exists: Whether a bucket has an object; replacing one needs the permission to delete
            it.

    Raises:
        ApiError: 404, for a call that is not in the table.
    """
    if (request.method, request.path) == ("POST", LOG_ENTRIES):
        projects = request.json().get("resourceNames", [])
        return LOGGING, [Needed("logging.logEntries.list", project) for project in projects]
    for row in METHODS:
        match = re.fullmatch(row.path, request.path)
        if row.method == request.method and match:
            names = {key: unquote(value) for key, value in match.groupdict().items()}
            resource = row.resource.format(**names)
            permissions = [
                Needed(permission, resource) for permission in row.permissions if resource
            ]
            return row.api, permissions + list(_by_content(row, request, names, object_exists))
    raise ApiError(404, f"{request.method} {request.path}: no permission is known for this call")


def _by_content(
    row: Method,
    request: Request,
    names: dict[str, str],
    object_exists: Callable[[str, str], bool],
) -> Iterator[Needed]:
    """Return the permissions that depend on the body."""
    # https://cloud.google.com/iam/docs/service-accounts-actas
    if row.permissions == ("dataproc.batches.create",):
        execution = request.json().get("environmentConfig", {}).get("executionConfig", {})
        account = execution.get("serviceAccount", "default")
        resource = f"projects/{names['project']}/serviceAccounts/{account}"
        yield Needed("iam.serviceAccounts.actAs", resource)
    if row.permissions == ("run.jobs.run",) and request.json().get("overrides"):
        yield Needed("run.jobs.runWithOverrides", ON_JOB.format(**names))
    if row.permissions == ("storage.objects.create",):
        name = _uploaded_name(request)
        resource = ON_OBJECT.format(bucket=names["bucket"], name=name)
        yield Needed("storage.objects.create", resource)
        # https://cloud.google.com/storage/docs/access-control/iam-json, objects.insert
        if object_exists(names["bucket"], name):
            yield Needed("storage.objects.delete", resource)


def _uploaded_name(request: Request) -> str:
    """Return the object's name, from the query or from the metadata at the start of a
    multipart body.
    """
    if "name" in request.query:
        return request.query["name"]
    body = request.body
    if request.query.get("uploadType") == "multipart":
        newline = b"\r\n" if b"\r\n\r\n" in body else b"\n"
        body = body.partition(2 * newline)[2].partition(newline + b"--")[0]
    return str(json.loads(body or b"{}").get("name", ""))
