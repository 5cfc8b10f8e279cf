"""Resources as the services keep them: JSON documents by path, created, read, changed and deleted
by the rules of the table.

In: a type, the path's names, a document. Out: the stored document. Every refusal is an `ApiError`
with the status that the service answers. All state is in memory, behind one lock.
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
    """Every resource of the emulated cloud, by `host/path`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._resources: dict[str, Document] = {}
        self._types: dict[str, ResourceType] = {}

    def create(self, type_: ResourceType, names: Names, asked: Document) -> Document:
        """Keep a new resource. Args: names are the collection's placeholders and the new `id`.

        Raises: ApiError 400 (a rule), 404 (a parent or a reference), 409 (it exists).
        """
        if not re.fullmatch(type_.id_rule, names["id"].partition("@")[0]):
            raise ApiError(400, f"Invalid value for {type_.name} id: '{names['id']}'")
        path = path_of(type_, names)
        with self.lock:
            if path in self._resources:
                raise ApiError(409, f"Resource '{type_.relative(path)}' already exists")
            self._require_parent(type_, path)
            self._require_references(type_, asked)
            resource = {**copy.deepcopy(dict(type_.filled)), **asked}
            resource |= _output(type_, names, path)
            now = _now()
            resource |= {"createTime": now, "updateTime": now, "creationTimestamp": now}
            return self._keep(path, type_, resource)

    def get(self, type_: ResourceType, names: Names) -> Document:
        """Raises: ApiError 404."""
        return copy.deepcopy(self._found(type_, names))

    def listed(self, type_: ResourceType, names: Names) -> list[Document]:
        """Resources of one collection, in the order of their creation."""
        collection = f"{type_.host}/{type_.collection.format(**names)}/"
        with self.lock:
            return [
                copy.deepcopy(resource)
                for path, resource in self._resources.items()
                if path.startswith(collection) and "/" not in path.removeprefix(collection)
            ]

    def update(
        self, type_: ResourceType, names: Names, asked: Document, mask: list[str] | None
    ) -> Document:
        """Change the fields of `mask`, or all that were asked. Raises: ApiError 400, 404, 409."""
        with self.lock:
            live = self._found(type_, names)
            if asked.get("etag") and live.get("etag") and asked["etag"] != live["etag"]:
                raise ApiError(409, "The etag is not the current one", reason="ABORTED")
            changed = copy.deepcopy(live)
            for name in list(asked) if mask is None else mask:
                _copy_field(asked, changed, name)
            for name in type_.immutable:
                if field_of(changed, name) != field_of(live, name) and name in asked:
                    raise ApiError(400, f"Field {name} of {type_.name} can not be changed")
            self._require_references(type_, changed)
            changed |= _output(type_, names, path_of(type_, names)) | {"updateTime": _now()}
            return self._keep(path_of(type_, names), type_, changed)

    def delete(self, type_: ResourceType, names: Names) -> Document:
        """Raises: ApiError 400 while it is protected or in use, 404."""
        path = path_of(type_, names)
        with self.lock:
            live = self._found(type_, names)
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
        """Keep what a method other than create and update has made of it."""
        with self.lock:
            return self._keep(path_of(type_, names), type_, resource)

    def exists(self, type_: ResourceType, value: str) -> bool:
        """Whether a reference, in any of the forms that the services take, names a resource."""
        with self.lock:
            return any(
                kind is type_ and _same_resource(path, value) for path, kind in self._types.items()
            )

    def of_type(self, name: str) -> Iterator[Document]:
        """All resources of a type, in the order of their creation. Args: name as in the table."""
        with self.lock:
            paths = [path for path, kind in self._types.items() if kind.name == name]
            yield from (copy.deepcopy(self._resources[path]) for path in paths)

    def counts(self) -> dict[str, int]:
        """How many there are, by type."""
        with self.lock:
            names = [kind.name for kind in self._types.values()]
        return {name: names.count(name) for name in sorted(set(names))}

    def _found(self, type_: ResourceType, names: Names) -> Document:
        path = path_of(type_, names)
        with self.lock:
            if path not in self._resources:
                raise ApiError(404, f"Resource '{type_.relative(path)}' was not found")
            return self._resources[path]

    def _keep(self, path: str, type_: ResourceType, resource: Document) -> Document:
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
            found = field_of(resource, reference.path)
            for value in found if isinstance(found, list) else [found]:
                if value and not self.exists(TYPES[reference.type], value):
                    raise ApiError(404, f"The resource '{value}' was not found")

    def _uses(self, user: str, path: str) -> bool:
        references = self._types[user].references
        values = [field_of(self._resources[user], reference.path) for reference in references]
        return any(
            value and _same_resource(path, value) for value in values if isinstance(value, str)
        )


def path_of(type_: ResourceType, names: Names) -> str:
    """`host/collection/id`: the key of a resource."""
    return f"{type_.host}/{type_.collection.format(**names)}/{names['id']}"


def field_of(document: Any, path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    for part in path.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document


def camel_case(name: str) -> str:
    """A mask may name fields in either form; documents have this one."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)


def _copy_field(source: Document, target: Document, path: str) -> None:
    """Set what the source has at the path; a field that it has not is removed, as a mask asks."""
    *parents, last = path.split(".")
    for part in parents:
        source, target = source.get(part) or {}, target.setdefault(part, {})
    if last in source:
        target[last] = copy.deepcopy(source[last])
    else:
        target.pop(last, None)


def _output(type_: ResourceType, names: Names, path: str) -> Document:
    """The fields that the service sets, and the resource's full name where it has one."""
    relative = path.partition("/")[2]
    number = str(int(hashlib.sha256(path.encode()).hexdigest()[:15], 16))
    known = {**names, "path": relative, "number": PROJECT_NUMBER, "number_of_path": number}
    output = {
        key: value.format(**known) if isinstance(value, str) else copy.deepcopy(value)
        for key, value in type_.output.items()
    }
    if type_.answer == "compute" or type_.service == "dns":
        return {"name": names["id"], "id": number, **output}
    if type_.name == "cloudbuild.triggers":
        return {"id": names["id"], "resourceName": type_.relative(path), **output}
    if type_.answer == "sql" or type_.service == "storage":
        return {"name": names["id"], **output}
    return {"name": type_.relative(path), **output}


def _same_resource(path: str, value: str) -> bool:
    """A reference is a URL, a name from `projects/` on, or in Compute Engine the last part."""
    return path.endswith(f"/{value.partition('/projects/')[2] or value.removeprefix('projects/')}")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
