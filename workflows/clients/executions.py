"""The Cloud Workflow's executions: start one, look at it, list those that run, cancel it, over the
Executions API (REST v1).

In: settings and the argument map of `main`. Out: the execution as the service shows it. These are
four requests
(https://cloud.google.com/workflows/docs/reference/executions/rest/v1/projects.locations.workflows.executions).
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
    """Of the workflow that the settings name. Every method raises CloudRefused and
    CloudUnavailable.
    """

    def __init__(self, settings: Settings) -> None:
        require_settings(settings, "project_id", "region")
        self._workflow = (
            f"projects/{settings.project_id}/locations/{settings.region}"
            f"/workflows/{settings.workflow_name}"
        )
        self._service = GoogleRest(settings, HOST, "v1")

    def start(self, argument: dict[str, Any]) -> dict[str, Any]:
        """Begin an execution of `main` with this argument."""
        return self._service.ask(
            "POST", f"{self._workflow}/executions", {"argument": json.dumps(argument)}
        )

    def get(self, name: str) -> dict[str, Any]:
        """Args: name is the full one, projects/../executions/ID, or the ID alone."""
        return self._service.ask(
            "GET", name if "/" in name else f"{self._workflow}/executions/{name}"
        )

    def active(self) -> list[dict[str, Any]]:
        """Those that run, with their arguments."""
        found: list[dict[str, Any]] = []
        query = {"filter": 'state="ACTIVE"', "view": "FULL"}
        while True:
            page = self._service.ask("GET", f"{self._workflow}/executions?{urlencode(query)}")
            found += page.get("executions", [])
            if not page.get("nextPageToken"):
                return found
            query["pageToken"] = page["nextPageToken"]

    def cancel(self, name: str) -> dict[str, Any]:
        """The workflow's steps end where they are: a batch that it started goes on until its ttl,
        unless that is cancelled too.
        """
        return self._service.ask("POST", f"{name}:cancel", {})


class ExecutionNotSucceeded(BatchFailed):
    """An execution that ended otherwise than well. `document` has its facts and `raised`, what the
    workflow raised: a map, or a sentence.
    """

    def __init__(self, document: dict[str, Any], error: dict[str, Any]) -> None:
        try:
            raised = json.loads(error.get("payload") or "null")
        except ValueError:
            raised = error.get("payload")
        self.document = document | {"raised": raised}
        message = raised.get("message") if isinstance(raised, dict) else raised
        super().__init__(
            f"execution {document['execution']} ended {document['state']}:"
            f" {message or error.get('context') or 'no reason given'}"
        )


def wait_for_execution(
    executions: Executions, name: str, say: Callable[[str], None], seconds_between: float
) -> dict[str, Any]:
    """Look every few seconds until the execution ended, and say once a minute that it goes on.

    Returns: `{"execution", "state", "seconds", "result"}`. Raises: ExecutionNotSucceeded with the
    error that the workflow raised.
    """
    began = said = time.monotonic()
    while (execution := executions.get(name))["state"] not in ENDED:
        if time.monotonic() - said >= SAY_SECONDS:
            said = time.monotonic()
            say(f"execution {execution['state']} for {said - began:.0f} s")
        time.sleep(seconds_between)
    short = name.rpartition("/")[2]
    document = {
        "execution": short,
        "state": execution["state"],
        "seconds": round(time.monotonic() - began, 1),
    }
    if execution["state"] != "SUCCEEDED":
        raise ExecutionNotSucceeded(document, execution.get("error", {}))
    return document | {"result": json.loads(execution.get("result") or "null")}
