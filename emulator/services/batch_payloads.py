"""JSON of Dataproc's batches as the service reads and writes it: protobuf's own rules, through the
official types.

In: the body of a request, or what the double knows of a batch. Out: the service's JSON (int64 as
strings, enums as names, or as numbers where the client asks for them), or its refusals. The lists'
filter is here too. No state and no HTTP routes.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.cloud import dataproc_v1
from google.protobuf import json_format  # type: ignore[import-untyped]

from emulator.services.http_service import ApiError

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
"""The service ignores them in a request (https://google.aip.dev/203#output-only)."""

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
    """RFC 3339 in UTC with microseconds, as the service writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def invalid(message: str, field: str = "") -> ApiError:
    """400 INVALID_ARGUMENT with the details that Google's front end gives."""
    violation = {"description": message, **({"field": field} if field else {})}
    return ApiError(
        400,
        message,
        details=[
            {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}
        ],
    )


def requested_batch(body: Any) -> dict[str, Any]:
    """The batch that a create asks for, in canonical JSON. Raises: ApiError 400 for an unknown
    field or a value of the wrong kind.
    """
    if not isinstance(body, dict):
        raise invalid("Invalid JSON payload received. Unexpected token.", "batch")
    message = dataproc_v1.Batch.pb(dataproc_v1.Batch())
    try:
        json_format.ParseDict(body, message)
    except json_format.ParseError as error:
        unknown = re.search(r'has no field named "([^"]+)" at "Batch\.?([^"]*)"', str(error))
        if not unknown:
            raise invalid(f"Invalid value at 'batch': {error}", "batch") from None
        place = ".".join(["batch", *([unknown[2]] if unknown[2] else [])])
        raise invalid(
            f"Invalid JSON payload received. Unknown name \"{unknown[1]}\" at '{place}': Cannot"
            " find field.",
            place,
        ) from None
    found: dict[str, Any] = json_format.MessageToDict(message)
    return {name: value for name, value in found.items() if name not in OUTPUT_ONLY}


def answered(
    document: dict[str, Any], query: Mapping[str, str], kind: type[Any] = dataproc_v1.Batch
) -> dict[str, Any]:
    """A message as the client wants it: with `enum-encoding=int` in `$alt` the enums are numbers,
    as the official client asks.
    """
    if "enum-encoding=int" not in query.get("$alt", ""):
        return document
    message = json_format.ParseDict(document, kind.pb(kind()))
    numbered: dict[str, Any] = json_format.MessageToDict(message, use_integers_for_enums=True)
    return numbered


def answered_operation(operation: dict[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
    """An operation as the client wants it; its metadata and response have enums too."""
    kinds = {"metadata": dataproc_v1.BatchOperationMetadata, "response": dataproc_v1.Batch}
    wanted = dict(operation)
    for name in kinds.keys() & operation.keys():
        content = {key: value for key, value in operation[name].items() if key != "@type"}
        wanted[name] = {"@type": operation[name]["@type"], **answered(content, query, kinds[name])}
    return wanted


def known_parameters(query: Mapping[str, str], *names: str) -> None:
    """Raises: ApiError 400 for a query parameter that the method does not have."""
    for name in query.keys() - SYSTEM_PARAMETERS - set(names):
        reason = (
            f"Cannot bind query parameter. Field '{name}' could not be found in request message."
        )
        raise invalid(f'Invalid JSON payload received. Unknown name "{name}": {reason}')


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}
CLAUSE = re.compile(r'\s*([\w.-]+)\s*(!=|<=|>=|=|<|>)\s*("[^"]*"|[^\s"]+)\s*')


def matching(filter_text: str) -> Callable[[Mapping[str, Any]], bool]:
    """The test of a list's filter: comparisons of batch_id, batch_uuid, state, create_time and
    labels.NAME joined by AND.

    Args: filter_text as https://google.aip.dev/160 has it; its OR, NOT and brackets are left out,
    and refused. Raises: ApiError 400.
    """
    if not filter_text.strip():
        return lambda batch: True
    clauses = []
    for part in re.split(r"\s+(?:AND|and)\s+", filter_text.strip()):
        found = CLAUSE.fullmatch(part)
        if not found:
            raise invalid(f"Invalid filter: {filter_text!r} can't be read at {part!r}.", "filter")
        read = _reader(found[1], filter_text)
        wanted = found[3].strip('"')
        clauses.append(
            (read, COMPARISONS[found[2]], _instant(wanted) if found[1] == "create_time" else wanted)
        )
    return lambda batch: all(compare(read(batch), wanted) for read, compare, wanted in clauses)


def _reader(field: str, filter_text: str) -> Callable[[Mapping[str, Any]], Any]:
    readers: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "batch_id": lambda batch: batch["name"].rpartition("/")[2],
        "batch_uuid": lambda batch: batch["uuid"],
        "state": lambda batch: batch["state"],
        "create_time": lambda batch: _instant(batch["createTime"]),
    }
    if field.startswith("labels."):
        return lambda batch: batch.get("labels", {}).get(field.removeprefix("labels."), "")
    if field not in readers:
        raise invalid(
            f"Invalid filter: {filter_text!r} names {field!r}, which can't be filtered on.",
            "filter",
        )
    return readers[field]


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise invalid(f"Invalid filter: {text!r} is no time.", "filter") from None


def page(found: Sequence[Any], query: Mapping[str, str]) -> tuple[Sequence[Any], str]:
    """The page that a list asks for, and the token of the next one, "" for none. Raises: ApiError
    400.
    """
    asked = json.dumps([query.get("filter", ""), query.get("orderBy", "")])
    size = query.get("pageSize", "0")
    if not size.isdigit():
        raise invalid(f"Invalid value at 'page_size' (TYPE_INT32), \"{size}\"", "page_size")
    start = 0
    if token := query.get("pageToken"):
        try:
            start, of = json.loads(base64.urlsafe_b64decode(token))
        except (ValueError, binascii.Error, TypeError):
            raise invalid("The page token is not valid.", "page_token") from None
        if of != asked:
            raise invalid(
                "The page token belongs to a list with another filter or order.", "page_token"
            )
    end = start + min(int(size) or 20, 1000)
    following = (
        base64.urlsafe_b64encode(json.dumps([end, asked]).encode()).decode()
        if end < len(found)
        else ""
    )
    return found[start:end], following
