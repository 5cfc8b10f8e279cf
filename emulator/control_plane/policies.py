"""IAM: policies of resources, the permissions that they give, and the conditions in them.

In: policies as `setIamPolicy` takes them, custom roles as they were created, predefined roles from
`roles.toml`. Out: whether an identity has a permission on a resource. A permission that is granted
on the project holds for everything in it. Sources: https://cloud.google.com/iam/docs/policies,
https://cloud.google.com/iam/docs/conditions-overview
"""

from __future__ import annotations

import base64
import copy
import re
import threading
import tomllib
from collections.abc import Callable, Mapping
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


def predefined_roles() -> dict[str, frozenset[str]]:
    """Permissions by role: those of `roles.toml`, which names its sources."""
    document = tomllib.loads(ROLES_FILE.read_text(encoding="utf-8"))
    return {name: frozenset(role["permissions"]) for name, role in document["roles"].items()}


def other_permissions() -> frozenset[str]:
    """Permissions that exist and stand in no role of `roles.toml`."""
    document = tomllib.loads(ROLES_FILE.read_text(encoding="utf-8"))
    return frozenset(document["other_permissions"]["permissions"])


class Policies:
    """Policies by resource. A resource is named as IAM names it, `projects/..`, an object of a
    bucket as `projects/_/buckets/B/objects/NAME`.

    Args: custom_role returns the permissions of a custom role, None where there is none. account
    says whether a service account exists.
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
        """The policy; one that was never set has no bindings."""
        with self._lock:
            return copy.deepcopy(self._policies.get(resource) or self._with_etag({}, 0))

    def set(self, resource: str, policy: Document, *, public_access: bool = True) -> Document:
        """Replace it. Args: public_access is False where the resource forbids public members.

        Raises: ApiError 400 for an unknown role or member, 409 where the etag is not the current
        one, 412 for a public member that is forbidden.
        """
        bindings = policy.get("bindings", [])
        for binding in bindings:
            self.permissions_of(binding["role"])
            for member in binding.get("members", []):
                self._check_member(member, public_access=public_access)
            if binding.get("condition"):
                if int(policy.get("version", 0)) != 3:
                    raise ApiError(400, "A policy with conditions must have version 3")
                _holds(binding["condition"]["expression"], "")
        with self._lock:
            live = self._policies.get(resource) or self._with_etag({}, 0)
            if policy.get("etag") and policy["etag"] != live["etag"]:
                raise ApiError(
                    409,
                    "There were concurrent policy changes. Please retry the whole read-modify-write"
                    " with exponential backoff.",
                    reason="ABORTED",
                )
            self._changes += 1
            self._policies[resource] = self._with_etag(policy, self._changes)
            return copy.deepcopy(self._policies[resource])

    def remove(self, resource: str) -> None:
        """Forget the policy of a resource that was deleted."""
        with self._lock:
            self._policies.pop(resource, None)

    def permissions_of(self, role: str) -> frozenset[str]:
        """Raises: ApiError 400 for a role that does not exist here."""
        own = not role.startswith("roles/")
        found = self._custom_role(role) if own else self._predefined.get(role)
        if found is None:
            raise ApiError(
                400,
                f"Role {role} is not supported for this resource;"
                " emulator/control_plane/roles.toml has none",
            )
        return found

    def allows(self, member: str, permission: str, resource: str) -> bool:
        """Whether the member has the permission on the resource, or on one that it is in."""
        with self._lock:
            policies = [policy for name, policy in self._policies.items() if is_in(name, resource)]
        for policy in policies:
            for binding in policy.get("bindings", []):
                if (
                    member in binding.get("members", [])
                    and permission in self.permissions_of(binding["role"])
                    and _holds(binding.get("condition", {}).get("expression", ""), resource)
                ):
                    return True
        return False

    def grants(self) -> list[dict[str, str]]:
        """Every member's role on every resource."""
        with self._lock:
            policies = sorted(self._policies.items())
        found = [
            (resource, binding, member)
            for resource, policy in policies
            for binding in policy.get("bindings", [])
            for member in binding.get("members", [])
        ]
        return [
            {"member": member, "role": binding["role"], "resource": resource}
            | ({"condition": binding["condition"]["expression"]} if "condition" in binding else {})
            for resource, binding, member in found
        ]

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
        own = email.endswith(".iam.gserviceaccount.com") and not email.startswith("service-")
        if kind == "serviceAccount" and own and not self._account(email):
            raise ApiError(400, f"Service account {email} does not exist.")

    @staticmethod
    def _with_etag(policy: Mapping[str, Any], number: int) -> Document:
        etag = base64.b64encode(number.to_bytes(8, "big")).decode()
        return {"version": 1, **policy, "etag": etag}


def is_in(outer: str, resource: str) -> bool:
    """Whether a policy of `outer` counts for the resource: it is that one, or in it, or `outer` is
    the project. Buckets are named without their project.
    """
    if outer == resource or resource.startswith(f"{outer}/"):
        return True
    return outer.count("/") == 1 and resource.startswith("projects/_/buckets/")


def _holds(expression: str, resource: str) -> bool:
    """A condition of the few forms that are known here, joined by `&&`. Raises: ApiError 400 for
    any other.
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
    known = RESOURCE_TYPES.get(kind, "storage.googleapis.com/Bucket")
    return known if name == "type" else known.partition("/")[0]
