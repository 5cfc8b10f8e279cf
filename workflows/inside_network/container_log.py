"""Reads the log of a Cloud Run job's containers from Cloud Logging (`entries:list`, REST v2).

Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list
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
"""Largest page of the service."""

STDOUT = "run.googleapis.com%2Fstdout"
"""Suffix of the log that takes a container's standard output."""

LATE = timedelta(minutes=1)
"""Longest delay of an entry behind a later one. Entries arrive late and out of order, so every call
reads this interval again.
"""


@dataclass(frozen=True)
class Line:
    """One line of a log.

    Attributes:
        text: The line, without its end.
        is_output: Whether it is standard output; else it is standard error or the service's own.
    """

    text: str
    is_output: bool


class ContainerLog:
    """Log of a job's containers. Every method raises CloudRefused and CloudUnavailable."""

    def __init__(
        self, settings: Settings, job: str, since: str, execution: str | None = None
    ) -> None:
        """Args:
        settings: Project and region.
        job: Short name of the job.
        since: RFC 3339; the execution's createTime.
        execution: Short name of an execution; default: all of the job.
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
        # a listing changes nothing, so its POST can be retried
        self._service = GoogleRest(settings, HOST, "v2", repeatable=("GET", "POST"))

    def read_new(self) -> list[Line]:
        """Return the lines since the last call."""
        lines = []
        for entry in self._entries():
            # time and id identify an entry of a log
            # (https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry)
            key = f"{entry['logName']} {entry['timestamp']} {entry['insertId']}"
            text = _text(entry)
            if key in self._seen or text is None:
                continue
            self._seen.add(key)
            self._newest = max(self._newest, datetime.fromisoformat(entry["timestamp"]))
            # the name is URL-encoded
            is_output = str(entry["logName"]).endswith(STDOUT)
            lines += [Line(line, is_output) for line in text.splitlines() or [""]]
        return lines

    def _entries(self) -> list[Document]:
        start = max(self._since, self._newest - LATE).isoformat()
        request: dict[str, Any] = {
            "resourceNames": [self._project],
            "filter": " AND ".join([*self._clauses, f'timestamp>="{start}"']),
            "orderBy": "timestamp asc",
            "pageSize": PAGE,
        }
        entries: list[Document] = []
        while True:
            page = self._service.request("POST", "entries:list", request)
            entries += page.get("entries", [])
            if not page.get("nextPageToken"):
                return entries
            request["pageToken"] = page["nextPageToken"]


def _text(entry: Document) -> str | None:
    """Return an entry's text; None if no container wrote it, as an audit entry."""
    # Cloud Logging parses a line that is a JSON object
    if "jsonPayload" in entry:
        return json.dumps(entry["jsonPayload"])
    return entry.get("textPayload")


def last_log_lines(settings: Settings, job: str, since: str, count: int = 20) -> list[str]:
    """Return the newest lines of a job's executions.

    Args:
        settings: Project and region.
        job: Short name of the job.
        since: RFC 3339.
        count: Maximum number of lines.

    Raises:
        CloudRefused: Google rejected a request.
        CloudUnavailable: Google cannot be reached.
    """
    return [line.text for line in ContainerLog(settings, job, since).read_new()][-count:]
