"""Fake of Cloud Run jobs (Admin API v2): starts, shows and cancels executions, which follow a
script or really run. An execution has one task and no retries.

Sources: https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs/run,
../projects.locations.jobs.executions and ../projects.locations.jobs.executions.tasks
"""

from __future__ import annotations

import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.jobs import job_names
from emulator.services.batch_lifecycle import BatchLifecycle, BatchScript, RunningBatch
from emulator.services.batch_payloads import timestamp
from emulator.services.http_service import (
    Answer,
    ApiError,
    Request,
    Service,
    invalid_argument,
)
from emulator.services.written_lines import WrittenLine, WrittenLines
from workflows.spec.release_paths import CONTAINER_ARGUMENTS, cloud_run_job

CLOUD_RUN_JOBS: Mapping[str, Sequence[str]] = {
    **{cloud_run_job(name): () for name in job_names()},
    **CONTAINER_ARGUMENTS,
}
"""Arguments of each job's container."""

JOB = r"/v2/projects/(?P<project>[^/:]+)/locations/(?P<region>[^/:]+)/jobs/(?P<job>[^/:]+)"
EXECUTION_TYPE = "type.googleapis.com/google.cloud.run.v2.Execution"
OVERRIDES = {"containerOverrides", "taskCount", "timeout"}
TIMEOUT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?s")
CONTAINER_OVERRIDES = {"name", "args", "env", "clearArgs"}

Runner = Callable[[str, list[str], dict[str, str]], RunningBatch]
"""Starts an execution and returns at once. Receives its short name, which begins with its job's,
the container's arguments, and the variables that the start adds.
"""


@dataclass
class _Execution:
    name: str
    job: str
    uid: str
    lifecycle: BatchLifecycle
    arguments: list[str]
    written: WrittenLines
    cancelled: bool = False


class FakeCloudRun(Service):
    """The service. Its state is in memory, behind one lock."""

    def __init__(
        self,
        script: BatchScript = BatchScript(pending_seconds=0),  # noqa: B008 - frozen
        *,
        jobs: Mapping[str, Sequence[str]] = CLOUD_RUN_JOBS,
        now: Callable[[], float] = time.time,
        run: Runner | None = None,
    ) -> None:
        """Args:
        script: Behaviour of an execution.
        jobs: Arguments of each job's container.
        now: Clock, in seconds since the epoch.
        run: Starts real executions; only pending_seconds of the script applies then.
        """
        super().__init__()
        self._script = script
        self._jobs = jobs
        self._now = now
        self._run = run
        self._lock = threading.RLock()
        self._executions: dict[str, _Execution] = {}
        self.route("POST", f"{JOB}:run", self._start)
        self.route("GET", f"{JOB}/executions/(?P<execution>[^/:]+)", self._get)
        self.route("GET", f"{JOB}/executions/(?P<execution>[^/:]+)/tasks", self._tasks)
        self.route("POST", f"{JOB}/executions/(?P<execution>[^/:]+):cancel", self._cancel)

    def advance(self) -> None:
        """Let all executions catch up with the time, as every request does."""
        with self._lock:
            for execution in self._executions.values():
                execution.lifecycle.advance(self._now())
                execution.written.read_new(execution.lifecycle, self._now())

    def lines(self) -> list[tuple[str, WrittenLine]]:
        """Return the lines of all containers, each with the full name of its execution."""
        self.advance()
        with self._lock:
            lines: list[tuple[str, WrittenLine]] = []
            for execution in self._executions.values():
                lines += [(execution.name, line) for line in execution.written.lines]
            return lines

    def cancel_all(self) -> None:
        """Cancel every execution and wait until real ones have ended, so that none outlives the
        service.
        """
        with self._lock:
            for execution in self._executions.values():
                execution.lifecycle.cancel(self._now())
            running = [
                execution.lifecycle.running
                for execution in self._executions.values()
                if execution.lifecycle.running
            ]
        # outside of the lock: requests are answered until the last one has ended
        while any(process.poll() is None for process in running):
            time.sleep(0.05)
        self.advance()

    def _start(self, request: Request, project: str, region: str, job: str) -> Answer:
        with self._lock:
            if job not in self._jobs:
                raise ApiError(
                    404,
                    f"Resource '{job}' of kind 'JOB' in region '{region}' in project '{project}'"
                    " does not exist.",
                )
            overrides = _require_fields(
                request.json(), {"overrides", "validateOnly", "etag"}, ""
            ).get("overrides", {})
            containers = _list_of(
                _require_fields(overrides, OVERRIDES, "overrides"), "containerOverrides"
            )
            if not TIMEOUT.fullmatch(str(overrides.get("timeout", "1s"))):
                raise invalid_argument(
                    f"Invalid value at 'overrides.timeout': {overrides['timeout']!r} is no number"
                    " of seconds with an s behind it",
                    "timeout",
                )
            arguments = self._arguments(job, containers)
            variables: dict[str, str] = {}
            for container in containers:
                fields = _require_fields(container, CONTAINER_OVERRIDES, "container")
                for variable in _list_of(fields, "env"):
                    pair = _require_fields(variable, {"name", "value"}, "env")
                    variables[str(pair.get("name", ""))] = str(pair.get("value", ""))
            # five characters behind the job's name, as in the console
            short_name = f"{job}-{secrets.token_hex(3)[:5]}"
            name = f"projects/{project}/locations/{region}/jobs/{job}/executions/{short_name}"
            run = self._run
            start = None if run is None else lambda: run(short_name, arguments, variables)
            # the lifecycle reads a batch's ttl; a start's timeout has the same effect
            limits = (
                {"environmentConfig": {"executionConfig": {"ttl": overrides["timeout"]}}}
                if "timeout" in overrides
                else {}
            )
            lifecycle = BatchLifecycle(limits, self._script, self._now(), start)
            execution = _Execution(
                name,
                f"projects/{project}/locations/{region}/jobs/{job}",
                str(uuid.uuid4()),
                lifecycle,
                arguments,
                WrittenLines(),
            )
            self._executions[name] = execution
            self.advance()
            return Answer(self._operation(execution))

    def _arguments(self, job: str, overrides: Sequence[Any]) -> list[str]:
        """Return the arguments of the start, else those of the job."""
        for container in overrides:
            if "args" in _require_fields(container, CONTAINER_OVERRIDES, "container"):
                return [str(argument) for argument in _list_of(container, "args")]
        cleared = any(container.get("clearArgs") for container in overrides)
        return [] if cleared else list(self._jobs[job])

    def _get(self, request: Request, project: str, region: str, job: str, execution: str) -> Answer:
        with self._lock:
            return Answer(self._to_json(self._execution(project, region, job, execution)))

    def _tasks(
        self, request: Request, project: str, region: str, job: str, execution: str
    ) -> Answer:
        """Return the one task, with the result of its attempt after the end; zeros are omitted."""
        with self._lock:
            current = self._execution(project, region, job, execution)
            code = _exit_code(current.lifecycle)
            result = {"exitCode": code} if code else {}
            if code < 0:
                result = {"termSignal": -code}
            task = {
                "name": f"{current.name}/tasks/{execution}-task0",
                "job": current.job,
                "execution": current.name,
                **(
                    {"lastAttemptResult": {"status": {}, **result}}
                    if current.lifecycle.done
                    else {}
                ),
            }
            return Answer({"tasks": [task]})

    def _cancel(
        self, request: Request, project: str, region: str, job: str, execution: str
    ) -> Answer:
        with self._lock:
            current = self._execution(project, region, job, execution)
            if current.lifecycle.done:
                raise ApiError(
                    400, "The execution has already completed.", reason="FAILED_PRECONDITION"
                )
            current.cancelled = True
            current.lifecycle.cancel(self._now())
            return Answer(self._operation(current))

    def _execution(self, project: str, region: str, job: str, execution: str) -> _Execution:
        self.advance()
        name = f"projects/{project}/locations/{region}/jobs/{job}/executions/{execution}"
        if name not in self._executions:
            raise ApiError(
                404,
                f"Resource '{execution}' of kind 'EXECUTION' in region '{region}' in project"
                f" '{project}' does not exist.",
            )
        return self._executions[name]

    def _operation(self, execution: _Execution) -> dict[str, Any]:
        parent = execution.name.partition("/jobs/")[0]
        return {
            "name": f"{parent}/operations/{uuid.uuid4()}",
            "metadata": {"@type": EXECUTION_TYPE, **self._to_json(execution)},
        }

    def _to_json(self, execution: _Execution) -> dict[str, Any]:
        """Return the execution; counts of zero are omitted, as in protobuf's JSON."""
        lifecycle = execution.lifecycle
        started = next((start for state, _, start in lifecycle.history if state == "RUNNING"), None)
        count = {
            "SUCCEEDED": "succeededCount",
            "FAILED": "failedCount",
            # a timeout ends a task as failed; only a caller's cancel counts as cancelled
            "CANCELLED": "cancelledCount" if execution.cancelled else "failedCount",
        }
        return {
            "name": execution.name,
            "uid": execution.uid,
            "generation": "1",
            "createTime": timestamp(lifecycle.history[0][2]),
            **({"startTime": timestamp(started)} if started is not None else {}),
            **({"completionTime": timestamp(lifecycle.since)} if lifecycle.done else {}),
            "job": execution.job,
            "parallelism": 1,
            "taskCount": 1,
            "template": {"containers": [{"args": execution.arguments}]},
            "reconciling": not lifecycle.done,
            "conditions": [self._completed_condition(execution)],
            count[lifecycle.state] if lifecycle.done else "runningCount": 1,
            "logUri": (
                "https://console.cloud.google.com/logs/viewer"
                f"?advancedFilter=execution_name%3D{execution.name.rpartition('/')[2]}"
            ),
        }

    @staticmethod
    def _completed_condition(execution: _Execution) -> dict[str, Any]:
        """Return the condition that shows whether and how it ended."""
        state, message, since = execution.lifecycle.history[-1]
        if not execution.lifecycle.done:
            return {
                "type": "Completed",
                "state": "CONDITION_RECONCILING",
                "lastTransitionTime": timestamp(since),
            }
        if state == "SUCCEEDED":
            return {
                "type": "Completed",
                "state": "CONDITION_SUCCEEDED",
                "lastTransitionTime": timestamp(since),
            }
        reason = "CANCELLED" if execution.cancelled else "NON_ZERO_EXIT_CODE"
        task = f"{execution.name.rpartition('/')[2]}-task0"
        if execution.lifecycle.running and not execution.cancelled:
            message = f"Task {task} failed with message: The container exited with an error."
        return {
            "type": "Completed",
            "state": "CONDITION_FAILED",
            "message": message or f"Task {task} failed.",
            "lastTransitionTime": timestamp(since),
            "executionReason": reason,
        }


def _exit_code(lifecycle: BatchLifecycle) -> int:
    """Return the container's exit code; negative for a signal. A script that fails ends with 1."""
    if lifecycle.running is None:
        return 0 if lifecycle.state == "SUCCEEDED" else 1
    return lifecycle.running.poll() or 0


def _list_of(value: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list of the request, empty without it.

    Raises:
        ApiError: 400, for a value of another type.
    """
    items = value.get(name) or []
    if not isinstance(items, list):
        raise invalid_argument(f"Invalid value at '{name}': it is no list", name)
    return items


def _require_fields(value: Any, names: Collection[str], field_path: str) -> Mapping[str, Any]:
    """Return a map of the request.

    Raises:
        ApiError: 400, for a field that the service does not have.
    """
    if not isinstance(value, Mapping) or set(value) - set(names):
        unknown = sorted(set(value) - set(names)) if isinstance(value, Mapping) else [str(value)]
        raise ApiError(
            400,
            f"Invalid JSON payload received. Unknown name \"{unknown[0]}\" at '{field_path}':"
            " Cannot find field.",
        )
    return value
