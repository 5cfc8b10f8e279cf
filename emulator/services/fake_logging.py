"""A double of Cloud Logging's `entries:list`, for what containers of Cloud Run jobs wrote.

In: a filter of comparisons joined by AND, an order by timestamp, pages. Out: entries as Cloud Run
makes them: one for each line, with the labels of its execution; a line that is a JSON object is a
`jsonPayload`. Blank lines have none. It knows no other filter and refuses what it does not know.
Sources: https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list and
https://cloud.google.com/run/docs/logging.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from emulator.services.batch_payloads import timestamp
from emulator.services.http_service import Answer, ApiError, Request, Service
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
"""Whether the newest comes first."""

LARGEST_PAGE = 1000
EXECUTION = re.compile(
    r"projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)/jobs/(?P<job>[^/]+)/executions/(?P<execution>.+)"
)

Lines = Callable[[], Iterable[tuple[str, WrittenLine]]]
"""Every line so far, with the full name of its execution."""


class FakeLogging(Service):
    """The service. It keeps nothing: lines are asked for."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines
        self.route("POST", r"/v2/entries:list", self._list)

    def _list(self, request: Request) -> Answer:
        asked = request.json()
        if unknown := sorted(set(asked) - FIELDS):
            raise ApiError(
                400,
                f'Invalid JSON payload received. Unknown name "{unknown[0]}": Cannot find field.',
            )
        if not asked.get("resourceNames"):
            raise ApiError(400, "resource_names must be set: at least one parent is required")
        order, size = asked.get("orderBy", ""), int(asked.get("pageSize", 50))
        if order not in ORDERS or not 0 <= size <= LARGEST_PAGE:
            raise ApiError(400, f"orderBy {order!r} or pageSize {size} is not allowed")
        comparisons = _comparisons(asked.get("filter", ""))
        entries = [
            entry
            for name, line in self._lines()
            if line.text.strip()
            for entry in [_entry(name, line)]
            if entry["logName"].partition("/logs/")[0] in asked["resourceNames"]
            and all(fits(entry) for fits in comparisons)
        ]
        entries.sort(key=lambda entry: entry["timestamp"], reverse=ORDERS[order])
        start = int(asked.get("pageToken", 0))
        page = entries[start : start + size]
        following = start + len(page)
        more = {"nextPageToken": str(following)} if following < len(entries) else {}
        return Answer({**({"entries": page} if page else {}), **more})


def _comparisons(text: str) -> list[Callable[[dict[str, Any]], bool]]:
    """Raises: ApiError 400 for what is no comparison known here."""
    found = []
    for clause in filter(None, text.split(" AND ")):
        parts = COMPARISON.fullmatch(clause.strip())
        if parts is None:
            raise ApiError(400, f"Unparseable filter: {clause!r}")
        found.append(_comparison(*parts.groups()))
    return found


def _comparison(field: str, sign: str, value: str) -> Callable[[dict[str, Any]], bool]:
    compare = COMPARE[sign]
    if field == "timestamp":
        wanted = datetime.fromisoformat(value)
        return lambda entry: compare(datetime.fromisoformat(entry["timestamp"]), wanted)
    return lambda entry: compare(_value(entry, field), value)


def _value(entry: dict[str, Any], field: str) -> Any:
    """A field by its path; a name with other characters stands in quotes, as the last one."""
    path, _, quoted = field.partition('."')
    value: Any = entry
    for name in [*path.split("."), *([quoted.rstrip('"')] if quoted else [])]:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _entry(name: str, line: WrittenLine) -> dict[str, Any]:
    found = EXECUTION.fullmatch(name)
    assert found is not None
    when = timestamp(line.seen)
    return {
        "insertId": f"{found['execution']}-{line.number}",
        "logName": f"projects/{found['project']}/logs/run.googleapis.com%2F{line.stream}",
        "resource": {
            "type": "cloud_run_job",
            "labels": {
                "project_id": found["project"],
                "location": found["location"],
                "job_name": found["job"],
            },
        },
        "labels": {
            "run.googleapis.com/execution_name": found["execution"],
            "run.googleapis.com/task_index": "0",
            "run.googleapis.com/task_attempt": "0",
        },
        "timestamp": when,
        "receiveTimestamp": when,
        **_payload(line.text),
    }


def _payload(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    return {"jsonPayload": document} if isinstance(document, dict) else {"textPayload": text}
