"""Resources as JSON by path: created, read, updated and deleted by the rules of the type's row. An
`ApiError` has the status of the service. State is in memory, behind one lock.
"""

from __future__ import annotations

import copy
import hashlib
import re
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from emulator.control_plane.resource_types import RESOURCE_TYPES, ResourceType
from emulator.services.http_service import ApiError

Document = dict[str, Any]
Names = Mapping[str, str]

TYPES = {type_.name: type_ for type_ in RESOURCE_TYPES}

PROJECT_NUMBER = "314159265358"


class ResourceStore:
    """Every resource of the emulated cloud, by `host/path`. Metric descriptors are apart, by type,
    because their names have slashes.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.metric_descriptors: dict[str, Document] = {}
        self._resources: dict[str, Document] = {}
        self._types: dict[str, ResourceType] = {}

    def create(self, type_: ResourceType, names: Names, requested: Document) -> Document:
        """Store a new resource.

        Args:
            type_: Its type.
            names: Placeholders of the collection, and the new `id`.
            requested: Fields of the request.

        Raises:
            ApiError: 400 for a rule, 404 for a missing parent or reference, 409 if it exists.
        """
        # the rule of an account's id is that of the part before the @
        if not re.fullmatch(type_.id_rule, names["id"].partition("@")[0]):
            raise ApiError(400, f"Invalid value for {type_.name} id: '{names['id']}'")
        path = path_of(type_, names)
        with self.lock:
            if path in self._resources:
                raise ApiError(409, f"Resource '{type_.relative(path)}' already exists")
            self._require_parent(type_, path)
            self._require_references(type_, requested)
            resource = {**copy.deepcopy(dict(type_.filled)), **requested}
            resource |= _output(type_, names, path)
            now = _now()
            resource |= {"createTime": now, "updateTime": now, "creationTimestamp": now}
            return self._store(path, type_, resource)

    def get(self, type_: ResourceType, names: Names) -> Document:
        """Return a resource.

        Raises:
            ApiError: 404.
        """
        return copy.deepcopy(self._live(type_, names))

    def listed(self, type_: ResourceType, names: Names) -> list[Document]:
        """Return the resources of a collection, in the order of their creation."""
        collection = f"{type_.host}/{type_.collection.format(**names)}/"
        with self.lock:
            return [
                copy.deepcopy(resource)
                for path, resource in self._resources.items()
                if path.startswith(collection) and "/" not in path.removeprefix(collection)
            ]

    def update(
        self, type_: ResourceType, names: Names, requested: Document, mask: list[str] | None
    ) -> Document:
        """Update the fields of `mask`, or all of the request.

        Raises:
            ApiError: 400 for an immutable field, 404, 409 for an outdated etag.
        """
        with self.lock:
            live = self._live(type_, names)
            if requested.get("etag") and live.get("etag") and requested["etag"] != live["etag"]:
                raise ApiError(409, "The etag is not the current one", reason="ABORTED")
            changed = copy.deepcopy(live)
            for name in list(requested) if mask is None else mask:
                _copy_field(requested, changed, name)
            for name in type_.immutable:
                if field_of(changed, name) != field_of(live, name) and name in requested:
                    raise ApiError(400, f"Field {name} of {type_.name} can not be changed")
            self._require_references(type_, changed)
            # again: an update must not change what the service sets
            changed |= _output(type_, names, path_of(type_, names)) | {"updateTime": _now()}
            return self._store(path_of(type_, names), type_, changed)

    def delete(self, type_: ResourceType, names: Names) -> Document:
        """Delete a resource and those inside it.

        Raises:
            ApiError: 400 while it is protected or in use, 404.
        """
        path = path_of(type_, names)
        with self.lock:
            live = self._live(type_, names)
            if type_.protected_by and field_of(live, type_.protected_by):
                raise ApiError(
                    400,
                    f"{type_.relative(path)} can not be deleted: {type_.protected_by} is set",
                    reason="FAILED_PRECONDITION",
                )
            users = [user for user in self._resources if self._uses(user, path)]
            if users:
                raise ApiError(
                    400, f"{type_.relative(path)} is in use by {users[0]}", reason="resourceInUse"
                )
            for inner in [key for key in self._resources if key.startswith(f"{path}/")]:
                del self._resources[inner], self._types[inner]
            del self._resources[path], self._types[path]
            return live

    def replace(self, type_: ResourceType, names: Names, resource: Document) -> Document:
        """Store the result of another method."""
        with self.lock:
            return self._store(path_of(type_, names), type_, resource)

    def exists(self, type_: ResourceType, value: str) -> bool:
        """Return whether a reference, in any form of the services, names a resource."""
        with self.lock:
            return any(
                kind is type_ and _same_resource(path, value) for path, kind in self._types.items()
            )

    def of_type(self, name: str) -> Iterator[Document]:
        """Return all resources of a type, in the order of their creation."""
        with self.lock:
            paths = [path for path, kind in self._types.items() if kind.name == name]
            yield from (copy.deepcopy(self._resources[path]) for path in paths)

    def counts(self) -> dict[str, int]:
        """Return the number of resources by type."""
        with self.lock:
            names = [kind.name for kind in self._types.values()]
        return {name: names.count(name) for name in sorted(set(names))}

    def _live(self, type_: ResourceType, names: Names) -> Document:
        path = path_of(type_, names)
        with self.lock:
            if path not in self._resources:
                raise ApiError(404, f"Resource '{type_.relative(path)}' was not found")
            return self._resources[path]

    def _store(self, path: str, type_: ResourceType, resource: Document) -> Document:
        # equal resources have equal etags
        content = repr(sorted((key, value) for key, value in resource.items() if key != "etag"))
        resource["etag"] = hashlib.sha256(content.encode()).hexdigest()[:16]
        self._resources[path], self._types[path] = resource, type_
        return copy.deepcopy(resource)

    def _require_parent(self, type_: ResourceType, path: str) -> None:
        parent = path.rpartition("/")[0].rpartition("/")[0]
        kinds = {f"{kind.host}/{kind.collection.rpartition('/')[2]}" for kind in TYPES.values()}
        is_resource = f"{type_.host}/{parent.split('/')[-2]}" in kinds
        if is_resource and parent not in self._resources:
            raise ApiError(404, f"Resource '{type_.relative(parent)}' was not found")

    def _require_references(self, type_: ResourceType, resource: Document) -> None:
        for reference in type_.references:
            field_value = field_of(resource, reference.path)
            for value in field_value if isinstance(field_value, list) else [field_value]:
                if value and not self.exists(TYPES[reference.type], value):
                    raise ApiError(404, f"The resource '{value}' was not found")

    def _uses(self, user: str, path: str) -> bool:
        references = self._types[user].references
        values = [field_of(self._resources[user], reference.path) for reference in references]
        return any(
            value and _same_resource(path, value) for value in values if isinstance(value, str)
        )


def path_of(type_: ResourceType, names: Names) -> str:
    """Return the key of a resource, `host/collection/id`."""
    return f"{type_.host}/{type_.collection.format(**names)}/{names['id']}"


def field_of(value: Any, path: str) -> Any:
    """Return the value at a dotted path; None if it is missing."""
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def camel_case(name: str) -> str:
    """Convert a mask's field name to the form of resources; masks may use either."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


def _copy_field(source: Document, target: Document, path: str) -> None:
    """Copy the value at a path. A field that the source lacks is removed, as an update
    mask requires.
    """
    *parents, last = path.split(".")
    for part in parents:
        source, target = source.get(part) or {}, target.setdefault(part, {})
    if last in source:
        target[last] = copy.deepcopy(source[last])
    else:
        target.pop(last, None)


def _output(type_: ResourceType, names: Names, path: str) -> Document:
    """Return the fields that the service sets, and the resource's full name."""
    relative = path.partition("/")[2]
    # the same for the same path, so that two runs of a test see the same numbers
    number = str(int(hashlib.sha256(path.encode()).hexdigest()[:15], 16))
    placeholders = {**names, "path": relative, "number": PROJECT_NUMBER, "number_of_path": number}
    output = {
        key: value.format(**placeholders) if isinstance(value, str) else copy.deepcopy(value)
        for key, value in type_.output.items()
    }
    if type_.answer == "compute" or type_.service == "dns":
        return {"name": names["id"], "id": number, **output}
    if type_.name == "cloudbuild.triggers":
        return {"id": names["id"], "resourceName": type_.relative(path), **output}
    if type_.answer == "sql" or type_.service in ("logging", "storage"):
        return {"name": names["id"], **output}
    return {"name": type_.relative(path), **output}


def _same_resource(path: str, value: str) -> bool:
    """Match a path with a reference: a URL, a name from `projects/` on, or in Compute Engine the
    last part.
    """
    return path.endswith(f"/{value.partition('/projects/')[2] or value.removeprefix('projects/')}")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
