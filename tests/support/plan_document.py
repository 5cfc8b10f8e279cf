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
        """Every text under one of these attribute names, however deep."""
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
        listed = self.document["planned_values"]["root_module"]["resources"]
        return [
            Resource(one["address"], one["type"], one["name"], one.get("index"), one["values"])
            for one in listed
            if one["mode"] == "managed"
        ]

    def of_type(self, kind: str) -> list[Resource]:
        return [one for one in self.resources if one.type == kind]

    def one(self, kind: str, name: str, index: str | None = None) -> Resource:
        """Raises: AssertionError where there is not exactly one."""
        found = [one for one in self.of_type(kind) if (one.name, one.index) == (name, index)]
        assert len(found) == 1, f"{len(found)} resources {kind}.{name} with index {index}"
        return found[0]

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
        text: str = self.one("google_storage_bucket_object", "settings").values["content"]
        return text

    def setting(self, name: str) -> str:
        """A value of settings.env; an empty text where it has none."""
        lines = dict(line.split("=", 1) for line in self.settings_text.splitlines())
        return lines.get(name, "")

    def references(self, resource: Resource, attribute: str) -> list[str]:
        """What the configuration takes an attribute's value from."""
        configured = self.document["configuration"]["root_module"]["resources"]
        address = f"{resource.type}.{resource.name}"
        expressions = next(one["expressions"] for one in configured if one["address"] == address)
        return list(expressions.get(attribute, {}).get("references", []))


def _attributes(values: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for name, value in values.items():
            yield name, value
            yield from _attributes(value)
    elif isinstance(values, list):
        for value in values:
            yield from _attributes(value)
