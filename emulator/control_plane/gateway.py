"""Access of one identity to the services: rejects every call that its grants do not allow. Each
identity has its own address, and a token for this address only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emulator.control_plane.control_plane import ControlPlane
from emulator.control_plane.method_permissions import Needed, needed
from emulator.services.http_service import Answer, ApiError, Request, Service


class Gateway(Service):
    """The services for one identity. `used` and `refused` record the permissions of its calls.

    Args:
        member: The caller, as in a policy.
        plane: Policies and enabled APIs.
        services: Asked in this order.
        object_exists: Whether a bucket has an object.
    """

    def __init__(
        self,
        member: str,
        plane: ControlPlane,
        services: Sequence[Service],
        object_exists: Callable[[str, str], bool],
    ) -> None:
        super().__init__()
        self.member = member
        self.refused: list[Needed] = []
        self.used: set[Needed] = set()
        self._plane = plane
        self._services = services
        self._object_exists = object_exists

    def answer(self, request: Request) -> Answer | None:
        """Check the caller's permissions, then answer."""
        try:
            api, permissions = needed(request, self._object_exists)
            # before the permissions: a disabled API answers 403 to everyone
            self._plane.require_api(api)
            for permission in permissions:
                self.require(permission)
        except ApiError as error:
            return error.answer
        answers = (service.answer(request) for service in self._services)
        return next((answer for answer in answers if answer is not None), None)

    def require(self, permission: Needed) -> None:
        """Check one permission and record its use.

        Raises:
            ApiError: 403.
        """
        if self._plane.policies.allows(self.member, permission.permission, permission.resource):
            self.used.add(permission)
            return
        self.refused.append(permission)
        raise ApiError(
            403,
            f"Permission '{permission.permission}' denied on resource '{permission.resource}'"
            f" (or it may not exist): {self.member} is not granted it",
        )
