"""Reads a Terraform plan from its JSON (`terraform show -json`), for rules.

Format: https://developer.hashicorp.com/terraform/internals/json-format
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Resource:
    """A managed resource as it would be after the apply."""

    address: str
    type: str
    name: str
    index: str | int | None
    values: dict[str, Any]

    def blocks(self, name: str) -> list[dict[str, Any]]:
        """The nested blocks of this name, directly below the resource."""
        return list(self.values.get(name) or [])

    def texts_of(self, *names: str) -> list[str]:
        """Return every text under one of these attribute names, at any depth."""
        return [
            value
            for name, value in _attributes(self.values)
            if name in names and isinstance(value, str)
        ]


@dataclass(frozen=True)
class Plan:
    """One plan; document is the whole JSON."""

    document: dict[str, Any]

    @cached_property
    def resources(self) -> list[Resource]:
        entries = self.document["planned_values"]["root_module"]["resources"]
        return [
            Resource(
                entry["address"], entry["type"], entry["name"], entry.get("index"), entry["values"]
            )
            for entry in entries
            if entry["mode"] == "managed"
        ]

    def of_type(self, kind: str) -> list[Resource]:
        return [resource for resource in self.resources if resource.type == kind]

    def resource(self, kind: str, name: str, index: str | None = None) -> Resource:
        """Return the resource.

        Raises: AssertionError if there is not exactly one.
        """
        matching = [
            resource
            for resource in self.of_type(kind)
            if (resource.name, resource.index) == (name, index)
        ]
        assert len(matching) == 1, f"{len(matching)} resources {kind}.{name} with index {index}"
        return matching[0]

    @property
    def variables(self) -> list[str]:
        """Names of the configuration's variables."""
        return list(self.document["configuration"]["root_module"]["variables"])

    @property
    def outputs(self) -> dict[str, Any]:
        """Values of the outputs that are known before the apply."""
        outputs = self.document["planned_values"]["outputs"]
        return {name: output["value"] for name, output in outputs.items() if "value" in output}

    @cached_property
    def settings_text(self) -> str:
        """The content of settings.env."""
        text: str = self.resource("google_storage_bucket_object", "settings").values["content"]
        return text

    def setting(self, name: str) -> str:
        """Return a value of settings.env; an empty text if it has none."""
        lines = dict(line.split("=", 1) for line in self.settings_text.splitlines())
        return lines.get(name, "")

    def references(self, resource: Resource, attribute: str) -> list[str]:
        """Return the references that the configuration takes an attribute's value from."""
        configured = self.document["configuration"]["root_module"]["resources"]
        address = f"{resource.type}.{resource.name}"
        expressions = next(
            entry["expressions"] for entry in configured if entry["address"] == address
        )
        return list(expressions.get(attribute, {}).get("references", []))


def _attributes(values: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for name, value in values.items():
            yield name, value
            yield from _attributes(value)
    elif isinstance(values, list):
        for value in values:
            yield from _attributes(value)
