"""Executions of a Cloud Run job: start one with other arguments, look at it, cancel it, and its
container's exit code, over the Admin API (REST v2).

In: settings and a job's short name. Out: executions as the service shows them. Sources:
https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs/run,
../projects.locations.jobs.executions and ../projects.locations.jobs.executions.tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.api_core import exceptions

from common.errors import CloudRefused
from common.google.clients import require_settings
from config_spark import Settings
from database.ledger.runs import current_user
from workflows.clients.google_rest import Document, GoogleRest

USER_VARIABLE = "LOGNAME"
"""Where Python's getpass looks first."""

HOST = "https://run.googleapis.com"
SIGNAL = 128
"""Added to a signal's number, as a shell does, where a signal ended the container."""


class JobExecutions:
    """Those of one job. Every method raises CloudRefused and CloudUnavailable."""

    def __init__(self, settings: Settings, job: str) -> None:
        """Raises: ConfigurationError, EnvironmentNotReady."""
        self._job = job_name(settings, job)
        self._service = GoogleRest(settings, HOST, "v2")

    def start(self, arguments: Sequence[str] | None = None) -> Document:
        """Begin an execution; returns it. Args: arguments replace those of the job's container;
        None leaves them.
        """
        try:
            operation = self._service.ask("POST", f"{self._job}:run", run_request(arguments))
        except CloudRefused as error:
            if isinstance(error.__cause__, exceptions.NotFound):
                raise CloudRefused(
                    f"there is no Cloud Run job {self._job}: terraform/ makes it; look at"
                    " PROJECT_ID and REGION, or apply it"
                ) from error
            raise
        execution: Document = operation["metadata"]
        return execution

    def get(self, name: str) -> Document:
        """Args: name is the full one, projects/../executions/ID."""
        return self._service.ask("GET", name)

    def cancel(self, name: str) -> Document:
        """Ask it to end."""
        return self._service.ask("POST", f"{name}:cancel", {})

    def exit_code(self, name: str) -> int | None:
        """The container's, of an execution that has ended; None where the service does not show
        it.
        """
        try:
            tasks = self._service.ask("GET", f"{name}/tasks").get("tasks", [])
        except CloudRefused:  # looking at an execution is another right than looking at its tasks
            return None
        result: dict[str, Any] = tasks[0].get("lastAttemptResult", {}) if tasks else {}
        signal = int(result.get("termSignal", 0))
        return int(result.get("exitCode", 0)) or (SIGNAL + signal if signal else None)


def job_name(settings: Settings, job: str) -> str:
    """The full name of a job. Raises: ConfigurationError."""
    require_settings(settings, "project_id", "region")
    return f"projects/{settings.project_id}/locations/{settings.region}/jobs/{job}"


def run_request(arguments: Sequence[str] | None) -> Document:
    """The body of `jobs.run`. The container gets the caller's name as its user's, for what the
    ledger says of a person's decision.
    """
    if arguments is None:
        return {}
    name = current_user().partition("@")[0]
    container = {"args": list(arguments), "env": [{"name": USER_VARIABLE, "value": name}]}
    return {"overrides": {"containerOverrides": [container]}}


def state_of(execution: Document) -> str:
    """RUNNING, SUCCEEDED, CANCELLED or FAILED: an execution has counts of tasks and no state."""
    if not execution.get("completionTime"):
        return "RUNNING"
    if execution.get("succeededCount", 0) >= execution.get("taskCount", 1):
        return "SUCCEEDED"
    return "CANCELLED" if execution.get("cancelledCount") else "FAILED"


def why(execution: Document) -> str:
    """What the service says of its end, "" for nothing."""
    found = [one for one in execution.get("conditions", []) if one.get("type") == "Completed"]
    return str(found[0].get("message", "")) if found else ""
