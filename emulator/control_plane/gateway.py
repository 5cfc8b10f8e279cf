"""One caller's way to the services: every call is refused that the caller is not granted.

In: requests of one identity. Out: the answer of the services behind it, or 403 naming permission
and resource. Each identity has an address of its own, and a token that opens this one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emulator.control_plane.control_plane import ControlPlane
from emulator.control_plane.method_permissions import Needed, needed
from emulator.services.http_service import Answer, ApiError, Request, Service


class Gateway(Service):
    """Args: member is who calls, as a policy names it; services are asked in their order."""

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
        """As `Service.answer`, after the caller's rights."""
        try:
            api, wanted = needed(request, self._object_exists)
            self._plane.require_api(api)
            for one in wanted:
                self.require(one)
        except ApiError as error:
            return error.answer
        found = (service.answer(request) for service in self._services)
        return next((answer for answer in found if answer is not None), None)

    def require(self, wanted: Needed) -> None:
        """Raises: ApiError 403."""
        if self._plane.policies.allows(self.member, wanted.permission, wanted.resource):
            self.used.add(wanted)
            return
        self.refused.append(wanted)
        raise ApiError(
            403,
            f"Permission '{wanted.permission}' denied on resource '{wanted.resource}' (or it may"
            f" not exist): {self.member} is not granted it",
        )
