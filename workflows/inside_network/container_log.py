"""What the containers of a Cloud Run job wrote, from Cloud Logging's `entries:list` (REST v2).

In: settings, a job, and one of its executions or a time. Out: lines in the order of their
timestamps, each once. Entries come late and out of order: every look reads the last minute again.
Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from common.google.clients import require_settings
from config_spark import Settings
from workflows.clients.google_rest import Document, GoogleRest

HOST = "https://logging.googleapis.com"
PAGE = 1000
"""The most that the service gives at once."""

STDOUT = "run.googleapis.com%2Fstdout"
"""Ends the name of the log that a container's standard output goes to."""

LATE = timedelta(minutes=1)
"""How late an entry may come beside one that was read."""


@dataclass(frozen=True)
class Line:
    """One line; is_output where it is of standard output, otherwise it is of standard error or the
    service's own.
    """

    text: str
    is_output: bool


class ContainerLog:
    """Read on from where the last call stopped. Every method raises CloudRefused and
    CloudUnavailable.
    """

    def __init__(
        self, settings: Settings, job: str, since: str, execution: str | None = None
    ) -> None:
        """Args: job and execution are short names; execution None: every one of the job. since is
        RFC 3339, the execution's createTime.
        """
        require_settings(settings, "project_id", "region")
        self._project = f"projects/{settings.project_id}"
        self._clauses = [
            'resource.type="cloud_run_job"',
            f'resource.labels.job_name="{job}"',
            f'resource.labels.location="{settings.region}"',
            *([f'labels."run.googleapis.com/execution_name"="{execution}"'] if execution else []),
        ]
        self._since = self._newest = datetime.fromisoformat(since)
        self._seen: set[str] = set()
        # a listing changes nothing: it may be sent again
        self._service = GoogleRest(settings, HOST, "v2", repeatable=("GET", "POST"))

    def read_on(self) -> list[Line]:
        """What came since the last call."""
        lines = []
        for entry in self._entries():
            key = f"{entry['logName']} {entry['timestamp']} {entry['insertId']}"
            text = _text(entry)
            if key in self._seen or text is None:
                continue
            self._seen.add(key)
            self._newest = max(self._newest, datetime.fromisoformat(entry["timestamp"]))
            is_output = str(entry["logName"]).endswith(STDOUT)
            lines += [Line(line, is_output) for line in text.splitlines() or [""]]
        return lines

    def _entries(self) -> list[Document]:
        begin = max(self._since, self._newest - LATE).isoformat()
        request: dict[str, Any] = {
            "resourceNames": [self._project],
            "filter": " AND ".join([*self._clauses, f'timestamp>="{begin}"']),
            "orderBy": "timestamp asc",
            "pageSize": PAGE,
        }
        found: list[Document] = []
        while True:
            page = self._service.ask("POST", "entries:list", request)
            found += page.get("entries", [])
            if not page.get("nextPageToken"):
                return found
            request["pageToken"] = page["nextPageToken"]


def _text(entry: Document) -> str | None:
    """A line that is a JSON object comes as one. None for what no container wrote, such as an audit
    entry.
    """
    if "jsonPayload" in entry:
        return json.dumps(entry["jsonPayload"])
    return entry.get("textPayload")


def last_log_lines(settings: Settings, job: str, since: str, count: int = 20) -> list[str]:
    """The newest lines of a job's executions since a time, RFC 3339. Raises: CloudRefused,
    CloudUnavailable.
    """
    return [line.text for line in ContainerLog(settings, job, since).read_on()][-count:]
