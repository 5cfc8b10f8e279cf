"""Fake of Cloud Logging's `entries:list`, for the output of Cloud Run containers. Supports filters
of comparisons joined by AND, order by timestamp, and pages; rejects other filters. Each nonblank
line is an entry; a JSON object is a `jsonPayload`.

Sources: https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list and
https://cloud.google.com/run/docs/logging
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from emulator.services.batch_payloads import instant, timestamp
from emulator.services.http_service import (
    Answer,
    ApiError,
    Request,
    Service,
    invalid_argument,
)
from emulator.services.paging import Paging
from emulator.services.written_lines import WrittenLine

FIELDS = {"resourceNames", "filter", "orderBy", "pageSize", "pageToken"}
COMPARISON = re.compile(r'([\w.]+(?:"[^"]+")?)\s*(>=|<=|>|<|=)\s*"([^"]*)"')
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
ORDERS = {"": False, "timestamp": False, "timestamp asc": False, "timestamp desc": True}
"""Whether the newest is first."""

PAGING = Paging(
    default_size=50,
    largest_size=1000,
    list_parameters=("resourceNames", "filter", "orderBy"),
    rejects_larger=True,
)
"""https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list"""

EXECUTION = re.compile(
    r"projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)"
    r"/jobs/(?P<job>[^/]+)/executions/(?P<execution>.+)"
)

Lines = Callable[[], Iterable[tuple[str, WrittenLine]]]
"""Returns every line so far, with the full name of its execution."""


class FakeLogging(Service):
    """The service. It stores nothing and reads the lines on each request."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines
        self.route("POST", r"/v2/entries:list", self._list)

    def _list(self, request: Request) -> Answer:
        body = request.json()
        if unknown := sorted(set(body) - FIELDS):
            raise ApiError(
                400,
                f'Invalid JSON payload received. Unknown name "{unknown[0]}": Cannot find field.',
            )
        if not body.get("resourceNames") or not isinstance(body["resourceNames"], list):
            raise ApiError(400, "resource_names must be set: a list with at least one parent")
        order = _text(body, "orderBy")
        if order not in ORDERS:
            raise invalid_argument(f"orderBy {order!r} is not allowed", "order_by")
        comparisons = _comparisons(_text(body, "filter"))
        entries = []
        for name, line in self._lines():
            if not line.text.strip():
                continue
            entry = _entry(name, line)
            parent = entry["logName"].partition("/logs/")[0]
            if parent in body["resourceNames"] and all(fits(entry) for fits in comparisons):
                entries.append(entry)
        entries.sort(key=lambda entry: entry["timestamp"], reverse=ORDERS[order])
        page, following = PAGING.page(entries, body)
        return Answer(
            {
                **({"entries": page} if page else {}),
                **({"nextPageToken": following} if following else {}),
            }
        )


def _text(body: Mapping[str, Any], name: str) -> str:
    """Return a text of the request, empty without it.

    Raises:
        ApiError: 400, for a value of another type.
    """
    value = body.get(name) or ""
    if not isinstance(value, str):
        raise invalid_argument(f"Invalid value at '{name}' (TYPE_STRING), {value!r}", name)
    return value


def _comparisons(text: str) -> list[Callable[[dict[str, Any]], bool]]:
    """Parse a filter.

    Raises:
        ApiError: 400, for an unsupported clause.
    """
    comparisons = []
    for clause in filter(None, text.split(" AND ")):
        parts = COMPARISON.fullmatch(clause.strip())
        if parts is None:
            raise ApiError(400, f"Unparseable filter: {clause!r}")
        comparisons.append(_comparison(*parts.groups()))
    return comparisons


def _comparison(field: str, sign: str, value: str) -> Callable[[dict[str, Any]], bool]:
    compare = COMPARE[sign]
    if field == "timestamp":
        limit = instant(value)
        return lambda entry: compare(instant(entry["timestamp"]), limit)
    return lambda entry: compare(_value(entry, field), value)


def _value(entry: dict[str, Any], field: str) -> Any:
    """Return a field by its path; a name with other characters is quoted and last."""
    path, _, quoted = field.partition('."')
    value: Any = entry
    for name in [*path.split("."), *([quoted.rstrip('"')] if quoted else [])]:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _entry(name: str, line: WrittenLine) -> dict[str, Any]:
    match = EXECUTION.fullmatch(name)
    assert match is not None
    when = timestamp(line.seen)
    return {
        "insertId": f"{match['execution']}-{line.number}",
        "logName": f"projects/{match['project']}/logs/run.googleapis.com%2F{line.stream}",
        "resource": {
            "type": "cloud_run_job",
            "labels": {
                "project_id": match["project"],
                "location": match["location"],
                "job_name": match["job"],
            },
        },
        "labels": {
            "run.googleapis.com/execution_name": match["execution"],
            "run.googleapis.com/task_index": "0",
            "run.googleapis.com/task_attempt": "0",
        },
        "timestamp": when,
        "receiveTimestamp": when,
        **_payload(line.text),
    }


def _payload(text: str) -> dict[str, Any]:
    # structured logging (https://cloud.google.com/run/docs/logging)
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return {"jsonPayload": value} if isinstance(value, dict) else {"textPayload": text}
