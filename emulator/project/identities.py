"""Access of the identities of an emulated project: each has its own address, token and permissions,
created on first use, and a record of the permissions that its calls needed.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from common.private_files import write_private
from emulator.control_plane.control_plane import ControlPlane
from emulator.control_plane.gateway import Gateway
from emulator.control_plane.policies import Grant, is_in
from emulator.services.http_server import serving
from emulator.services.http_service import Service


@dataclass(frozen=True)
class Access:
    """Access of one identity.

    Attributes:
        gateway: Checks the identity's permissions.
        address: Address of the services.
        token: Access token for this address only.
        token_file: File of mode 600 with the token.
    """

    gateway: Gateway
    address: str
    token: str
    token_file: Path


@dataclass(frozen=True)
class Refusal:
    """A permission that a call required and that no grant gave, in IAM's names."""

    member: str
    permission: str
    resource: str


class Identities:
    """The identities of one project, named as in a policy.

    Args:
        plane: Policies and enabled APIs.
        services: Asked in this order.
        object_exists: Whether a bucket has an object.
        tokens: Folder of the token files.
        stack: Ends the servers.
    """

    def __init__(
        self,
        plane: ControlPlane,
        services: Sequence[Service],
        object_exists: Callable[[str, str], bool],
        tokens: Path,
        stack: ExitStack,
    ) -> None:
        self._plane = plane
        self._services = services
        self._object_exists = object_exists
        self._tokens = tokens
        self._stack = stack
        self._lock = threading.Lock()
        self._accesses: dict[str, Access] = {}

    def access_of(self, member: str) -> Access:
        """Return the access of an identity."""
        # batches and the workflow begin in threads of their own
        with self._lock:
            if member not in self._accesses:
                gateway = Gateway(member, self._plane, self._services, self._object_exists)
                token = secrets.token_urlsafe(32)
                # numbered: an identity's name may be too long for a file
                token_file = self._tokens / str(len(self._accesses))
                write_private(token_file, token)
                address = self._stack.enter_context(serving([gateway], token=token))
                self._accesses[member] = Access(gateway, address, token, token_file)
            return self._accesses[member]

    def gateway_of(self, token: str) -> Gateway | None:
        """Return the gateway of the identity that has a token; None if none has it."""
        with self._lock:
            accesses = list(self._accesses.values())
        return next((access.gateway for access in accesses if access.token == token), None)

    def refusals(self) -> list[Refusal]:
        """Return every permission that was required and not granted."""
        refusals: list[Refusal] = []
        for member, access in self._accesses.items():
            refusals += [
                Refusal(member, needed.permission, needed.resource)
                for needed in access.gateway.refused
            ]
        return refusals

    def unused_grants(self) -> list[Grant]:
        """Return the grants that no call has needed."""
        return [grant for grant in self._plane.policies.grants() if not self._is_used(grant)]

    def _is_used(self, grant: Grant) -> bool:
        access = self._accesses.get(grant.member)
        permissions = self._plane.policies.permissions_of(grant.role)
        return access is not None and any(
            needed.permission in permissions and is_in(grant.resource, needed.resource)
            for needed in access.gateway.used
        )
