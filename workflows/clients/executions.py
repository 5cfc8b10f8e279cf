"""Client of the Workflows Executions API (REST v1): start, get, list and cancel executions of the
Cloud Workflow.

Source:
https://cloud.google.com/workflows/docs/reference/executions/rest/v1/projects.locations.workflows.executions
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from common.errors import BatchFailed
from common.google.clients import require_settings
from config_spark import Settings
from workflows.clients.google_rest import GoogleRest

HOST = "https://workflowexecutions.googleapis.com"
SAY_SECONDS = 60.0
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
        return self._service.ask(
            "POST", f"{self._workflow}/executions", {"argument": json.dumps(argument)}
        )

    def get(self, name: str) -> dict[str, Any]:
        """Return an execution.

        Args:
            name: Full name `projects/../executions/ID`, or the ID.
        """
        return self._service.ask(
            "GET", name if "/" in name else f"{self._workflow}/executions/{name}"
        )

    def active(self) -> list[dict[str, Any]]:
        """Return the running executions with their arguments."""
        executions: list[dict[str, Any]] = []
        query = {"filter": 'state="ACTIVE"', "view": "FULL"}
        while True:
            page = self._service.ask("GET", f"{self._workflow}/executions?{urlencode(query)}")
            executions += page.get("executions", [])
            if not page.get("nextPageToken"):
                return executions
            query["pageToken"] = page["nextPageToken"]

    def cancel(self, name: str) -> dict[str, Any]:
        """Cancel an execution. A batch that it started runs on until its ttl, unless it is
        cancelled too.
        """
        return self._service.ask("POST", f"{name}:cancel", {})


class ExecutionNotSucceeded(BatchFailed):
    """An execution that ended in another state than SUCCEEDED.

    Attributes:
        document: Its summary and `raised`, the workflow's error: a map or a text.
    """

    def __init__(self, summary: dict[str, Any], error: dict[str, Any]) -> None:
        try:
            raised = json.loads(error.get("payload") or "null")
        except ValueError:
            raised = error.get("payload")
        self.document = summary | {"raised": raised}
        message = raised.get("message") if isinstance(raised, dict) else raised
        super().__init__(
            f"execution {summary['execution']} ended {summary['state']}:"
            f" {message or error.get('context') or 'no reason given'}"
        )


def wait_for_execution(
    executions: Executions, name: str, say: Callable[[str], None], seconds_between: float
) -> dict[str, Any]:
    """Poll until the execution has ended, with a message every SAY_SECONDS.

    Args:
        executions: Client.
        name: Full name of the execution.
        say: Receives progress lines.
        seconds_between: Polling interval.

    Returns:
        `{"execution", "state", "seconds", "result"}`.

    Raises:
        ExecutionNotSucceeded: The execution failed or was cancelled.
    """
    began = reported = time.monotonic()
    while (execution := executions.get(name))["state"] not in ENDED:
        if time.monotonic() - reported >= SAY_SECONDS:
            reported = time.monotonic()
            say(f"execution {execution['state']} for {reported - began:.0f} s")
        time.sleep(seconds_between)
    execution_id = name.rpartition("/")[2]
    summary = {
        "execution": execution_id,
        "state": execution["state"],
        "seconds": round(time.monotonic() - began, 1),
    }
    if execution["state"] != "SUCCEEDED":
        raise ExecutionNotSucceeded(summary, execution.get("error", {}))
    return summary | {"result": json.loads(execution.get("result") or "null")}
