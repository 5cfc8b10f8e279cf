"""Client of the Workflows Executions API (REST v1): start, get, list and cancel executions of the
Cloud Workflow.

Source:
https://cloud.google.com/workflows/docs/reference/executions/rest/v1/projects.locations.workflows.executions
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode

from common.errors import BatchFailed
from common.google.clients import require_settings
from config_spark import Settings
from workflows.clients.google_rest import GoogleRest

HOST = "https://workflowexecutions.googleapis.com"
SAY_SECONDS = 60.0
"""Interval between progress lines."""
ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "UNAVAILABLE"})


class Executions:
    """Executions of the settings' workflow. Methods raise CloudRefused and CloudUnavailable."""

    def __init__(self, settings: Settings) -> None:
        require_settings(settings, "project_id", "region")
        self._workflow = (
            f"projects/{settings.project_id}/locations/{settings.region}"
            f"/workflows/{settings.workflow_name}"
        )
        self._service = GoogleRest(settings, HOST, "v1")

    def start(self, argument: dict[str, Any]) -> dict[str, Any]:
        """Start an execution of `main` with this argument."""
        return self._service.request(
            "POST", f"{self._workflow}/executions", {"argument": json.dumps(argument)}
        )

    def get(self, name: str) -> dict[str, Any]:
        """Return an execution.

        Args:
            name: Full name `projects/../executions/ID`, or the ID.
        """
        return self._service.request(
            "GET", name if "/" in name else f"{self._workflow}/executions/{name}"
        )

    def active(self) -> list[dict[str, Any]]:
        """Return the running executions with their arguments."""
        executions: list[dict[str, Any]] = []
        # the default view, BASIC, has no argument
        query = {"filter": 'state="ACTIVE"', "view": "FULL"}
        while True:
            page = self._service.request("GET", f"{self._workflow}/executions?{urlencode(query)}")
            executions += page.get("executions", [])
            if not page.get("nextPageToken"):
                return executions
            query["pageToken"] = page["nextPageToken"]

    def cancel(self, name: str) -> dict[str, Any]:
        """Cancel an execution. A batch that it started runs on until its ttl, unless it is
        cancelled too.
        """
        return self._service.request("POST", f"{name}:cancel", {})


@dataclass(frozen=True)
class ExecutionSummary:
    """An execution as the commands show it; `--json` prints the fields in this order.

    Attributes:
        execution: Id of the execution.
        state: State of the REST API.
        seconds: Duration of the wait for its end; 0 without a wait.
        result: Result of `main`; None before the end.
    """

    execution: str
    state: str
    seconds: float
    result: Any = None


class ExecutionNotSucceeded(BatchFailed):
    """An execution that ended in another state than SUCCEEDED.

    Attributes:
        raised: The workflow's error: a map or a text.
        document: `--json` payload: its summary without a result, and `raised`.
    """

    def __init__(self, summary: ExecutionSummary, error: dict[str, Any]) -> None:
        # documented as JSON; another text must not hide the failure
        try:
            self.raised = json.loads(error.get("payload") or "null")
        except ValueError:
            self.raised = error.get("payload")
        fields = {name: value for name, value in asdict(summary).items() if name != "result"}
        self.document = fields | {"raised": self.raised}
        message = self.raised.get("message") if isinstance(self.raised, dict) else self.raised
        super().__init__(
            f"execution {summary.execution} ended {summary.state}:"
            f" {message or error.get('context') or 'no reason given'}"
        )


def wait_for_execution(
    executions: Executions, name: str, say: Callable[[str], None], seconds_between: float
) -> ExecutionSummary:
    """Poll until the execution has ended, with a message every SAY_SECONDS.

    Args:
        executions: Client.
        name: Full name of the execution.
        say: Receives progress lines.
        seconds_between: Polling interval.

    Raises:
        ExecutionNotSucceeded: The execution failed or was cancelled.
    """
    began = reported = time.monotonic()
    while (execution := executions.get(name))["state"] not in ENDED:
        if time.monotonic() - reported >= SAY_SECONDS:
            reported = time.monotonic()
            say(f"execution {execution['state']} for {reported - began:.0f} s")
        time.sleep(seconds_between)
    summary = ExecutionSummary(
        execution=name.rpartition("/")[2],
        state=execution["state"],
        seconds=round(time.monotonic() - began, 1),
        result=json.loads(execution.get("result") or "null"),
    )
    if summary.state != "SUCCEEDED":
        raise ExecutionNotSucceeded(summary, execution.get("error", {}))
    return summary
