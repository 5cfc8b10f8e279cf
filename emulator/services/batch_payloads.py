"""JSON of Dataproc batches: parses requests, encodes responses and filters lists. The
official protobuf types define the format (int64 as text, enums as names, or as numbers on
request). Holds no state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.cloud import dataproc_v1
from google.protobuf import json_format  # type: ignore[import-untyped]

from emulator.services.http_service import invalid_argument

OUTPUT_ONLY = (
    "name",
    "uuid",
    "createTime",
    "runtimeInfo",
    "state",
    "stateMessage",
    "stateTime",
    "creator",
    "operation",
    "stateHistory",
)
"""Fields that the service ignores in a request (https://google.aip.dev/203#output-only)."""

SYSTEM_PARAMETERS = frozenset(
    {
        "$alt",
        "alt",
        "key",
        "access_token",
        "fields",
        "prettyPrint",
        "quotaUser",
        "$prettyPrint",
        "$fields",
        "callback",
    }
)
"""Query parameters of every Google API (https://cloud.google.com/apis/docs/system-parameters)."""

METADATA_TYPE = "type.googleapis.com/google.cloud.dataproc.v1.BatchOperationMetadata"
BATCH_TYPE = "type.googleapis.com/google.cloud.dataproc.v1.Batch"


def timestamp(seconds: float) -> str:
    """Format seconds since the epoch as RFC 3339, UTC, with microseconds, as the service does."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_batch(body: Any) -> dict[str, Any]:
    """Return the batch of a create request, in canonical JSON.

    Args:
        body: JSON of the request.

    Raises:
        ApiError: 400, for an unknown field or a value of the wrong type.
    """
    if not isinstance(body, dict):
        raise invalid_argument("Invalid JSON payload received. Unexpected token.", "batch")
    message = dataproc_v1.Batch.pb(dataproc_v1.Batch())
    try:
        json_format.ParseDict(body, message)
    except json_format.ParseError as error:
        # the service words an unknown field differently from a wrong value
        unknown = re.search(r'has no field named "([^"]+)" at "Batch\.?([^"]*)"', str(error))
        if not unknown:
            raise invalid_argument(f"Invalid value at 'batch': {error}", "batch") from None
        path = ".".join(["batch", *([unknown[2]] if unknown[2] else [])])
        raise invalid_argument(
            f"Invalid JSON payload received. Unknown name \"{unknown[1]}\" at '{path}': Cannot"
            " find field.",
            path,
        ) from None
    batch: dict[str, Any] = json_format.MessageToDict(message)
    return {name: value for name, value in batch.items() if name not in OUTPUT_ONLY}


def encode_message(
    payload: dict[str, Any], query: Mapping[str, str], kind: type[Any] = dataproc_v1.Batch
) -> dict[str, Any]:
    """Return a message as the client requests it: with `enum-encoding=int` in `$alt`, as the
    official client sends, enums are numbers.
    """
    if "enum-encoding=int" not in query.get("$alt", ""):
        return payload
    message = json_format.ParseDict(payload, kind.pb(kind()))
    numbered: dict[str, Any] = json_format.MessageToDict(message, use_integers_for_enums=True)
    return numbered


def encode_operation(operation: dict[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
    """Return an operation as the client requests it; its metadata and response have enums too."""
    kinds = {"metadata": dataproc_v1.BatchOperationMetadata, "response": dataproc_v1.Batch}
    encoded = dict(operation)
    for name in kinds.keys() & operation.keys():
        content = {key: value for key, value in operation[name].items() if key != "@type"}
        encoded[name] = {
            "@type": operation[name]["@type"],
            **encode_message(content, query, kinds[name]),
        }
    return encoded


def check_parameters(query: Mapping[str, str], *names: str) -> None:
    """Check the query parameters of a method.

    Raises:
        ApiError: 400, for a parameter that it does not have.
    """
    for name in query.keys() - SYSTEM_PARAMETERS - set(names):
        reason = (
            f"Cannot bind query parameter. Field '{name}' could not be found in request message."
        )
        raise invalid_argument(f'Invalid JSON payload received. Unknown name "{name}": {reason}')


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}
CLAUSE = re.compile(r'\s*([\w.-]+)\s*(!=|<=|>=|=|<|>)\s*("[^"]*"|[^\s"]+)\s*')


def batch_filter(filter_text: str) -> Callable[[Mapping[str, Any]], bool]:
    """Return the predicate of a list's filter: comparisons of batch_id, batch_uuid, state,
    create_time and labels.NAME, joined by AND.

    Args:
        filter_text: Filter as in https://google.aip.dev/160, without OR, NOT and parentheses.

    Raises:
        ApiError: 400, for another filter.
    """
    if not filter_text.strip():
        return lambda batch: True
    clauses = []
    for part in re.split(r"\s+(?:AND|and)\s+", filter_text.strip()):
        match = CLAUSE.fullmatch(part)
        if not match:
            raise invalid_argument(
                f"Invalid filter: {filter_text!r} can't be read at {part!r}.", "filter"
            )
        read = _reader(match[1], filter_text)
        value = match[3].strip('"')
        operand = instant(value) if match[1] == "create_time" else value
        clauses.append((read, COMPARISONS[match[2]], operand))
    return lambda batch: all(compare(read(batch), operand) for read, compare, operand in clauses)


def _reader(field: str, filter_text: str) -> Callable[[Mapping[str, Any]], Any]:
    readers: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "batch_id": lambda batch: batch["name"].rpartition("/")[2],
        "batch_uuid": lambda batch: batch["uuid"],
        "state": lambda batch: batch["state"],
        "create_time": lambda batch: instant(batch["createTime"]),
    }
    if field.startswith("labels."):
        return lambda batch: batch.get("labels", {}).get(field.removeprefix("labels."), "")
    if field not in readers:
        raise invalid_argument(
            f"Invalid filter: {filter_text!r} names {field!r}, which can't be filtered on.",
            "filter",
        )
    return readers[field]


def instant(text: str) -> datetime:
    """Parse the time of a filter, RFC 3339 with a zone.

    Raises:
        ApiError: 400, for another text.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    # a time without a zone can't be compared with those of the service
    if moment is None or moment.tzinfo is None:
        raise invalid_argument(f"Invalid filter: {text!r} is no time with a zone.", "filter")
    return moment
