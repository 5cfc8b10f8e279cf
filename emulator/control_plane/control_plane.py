"""Fake of Google's control plane: what Terraform creates, reads, updates and deletes. Each service
is under its host as the first part of the path; a change takes effect at once. Most types are
rows of `resource_types.py`, other methods are in `other_methods.py`. `gateway.py` checks
permissions.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from emulator.control_plane.operations import PATTERNS, Operations
from emulator.control_plane.policies import Policies
from emulator.control_plane.resource_store import (
    PROJECT_NUMBER,
    Document,
    Names,
    ResourceStore,
    camel_case,
    path_of,
)
from emulator.control_plane.resource_types import RESOURCE_TYPES, ResourceType
from emulator.control_plane.service_rules import RULES
from emulator.services.http_service import Answer, ApiError, Request, Service

ALWAYS_ENABLED = frozenset({"serviceusage.googleapis.com", "storage.googleapis.com"})
"""A project without any API still answers for its services; Cloud Storage's API is enabled in every
new project.
"""

Change = Callable[[str, str, Document], None]
"""Called after a change with the type's name, the verb (create, update, delete), and the
resource.
"""


class ControlPlane(Service):
    """One project.

    Args:
        project: Id of the project.
        apis: APIs that are enabled from the start.
        on_change: Called after every change.
    """

    def __init__(
        self, project: str, apis: tuple[str, ...] = (), on_change: Change | None = None
    ) -> None:
        super().__init__()
        self.project = project
        self.store = ResourceStore()
        self.operations = Operations()
        self.policies = Policies(self._custom_role, self._has_account)
        self.enabled = {*ALWAYS_ENABLED, *apis}
        self.on_change = on_change or (lambda type_, verb, resource: None)
        self.secret_versions: dict[str, list[bytes]] = {}
        self.records: dict[tuple[str, str, str], Document] = {}
        for type_ in RESOURCE_TYPES:
            self._add_collection(type_)
        for pattern in PATTERNS:
            # Compute Engine's `wait` is a POST
            for method in ("GET", "POST"):
                self.route(method, f"(?:/[^/]+)?{pattern}", self.operations.get)

    def answer(self, request: Request) -> Answer | None:
        """Answer a request; a service whose API is not enabled answers 403."""
        host = request.path.split("/")[1]
        hosts = {type_.host for type_ in RESOURCE_TYPES}
        if host in hosts and host not in self.enabled:
            return self._disabled(host).answer
        # the path may have the project's id or its number
        path = request.path.replace(f"/projects/{PROJECT_NUMBER}/", f"/projects/{self.project}/")
        return super().answer(replace(request, path=path))

    def require_api(self, host: str) -> None:
        """Check that an API is enabled.

        Raises:
            ApiError: 403.
        """
        if host not in self.enabled:
            raise self._disabled(host)

    def _disabled(self, host: str) -> ApiError:
        return ApiError(
            403,
            f"{host} has not been used in project {PROJECT_NUMBER} before or it is disabled."
            " Enable it and retry.",
            details=[
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "SERVICE_DISABLED",
                    "domain": "googleapis.com",
                    "metadata": {"service": host, "consumer": f"projects/{self.project}"},
                }
            ],
        )

    def _add_collection(self, type_: ResourceType) -> None:
        base = f"(?:/{re.escape(type_.host)})?/{type_.pattern}"
        member = f"{base}/(?P<id>[^/:]+)"
        self.route("POST", base, partial(self._create, type_))
        self.route("GET", base, partial(self._list, type_))
        self.route("GET", member, partial(self._get, type_))
        for method in ("PATCH", "PUT"):
            self.route(method, member, partial(self._update, type_))
        self.route("DELETE", member, partial(self._delete, type_))
        # services differ in the verb of getIamPolicy
        for method in ("GET", "POST"):
            self.route(method, f"{member}:getIamPolicy", partial(self._get_policy, type_))
        self.route("POST", f"{member}:setIamPolicy", partial(self._set_policy, type_))
        if type_.answer == "compute":
            self.route("POST", f"{member}/setLabels", partial(self._set_labels, type_))

    def _create(self, type_: ResourceType, request: Request, **names: str) -> Answer:
        body = request.json()
        resource = body.get(type_.wrapped, {}) if type_.wrapped else body
        full_names = {"project": self.project, **names, "id": _new_id(type_, request, body)}
        if type_.named_by_path:
            # a full name in the body would hide the path's
            resource = {key: value for key, value in resource.items() if key != "name"}
        rule = RULES.get(type_.name)
        if rule:
            rule(self.store, full_names, resource)
        if type_.name == "iam.serviceAccounts":
            # a request has the part before the @, the resource's path the whole address
            full_names["id"] += f"@{self.project}.iam.gserviceaccount.com"
        created = self.store.create(type_, full_names, resource)
        self.on_change(type_.name, "create", created)
        return self.operations.answer(type_, full_names, created, "create")

    def _list(self, type_: ResourceType, request: Request, **names: str) -> Answer:
        resources = self.store.listed(type_, {"project": self.project, **names})
        return Answer({type_.listed_as: resources})

    def _get(self, type_: ResourceType, request: Request, **names: str) -> Answer:
        return Answer(self.store.get(type_, {"project": self.project, **names}))

    def _update(self, type_: ResourceType, request: Request, **names: str) -> Answer:
        full_names = {"project": self.project, **names}
        body = request.json()
        mask = request.query.get("updateMask") or body.get("updateMask")
        resource = body.get(type_.wrapped, body) if type_.wrapped else body
        if type_.named_by_path:
            resource = {key: value for key, value in resource.items() if key != "name"}
        rule = RULES.get(type_.name)
        if rule:
            rule(self.store, full_names, {**self.store.get(type_, full_names), **resource})
        # without a mask all fields of the request are set
        paths = [camel_case(path) for path in mask.split(",") if path] if mask else None
        changed = self.store.update(type_, full_names, resource, paths)
        self.on_change(type_.name, "update", changed)
        return self.operations.answer(type_, full_names, changed, "update")

    def _set_labels(self, type_: ResourceType, request: Request, **names: str) -> Answer:
        full_names = {"project": self.project, **names}
        changed = self.store.update(type_, full_names, request.json(), ["labels"])
        return self.operations.answer(type_, full_names, changed, "setLabels")

    def _delete(self, type_: ResourceType, request: Request, **names: str) -> Answer:
        full_names = {"project": self.project, **names}
        deleted = self.store.delete(type_, full_names)
        # a new resource of the same name starts without grants
        self.policies.remove(_policy_name(type_, full_names))
        self.on_change(type_.name, "delete", deleted)
        return self.operations.answer(type_, full_names, deleted, "delete")

    def _get_policy(self, type_: ResourceType, request: Request, **names: str) -> Answer:
        full_names = {"project": self.project, **names}
        self.store.get(type_, full_names)
        return Answer(self.policies.get(_policy_name(type_, full_names)))

    def _set_policy(self, type_: ResourceType, request: Request, **names: str) -> Answer:
        full_names = {"project": self.project, **names}
        self.store.get(type_, full_names)
        policy = request.json().get("policy", {})
        return Answer(self.policies.set(_policy_name(type_, full_names), policy))

    def _custom_role(self, role: str) -> frozenset[str] | None:
        for resource in self.store.of_type("iam.roles"):
            if resource["name"] == role:
                return frozenset(resource.get("includedPermissions", []))
        return None

    def _has_account(self, email: str) -> bool:
        return any(
            account["email"] == email for account in self.store.of_type("iam.serviceAccounts")
        )


def policy_name_of_bucket(bucket: str) -> str:
    """Return IAM's name of a bucket, which has no project."""
    return f"projects/_/buckets/{bucket}"


def _policy_name(type_: ResourceType, names: Names) -> str:
    return type_.relative(path_of(type_, names))


def _new_id(type_: ResourceType, request: Request, body: Any) -> str:
    """Return the new resource's id.

    Raises:
        ApiError: 400, if the request has none.
    """
    kind, _, field_names = type_.id_from.partition(":")
    if kind == "random":
        return str(uuid.uuid4())
    source = request.query if kind == "query" else body
    value = next((source[name] for name in field_names.split(",") if source.get(name)), None)
    if not value:
        raise ApiError(400, f"{type_.name}: {field_names} is missing in the {kind}")
    return str(value).rpartition("/")[2]
