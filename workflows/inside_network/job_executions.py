"""Client of a Cloud Run job's executions (Admin API, REST v2): start, get, cancel, exit code.

Sources: https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs/run,
../projects.locations.jobs.executions and ../projects.locations.jobs.executions.tasks
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.api_core import exceptions

from common.errors import CloudRefused
from common.google.clients import require_settings
from common.local_user import user_at_host
from config_spark import Settings
from workflows.clients.google_rest import Document, GoogleRest

USER_VARIABLE = "LOGNAME"
"""Variable that Python's getpass reads first."""

HOST = "https://run.googleapis.com"
SIGNAL = 128
"""Offset of the exit code of a container that a signal ended, as in a shell."""


class JobExecutions:
    """Executions of one job. Every method raises CloudRefused and CloudUnavailable."""

    def __init__(self, settings: Settings, job: str) -> None:
        """Raises:
        ConfigurationError: PROJECT_ID or REGION is not set.
        EnvironmentNotReady: There are no credentials.
        """
        self._job = job_name(settings, job)
        self._service = GoogleRest(settings, HOST, "v2")

    def start(self, arguments: Sequence[str] | None = None) -> Document:
        """Start an execution and return it.

        Args:
            arguments: Replace the arguments of the job's container; None keeps them.
        """
        try:
            operation = self._service.request("POST", f"{self._job}:run", run_request(arguments))
        except CloudRefused as error:
            if isinstance(error.__cause__, exceptions.NotFound):
                raise CloudRefused(
                    f"there is no Cloud Run job {self._job}; correct PROJECT_ID and REGION, or"
                    " apply terraform/, which creates it"
                ) from error
            raise
        # the operation ends with the execution; its metadata is the execution
        execution: Document = operation["metadata"]
        return execution

    def get(self, name: str) -> Document:
        """Return an execution by its full name, `projects/../executions/ID`."""
        return self._service.request("GET", name)

    def cancel(self, name: str) -> Document:
        """Request the end of an execution."""
        return self._service.request("POST", f"{name}:cancel", {})

    def exit_code(self, name: str) -> int | None:
        """Return the container's exit code after the end; None if the service does not show it."""
        try:
            tasks = self._service.request("GET", f"{name}/tasks").get("tasks", [])
        except CloudRefused:
            # reading tasks is a separate permission
            return None
        result: dict[str, Any] = tasks[0].get("lastAttemptResult", {}) if tasks else {}
        # zeros are omitted in protobuf's JSON
        signal = int(result.get("termSignal", 0))
        return int(result.get("exitCode", 0)) or (SIGNAL + signal if signal else None)


def job_name(settings: Settings, job: str) -> str:
    """Return the full name of a job.

    Raises:
        ConfigurationError: PROJECT_ID or REGION is not set.
    """
    require_settings(settings, "project_id", "region")
    return f"projects/{settings.project_id}/locations/{settings.region}/jobs/{job}"


def run_request(arguments: Sequence[str] | None) -> Document:
    """Build the body of `jobs.run`, with the caller's name for the ledger's record of decisions."""
    if arguments is None:
        return {}
    # without this machine's name: the container adds its own
    name = user_at_host().partition("@")[0]
    container = {"args": list(arguments), "env": [{"name": USER_VARIABLE, "value": name}]}
    return {"overrides": {"containerOverrides": [container]}}


def execution_state(execution: Document) -> str:
    """Return RUNNING, SUCCEEDED, CANCELLED or FAILED. An execution has counts of tasks and no
    state.
    """
    if not execution.get("completionTime"):
        return "RUNNING"
    # counts of zero are omitted in protobuf's JSON
    if execution.get("succeededCount", 0) >= execution.get("taskCount", 1):
        return "SUCCEEDED"
    return "CANCELLED" if execution.get("cancelledCount") else "FAILED"


def end_message(execution: Document) -> str:
    """Return the service's message about the end; empty for none."""
    messages = [
        condition
        for condition in execution.get("conditions", [])
        if condition.get("type") == "Completed"
    ]
    return str(messages[0].get("message", "")) if messages else ""
