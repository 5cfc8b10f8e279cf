"""Reads OpenLineage events back into the types of openlineage-python, which are generated from the
specification. No package registry has the JSON schemas themselves.
"""

from __future__ import annotations

import importlib
import pkgutil
import types
import typing
import uuid
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

import attr
from openlineage.client import generated
from openlineage.client.event_v2 import RunEvent
from openlineage.client.generated import base

FACETS = ("facets", "inputFacets", "outputFacets")

STANDARD_KEYS = {
    "errorMessage": "ErrorMessageRunFacet",
    "inputStatistics": "InputStatisticsInputDatasetFacet",
    "jobType": "JobTypeJobFacet",
    "nominalTime": "NominalTimeRunFacet",
    "outputStatistics": "OutputStatisticsOutputDatasetFacet",
    "parent": "ParentRunFacet",
    "processing_engine": "ProcessingEngineRunFacet",
    "schema": "SchemaDatasetFacet",
    "tags": "TagsRunFacet",
}
"""Names of facets, by their key in the specification (https://openlineage.io/docs/spec/facets)."""

TIMES = ("eventTime", "nominalStartTime", "nominalEndTime")


def assert_is_event(event: Mapping[str, Any]) -> None:
    """Read an event with all its facets.

    Raises:
        AssertionError: a field or facet is not of the specification, is of another type, names
            another schema, or is missing.
    """
    _read(RunEvent, event, "event")


@cache
def _facet_types() -> Mapping[str, type]:
    """Return the types of facets by the address of their schema."""
    modules = [
        importlib.import_module(f"{generated.__name__}.{module.name}")
        for module in pkgutil.iter_modules(generated.__path__)
    ]
    classes = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base.BaseFacet)
    ]
    return {facet._get_schema(): facet for facet in classes}


def _read(annotation: Any, value: Any, place: str) -> Any:
    """Return a value of JSON as the annotated type.

    Raises:
        AssertionError: it is not of this type, or has a field that the type has not.
    """
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return _read_union(typing.get_args(annotation), value, place)
    if typing.get_origin(annotation) is list:
        assert isinstance(value, list), place
        (of_entry,) = typing.get_args(annotation)
        return [_read(of_entry, entry, f"{place}[{n}]") for n, entry in enumerate(value)]
    if attr.has(annotation):
        return _read_fields(annotation, value, place)
    assert isinstance(annotation, type), f"{place} has the unknown type {annotation}"
    if issubclass(annotation, base.EventType):
        return annotation(value)
    # a number is no text, and True no number
    assert type(value) is annotation, f"{place} is {value!r}, not of {annotation}"
    return value


def _read_union(alternatives: tuple[Any, ...], value: Any, place: str) -> Any:
    others = [one for one in alternatives if one is not type(None)]
    assert len(others) == 1, f"{place} has the types {others}"
    return _read(others[0], value, place)


def _read_fields(of: type, value: Any, place: str) -> Any:
    assert isinstance(value, dict), place
    required = {field.name for field in attr.fields(of) if field.default is attr.NOTHING}
    assert required <= value.keys(), f"{place} lacks {required - value.keys()}"
    annotations = typing.get_type_hints(of)
    fields = {field.name: field for field in attr.fields(of)}
    assert value.keys() <= fields.keys(), f"{place} has {value.keys() - fields.keys()}"
    given, written = {}, {}
    for name, content in value.items():
        _check_format(name, content)
        if name in FACETS:
            read = {key: _read_facet(key, facet, place) for key, facet in content.items()}
        else:
            read = _read(annotations[name], content, f"{place}.{name}")
        if fields[name].init:
            given[fields[name].alias] = read
        else:
            written[name] = read
    made = of(**given)
    # the type writes the address of its schema
    assert all(getattr(made, name) == content for name, content in written.items()), place
    return made


def _read_facet(key: str, facet: Mapping[str, Any], place: str) -> Any:
    of = _facet_types()[facet["_schemaURL"]]
    assert of.__name__ == STANDARD_KEYS[key]
    return _read_fields(of, facet, f"{place}.{key}")


def _check_format(name: str, content: Any) -> None:
    """Check the formats of the specification, which no type has."""
    if name in TIMES:
        assert datetime.fromisoformat(content).tzinfo is not None
    if name == "runId":
        assert str(uuid.UUID(content)) == content
