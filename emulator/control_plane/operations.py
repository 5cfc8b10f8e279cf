"""Responses to a change: the resource, or an operation that is done at once, in each
service's form.
"""

from __future__ import annotations

import uuid
from typing import Any

from emulator.control_plane.resource_store import Document, Names, path_of
from emulator.control_plane.resource_types import ResourceType
from emulator.services.http_service import Answer, ApiError, Request

LONG_RUNNING = r"/v[12]/(?P<name>(?:projects/.+/)?operations/[^/:]+)"
COMPUTE = r"/compute/v1/(?P<name>projects/.+/operations/[^/:]+)(?:/wait)?"
SQL = r"/sql/v1beta4/(?P<name>projects/.+/operations/[^/:]+)"
PATTERNS = (LONG_RUNNING, COMPUTE, SQL)
"""Paths of operations.

Source: https://cloud.google.com/apis/design/design_patterns#long_running_operations
"""


class Operations:
    """Finished operations by name, which clients poll."""

    def __init__(self) -> None:
        self._done: dict[str, Document] = {}

    def answer(self, type_: ResourceType, names: Names, resource: Document, verb: str) -> Answer:
        """Return the response to a change.

        Args:
            type_: Type of the resource.
            names: Names in its path.
            resource: The resource after the change.
            verb: create, update or delete.
        """
        if type_.answer == "resource":
            return Answer({} if verb == "delete" else resource)
        key = uuid.uuid4().hex
        relative = type_.relative(path_of(type_, names))
        # operations are a sibling of the type's collection
        parent = relative.rpartition("/")[0].rpartition("/")[0]
        # Cloud SQL's operations belong to the project, not to the instance
        if type_.answer == "sql":
            parent = f"projects/{names['project']}"
        name = f"{parent}/operations/{key}"
        if type_.answer == "operation":
            return Answer(self.finished(name, resource if verb != "delete" else {}))
        operation = {
            "kind": f"{type_.service}#operation",
            "name": key,
            "status": "DONE",
            "operationType": verb,
            "targetLink": resource.get("selfLink"),
            "targetId": names["id"],
            "targetProject": names["project"],
            "selfLink": f"https://{type_.host}/{name}",
        }
        if "region" in names:
            operation["region"] = resource["region"]
        if type_.answer == "sql":
            operation["kind"] = "sql#operation"
        self._done[name] = operation
        return Answer(operation)

    def finished(self, name: str, response: Document) -> Document:
        """Return a finished long-running operation with its response."""
        typed: dict[str, Any] = {"@type": "type.googleapis.com/google.protobuf.Struct", **response}
        self._done[name] = {"name": name, "done": True, "response": typed, "metadata": {}}
        return self._done[name]

    def get(self, request: Request, name: str) -> Answer:
        """Return an operation.

        Raises:
            ApiError: 404.
        """
        if name not in self._done:
            raise ApiError(404, f"Operation {name} was not found")
        return Answer(self._done[name])
