"""Fake of the Workflow Executions API v1. Each execution runs in a thread. A cancelled one is
CANCELLED at once; its thread polls `cancelled` and its result is discarded.

Source:
https://cloud.google.com/workflows/docs/reference/executions/rest/v1/projects.locations.workflows.executions
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emulator.services.batch_payloads import timestamp
from emulator.services.http_service import Answer, ApiError, Request, Service
from emulator.services.paging import Paging
from emulator.workflow_engine import RealClock, WorkflowFailed

EXECUTIONS = r"/v1/(?P<workflow>projects/[^/:]+/locations/[^/:]+/workflows/[^/:]+)/executions"
LARGEST_ARGUMENT = 32 * 1024
"""Bytes (https://cloud.google.com/workflows/quotas#resource_limits)."""
# the view of a list by default; argument and result need FULL
BASIC = ("name", "startTime", "endTime", "duration", "state", "workflowRevisionId")
STATE_FILTER = re.compile(r'\s*state\s*=\s*"?([A-Z]+)"?\s*')
ORDERS = {
    "": True,
    "createTime": False,
    "createTime desc": True,
    "startTime": False,
    "startTime desc": True,
}
"""Whether the newest is first."""

PAGING = Paging(default_size=100, largest_size=1000)
"""As the reference of executions.list has it."""

Runner = Callable[[str, Any], Any]
"""Receives the execution's id and argument and returns the result of `main`. WorkflowFailed, or any
other exception, becomes the execution's error.
"""


@dataclass
class _Execution:
    name: str
    argument: str
    began: float
    state: str = "ACTIVE"
    ended: float | None = None
    result: str | None = None
    error: dict[str, str] | None = None


class FakeExecutions(Service):
    """The service, for any workflow. Its state is in memory, behind one lock."""

    def __init__(self, run: Runner, *, now: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._run = run
        self._now = now
        self._lock = threading.Lock()
        self._executions: dict[str, _Execution] = {}
        self.route("POST", EXECUTIONS, self._create)
        self.route("GET", EXECUTIONS, self._list)
        self.route("GET", f"{EXECUTIONS}/(?P<execution>[^/:]+)", self._get)
        self.route("POST", f"{EXECUTIONS}/(?P<execution>[^/:]+):cancel", self._cancel)

    def cancelled(self, execution_id: str) -> bool:
        """Return whether an execution was cancelled."""
        with self._lock:
            return any(
                name.endswith(f"/{execution_id}") and execution.state == "CANCELLED"
                for name, execution in self._executions.items()
            )

    def _create(self, request: Request, workflow: str) -> Answer:
        body = request.json()
        argument = body.get("argument", "null")
        try:
            value = json.loads(argument)
        except (ValueError, TypeError):
            raise ApiError(400, "workflow argument is not a valid JSON string") from None
        if len(argument) > LARGEST_ARGUMENT:
            raise ApiError(400, f"argument size exceeds {LARGEST_ARGUMENT} bytes")
        execution = _Execution(f"{workflow}/executions/{uuid.uuid4()}", argument, self._now())
        with self._lock:
            self._executions[execution.name] = execution
        threading.Thread(target=self._run_thread, args=(execution, value), daemon=True).start()
        return Answer(_to_json(execution))

    def _run_thread(self, execution: _Execution, argument: Any) -> None:
        try:
            result = json.dumps(self._run(execution.name.rpartition("/")[2], argument))
            self._end(execution, "SUCCEEDED", result=result)
        except WorkflowFailed as failed:
            self._end(
                execution,
                "FAILED",
                error={"payload": json.dumps(failed.payload), "context": str(failed)},
            )
        except Exception as error:
            payload = {"message": f"{type(error).__name__}: {error}", "tags": ["SystemError"]}
            self._end(
                execution, "FAILED", error={"payload": json.dumps(payload), "context": str(error)}
            )

    def _end(
        self,
        execution: _Execution,
        state: str,
        *,
        result: str | None = None,
        error: dict[str, str] | None = None,
    ) -> None:
        with self._lock:
            # the result of a cancelled execution is discarded
            if execution.state == "ACTIVE":
                execution.state, execution.ended, execution.result, execution.error = (
                    state,
                    self._now(),
                    result,
                    error,
                )

    def _list(self, request: Request, workflow: str) -> Answer:
        filter_text = request.query.get("filter", "")
        state = STATE_FILTER.fullmatch(filter_text)
        order = request.query.get("orderBy", "")
        if (filter_text and not state) or order not in ORDERS:
            raise ApiError(400, f"filter {filter_text!r} or orderBy {order!r} is not known here")
        with self._lock:
            executions = [
                execution
                for name, execution in self._executions.items()
                if name.startswith(f"{workflow}/")
            ]
        if ORDERS[order]:
            executions.reverse()
        selected = [
            execution for execution in executions if not state or execution.state == state[1]
        ]
        page, following = PAGING.page(selected, request.query)
        view = request.query.get("view", "BASIC")
        entries = [_to_json(execution, view=view) for execution in page]
        return Answer(
            {
                **({"executions": entries} if entries else {}),
                **({"nextPageToken": following} if following else {}),
            }
        )

    def _get(self, request: Request, workflow: str, execution: str) -> Answer:
        return Answer(
            _to_json(self._execution(workflow, execution), view=request.query.get("view", "FULL"))
        )

    def _cancel(self, request: Request, workflow: str, execution: str) -> Answer:
        current = self._execution(workflow, execution)
        if current.state != "ACTIVE":
            raise ApiError(
                400,
                f"execution {execution} is {current.state} and can't be cancelled",
                reason="FAILED_PRECONDITION",
            )
        self._end(current, "CANCELLED", error={"context": "Execution cancelled by user."})
        return Answer(_to_json(current))

    def _execution(self, workflow: str, execution: str) -> _Execution:
        with self._lock:
            current = self._executions.get(f"{workflow}/executions/{execution}")
        if current is None:
            raise ApiError(404, f"Execution {workflow}/executions/{execution} not found")
        return current


class UntilCancelled(RealClock):
    """Clock of one execution: a wait of the workflow ends it if it was cancelled, as in the
    service.
    """

    def __init__(self, executions: FakeExecutions, execution_id: str, factor: float = 1.0) -> None:
        super().__init__(factor)
        self._executions = executions
        self._execution_id = execution_id

    def sleep(self, seconds: float) -> None:
        """Wait; raise WorkflowFailed if the execution was cancelled meanwhile."""
        super().sleep(seconds)
        if self._executions.cancelled(self._execution_id):
            raise WorkflowFailed("cancelled", [])


def _to_json(execution: _Execution, view: str = "FULL") -> dict[str, Any]:
    payload = {
        "name": execution.name,
        "createTime": timestamp(execution.began),
        "startTime": timestamp(execution.began),
        **(
            {
                "endTime": timestamp(execution.ended),
                "duration": f"{execution.ended - execution.began:.6f}s",
            }
            if execution.ended is not None
            else {}
        ),
        "state": execution.state,
        "argument": execution.argument,
        **({"result": execution.result} if execution.result is not None else {}),
        **({"error": execution.error} if execution.error is not None else {}),
        "workflowRevisionId": "000001-local",
    }
    return (
        payload
        if view == "FULL"
        else {name: value for name, value in payload.items() if name in BASIC}
    )
