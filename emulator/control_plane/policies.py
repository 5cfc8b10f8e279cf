"""IAM: policies, roles and conditions; decides whether an identity has a permission on a resource.
Predefined roles are in `roles.toml`. A permission on the project applies to everything in it.

Sources: https://cloud.google.com/iam/docs/policies,
https://cloud.google.com/iam/docs/conditions-overview
"""

from __future__ import annotations

import base64
import copy
import re
import threading
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.services.http_service import ApiError

Document = dict[str, Any]

ROLES_FILE = Path(__file__).with_name("roles.toml")
MEMBER = re.compile(r"(serviceAccount|user|group):[^@\s]+@[^@\s]+|domain:[^\s]+")
PUBLIC = frozenset({"allUsers", "allAuthenticatedUsers"})
TEXT = r"(?:\"([^\"]*)\"|'([^']*)')"
EQUALS = re.compile(rf"resource\.(name|type|service)\s*==\s*{TEXT}")
STARTS = re.compile(rf"resource\.(name)\.startsWith\(\s*{TEXT}\s*\)")
RESOURCE_TYPES = {"objects": "storage.googleapis.com/Object"}


@dataclass(frozen=True)
class Grant:
    """A member's role on a resource; `condition` is the binding's expression, None without one."""

    member: str
    role: str
    resource: str
    condition: str | None = None

    def payload(self) -> dict[str, str]:
        """Return the fields that have a value."""
        return {name: value for name, value in vars(self).items() if value is not None}


def predefined_roles() -> dict[str, frozenset[str]]:
    """Return the permissions of each role of `roles.toml`, which names its sources."""
    table = tomllib.loads(ROLES_FILE.read_text(encoding="utf-8"))
    return {name: frozenset(role["permissions"]) for name, role in table["roles"].items()}


def other_permissions() -> frozenset[str]:
    """Return the permissions that exist and are in no role of `roles.toml`."""
    table = tomllib.loads(ROLES_FILE.read_text(encoding="utf-8"))
    return frozenset(table["other_permissions"]["permissions"])


class Policies:
    """Policies by resource, in IAM's names: `projects/..`, and `projects/_/buckets/B/objects/NAME`
    for an object.

    Args:
        custom_role: Returns the permissions of a custom role; None if it does not exist.
        account: Whether a service account exists.
    """

    def __init__(
        self,
        custom_role: Callable[[str], frozenset[str] | None],
        account: Callable[[str], bool],
    ) -> None:
        self._predefined = predefined_roles()
        self._custom_role = custom_role
        self._account = account
        self._lock = threading.Lock()
        self._policies: dict[str, Document] = {}
        self._changes = 0

    def get(self, resource: str) -> Document:
        """Return the policy; without bindings if it was never set."""
        with self._lock:
            return copy.deepcopy(self._policies.get(resource) or self._with_etag({}, 0))

    def set(self, resource: str, policy: Document, *, public_access: bool = True) -> Document:
        """Replace a policy.

        Args:
            resource: IAM's name of the resource.
            policy: The policy.
            public_access: False if the resource forbids public members.

        Raises:
            ApiError: 400 for an unknown role or member, 409 for an outdated etag, 412 for a
                forbidden public member.
        """
        bindings = policy.get("bindings", [])
        for binding in bindings:
            self.permissions_of(binding["role"])
            for member in binding.get("members", []):
                self._check_member(member, public_access=public_access)
            if binding.get("condition"):
                # older versions have no conditions
                if int(policy.get("version", 0)) != 3:
                    raise ApiError(400, "A policy with conditions must have version 3")
                # rejects an expression that this emulator cannot evaluate, when it is set
                _condition_applies(binding["condition"]["expression"], "")
        with self._lock:
            live = self._policies.get(resource) or self._with_etag({}, 0)
            if policy.get("etag") and policy["etag"] != live["etag"]:
                raise ApiError(
                    409,
                    "There were concurrent policy changes. Please retry the whole read-modify-write"
                    " with exponential backoff.",
                    reason="ABORTED",
                )
            # the etag is the number of the change: an outdated one is detected above
            self._changes += 1
            self._policies[resource] = self._with_etag(policy, self._changes)
            return copy.deepcopy(self._policies[resource])

    def remove(self, resource: str) -> None:
        """Delete the policy of a deleted resource."""
        with self._lock:
            self._policies.pop(resource, None)

    def permissions_of(self, role: str) -> frozenset[str]:
        """Return the permissions of a role.

        Raises:
            ApiError: 400, if the role does not exist here.
        """
        is_custom = not role.startswith("roles/")
        permissions = self._custom_role(role) if is_custom else self._predefined.get(role)
        if permissions is None:
            raise ApiError(
                400,
                f"Role {role} is not supported for this resource;"
                " emulator/control_plane/roles.toml has none",
            )
        return permissions

    def allows(self, member: str, permission: str, resource: str) -> bool:
        """Return whether the member has the permission on the resource or one that contains it."""
        with self._lock:
            policies = [policy for name, policy in self._policies.items() if is_in(name, resource)]
        for policy in policies:
            for binding in policy.get("bindings", []):
                if (
                    member in binding.get("members", [])
                    and permission in self.permissions_of(binding["role"])
                    and _condition_applies(
                        binding.get("condition", {}).get("expression", ""), resource
                    )
                ):
                    return True
        return False

    def grants(self) -> list[Grant]:
        """Return every member's role on every resource."""
        with self._lock:
            policies = sorted(self._policies.items())
        grants = []
        for resource, policy in policies:
            for binding in policy.get("bindings", []):
                condition = (binding.get("condition") or {}).get("expression")
                for member in binding.get("members", []):
                    grants.append(Grant(member, binding["role"], resource, condition))
        return grants

    def _check_member(self, member: str, *, public_access: bool) -> None:
        if member in PUBLIC:
            if not public_access:
                raise ApiError(
                    412, f"{member} is refused: public access prevention is enforced here"
                )
            return
        if not MEMBER.fullmatch(member):
            raise ApiError(400, f"Invalid member: {member}")
        kind, _, email = member.partition(":")
        # service-NUMBER@.. are Google's own agents, which no project creates
        is_project_account = email.endswith(".iam.gserviceaccount.com") and not email.startswith(
            "service-"
        )
        if kind == "serviceAccount" and is_project_account and not self._account(email):
            raise ApiError(400, f"Service account {email} does not exist.")

    @staticmethod
    def _with_etag(policy: Mapping[str, Any], number: int) -> Document:
        etag = base64.b64encode(number.to_bytes(8, "big")).decode()
        return {"version": 1, **policy, "etag": etag}


def is_in(outer: str, resource: str) -> bool:
    """Return whether a policy of `outer` applies to the resource: they are equal, `outer` contains
    it, or `outer` is the project. Names of buckets have no project.
    """
    if outer == resource or resource.startswith(f"{outer}/"):
        return True
    # `projects/P`, the only name with one slash
    return outer.count("/") == 1 and resource.startswith("projects/_/buckets/")


def _condition_applies(expression: str, resource: str) -> bool:
    """Evaluate a condition of the supported forms, joined by `&&`.

    Raises:
        ApiError: 400, for another form.
    """
    for part in expression.split("&&") if expression.strip() else []:
        equals, starts = EQUALS.fullmatch(part.strip()), STARTS.fullmatch(part.strip())
        if not equals and not starts:
            raise ApiError(400, f"condition {part.strip()!r} is not known to this emulator")
        name, *texts = (equals or starts).groups()  # type: ignore[union-attr]
        value = next(text for text in texts if text is not None)
        actual = _attribute(name, resource)
        if not (actual == value if equals else actual.startswith(value)):
            return False
    return True


def _attribute(name: str, resource: str) -> str:
    if name == "name":
        return resource
    kind = "objects" if "/objects/" in resource else ""
    type_name = RESOURCE_TYPES.get(kind, "storage.googleapis.com/Bucket")
    return type_name if name == "type" else type_name.partition("/")[0]
