"""A double of Dataproc Serverless: batches and operations over REST v1, with the service's names,
answers and refusals.

In: requests as `google-cloud-dataproc`, `gcloud` and Cloud Workflows send them. Out: what the
service answers; the batches go by a script, or are really run by the `run` that is given. Times are
those of `now`, seconds since the epoch. It knows no users, quotas or networks.

Sources:
https://cloud.google.com/dataproc-serverless/docs/reference/rest/v1/projects.locations.batches, and
answers that people published:
- operations are named projects/P/regions/R/operations/ID, batches projects/P/locations/R/batches/ID
(`gcloud dataproc batches cancel` shows it);
- a batch that is read back has `spark:` before the names of its properties, and the service's
defaults beside them;
- the cancel of a done operation answers 200 and changes nothing (googleapis/mcp-toolbox,
tests/serverlessspark).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

from emulator.services.batch_lifecycle import BatchLifecycle, BatchScript, Runner
from emulator.services.batch_payloads import (
    answered,
    invalid,
    known_parameters,
    matching,
    page,
    requested_batch,
)
from emulator.services.dataproc_rules import BATCH_ID, REQUEST_ID, request_faults
from emulator.services.http_service import (
    Answer,
    ApiError,
    ConnectionCut,
    Handler,
    Request,
    Service,
)
from emulator.services.served_batch import ServedBatch

log = logging.getLogger(__name__)

LOCATION = r"/v1/projects/(?P<project>[^/:]+)/locations/(?P<region>[^/:]+)"
OPERATIONS = r"/v1/projects/(?P<project>[^/:]+)/(?:regions|locations)/(?P<region>[^/:]+)/operations"

Method = Literal["create", "get", "list", "delete", "get_operation", "list_operations", "cancel"]
CUT, LOST_ANSWER = "cut", "lost answer"
"""Failures of the line and not of the service: the request does not arrive, or it does and its
answer does not.
"""

FAILURES = {
    409: "The operation was aborted, typically due to a concurrency issue.",
    429: (
        "Quota exceeded for quota metric 'Batch create requests' and limit 'Batch create requests"
        " per minute per region'."
    ),
    500: "Internal error encountered.",
    503: "The service is currently unavailable.",
}


class FakeDataproc(Service):
    """The service. All of its state is in memory, behind one lock."""

    def __init__(
        self,
        script: BatchScript | Callable[[str], BatchScript] = BatchScript(),  # noqa: B008 - frozen
        *,
        now: Callable[[], float] = time.time,
        run: Runner | None = None,
        write_output: Callable[[str, bytes], None] | None = None,
    ) -> None:
        """Args: script says what a batch does, or makes a script from a batch's id; with run a
        batch really runs and of the script only pending_seconds and usage_delay_seconds count;
        write_output takes the gs:// address and the content of each driver output object.
        """
        super().__init__()
        self._script = script
        self._now = now
        self._run = run
        self._write_output = write_output
        self._lock = threading.RLock()
        self._batches: dict[str, ServedBatch] = {}
        self._operations: dict[str, ServedBatch] = {}
        self._requests: dict[tuple[str, str], str] = {}
        self._failures: dict[str, deque[int | str]] = defaultdict(deque)
        routes: list[tuple[Method, str, str, Handler]] = [
            ("create", "POST", f"{LOCATION}/batches", self._create),
            ("list", "GET", f"{LOCATION}/batches", self._list),
            ("get", "GET", f"{LOCATION}/batches/(?P<batch_id>[^/:]+)", self._get),
            ("delete", "DELETE", f"{LOCATION}/batches/(?P<batch_id>[^/:]+)", self._delete),
            ("get_operation", "GET", f"{OPERATIONS}/(?P<operation_id>[^/:]+)", self._get_operation),
            ("list_operations", "GET", OPERATIONS, self._list_operations),
            ("cancel", "POST", f"{OPERATIONS}/(?P<operation_id>[^/:]+):cancel", self._cancel),
        ]
        for method, verb, pattern, handler in routes:
            self.route(verb, pattern, self._served(method, handler))

    def fail_next(self, method: Method, failure: int | str, times: int = 1) -> None:
        """Let the next calls of a method fail. Args: failure is an HTTP status, "cut" or "lost
        answer".
        """
        with self._lock:
            self._failures[method].extend([failure] * times)

    def advance(self) -> None:
        """Let all batches catch up with the time. Each request does so too; whoever serves batches
        that really run calls it in between.
        """
        with self._lock:
            for batch in self._batches.values():
                batch.lifecycle.advance(self._now())
                self._put_output(batch)

    def cancel_all(self) -> None:
        """Ask every batch to end, and wait for those that really run: none outlives the service."""
        with self._lock:
            for batch in self._batches.values():
                batch.lifecycle.cancel(self._now())
            running = [
                batch.lifecycle.running
                for batch in self._batches.values()
                if batch.lifecycle.running
            ]
        while any(process.poll() is None for process in running):
            time.sleep(0.05)
        self.advance()

    def states(self) -> dict[str, str]:
        """The state of each batch by its id."""
        self.advance()
        with self._lock:
            return {batch.batch_id: batch.lifecycle.state for batch in self._batches.values()}

    def _served(self, method: Method, handler: Handler) -> Handler:
        def serve(request: Request, **names: str) -> Answer:
            with self._lock:
                self.advance()
                failure = self._failures[method].popleft() if self._failures[method] else None
                if failure == CUT:
                    raise ConnectionCut
                if isinstance(failure, int):
                    raise ApiError(
                        failure,
                        FAILURES.get(failure, "Failure asked for."),
                        reason="ABORTED" if failure == 409 else None,
                    )
                answer = handler(request, **names)
                if failure == LOST_ANSWER:
                    raise ConnectionCut
                return answer

        return serve

    def _create(self, request: Request, project: str, region: str) -> Answer:
        known_parameters(request.query, "batchId", "requestId")
        request_id = request.query.get("requestId", "")
        if request_id and not REQUEST_ID.fullmatch(request_id):
            raise invalid(
                f"Request id '{request_id}' must contain only letters, numbers, underscores and"
                " hyphens, 40 characters at most.",
                "request_id",
            )
        parent = f"projects/{project}/locations/{region}"
        if request_id and (parent, request_id) in self._requests:
            return Answer(
                self._operations[self._requests[parent, request_id]].operation_json(
                    self._now(), request.query
                )
            )
        asked = requested_batch(request.json())
        batch_id = request.query.get("batchId") or uuid.uuid4().hex
        check_request(batch_id, asked)
        name = f"{parent}/batches/{batch_id}"
        if name in self._batches:
            raise ApiError(409, f"Already exists: Failed to create batch: Batch {name}")
        batch = self._new(project, region, batch_id, asked)
        self._batches[name] = batch
        self._operations[batch.operation] = batch
        if request_id:
            self._requests[parent, request_id] = batch.operation
        batch.lifecycle.advance(self._now())
        return Answer(batch.operation_json(self._now(), request.query))

    def _new(self, project: str, region: str, batch_id: str, asked: dict[str, Any]) -> ServedBatch:
        unique = str(uuid.uuid4())
        bucket = (
            asked.get("environmentConfig", {}).get("executionConfig", {}).get("stagingBucket")
            or f"dataproc-staging-{region}-local"
        )
        output_uri = f"gs://{bucket}/google-cloud-dataproc-metainfo/{uuid.uuid4()}/jobs/srvls-batch-{unique}/driveroutput"
        name = f"projects/{project}/locations/{region}/batches/{batch_id}"
        run = self._run
        start = (
            None
            if run is None
            else lambda: run(
                {**asked, "name": name, "uuid": unique, "runtimeInfo": {"outputUri": output_uri}},
                batch_id,
            )
        )
        script = self._script(batch_id) if callable(self._script) else self._script
        life = BatchLifecycle(asked, script, self._now(), start)
        operation = f"projects/{project}/regions/{region}/operations/{uuid.uuid4()}"
        return ServedBatch(project, region, batch_id, unique, operation, asked, output_uri, life)

    def _get(self, request: Request, project: str, region: str, batch_id: str) -> Answer:
        known_parameters(request.query)
        return Answer(
            answered(self._found(project, region, batch_id).to_json(self._now()), request.query)
        )

    def _list(self, request: Request, project: str, region: str) -> Answer:
        known_parameters(request.query, "pageSize", "pageToken", "filter", "orderBy")
        order = request.query.get("orderBy", "")
        if order not in ("", "create_time desc", "createTime desc"):
            raise invalid(
                f"Invalid order by '{order}': only 'create_time desc' is supported.", "order_by"
            )
        wanted = matching(request.query.get("filter", ""))
        inside = [
            batch
            for batch in self._batches.values()
            if (batch.project, batch.region) == (project, region)
        ]
        documents = [
            batch.to_json(self._now()) for batch in (reversed(inside) if order else inside)
        ]
        shown, following = page(
            [document for document in documents if wanted(document)], request.query
        )
        batches = [answered(document, request.query) for document in shown]
        return Answer(
            {
                **({"batches": batches} if batches else {}),
                **({"nextPageToken": following} if following else {}),
            }
        )

    def _delete(self, request: Request, project: str, region: str, batch_id: str) -> Answer:
        known_parameters(request.query)
        batch = self._found(project, region, batch_id)
        if not batch.lifecycle.done:
            message = (
                f"Batch {batch.name} is in state {batch.lifecycle.state}: only a batch in state"
                " CANCELLED, SUCCEEDED or FAILED can be deleted."
            )
            raise ApiError(400, message, reason="FAILED_PRECONDITION")
        del self._batches[batch.name]
        return Answer({})

    def _get_operation(
        self, request: Request, project: str, region: str, operation_id: str
    ) -> Answer:
        known_parameters(request.query)
        return Answer(
            self._operation_found(project, region, operation_id).operation_json(
                self._now(), request.query
            )
        )

    def _list_operations(self, request: Request, project: str, region: str) -> Answer:
        known_parameters(request.query, "pageSize", "pageToken", "filter", "returnPartialSuccess")
        inside = [
            batch
            for batch in self._operations.values()
            if (batch.project, batch.region) == (project, region)
        ]
        shown, following = page(inside, request.query)
        operations = [batch.operation_json(self._now(), request.query) for batch in shown]
        return Answer(
            {
                **({"operations": operations} if operations else {}),
                **({"nextPageToken": following} if following else {}),
            }
        )

    def _cancel(self, request: Request, project: str, region: str, operation_id: str) -> Answer:
        known_parameters(request.query)
        self._operation_found(project, region, operation_id).lifecycle.cancel(self._now())
        return Answer({})

    def _found(self, project: str, region: str, batch_id: str) -> ServedBatch:
        name = f"projects/{project}/locations/{region}/batches/{batch_id}"
        if name not in self._batches:
            raise ApiError(404, f"Not found: Batch {name}")
        return self._batches[name]

    def _operation_found(self, project: str, region: str, operation_id: str) -> ServedBatch:
        name = f"projects/{project}/regions/{region}/operations/{operation_id}"
        if name not in self._operations:
            raise ApiError(404, "Operation not found")
        return self._operations[name]

    def _put_output(self, batch: ServedBatch) -> None:
        content = batch.lifecycle.output()
        if self._write_output is None or len(content) == batch.written:
            return
        batch.written = len(content)
        try:
            self._write_output(f"{batch.output_uri}.000000000", content)
        except Exception:
            # the service goes on where a bucket is gone: the output is lost, the batch is not
            log.exception("output of %s", batch.name)


def check_request(batch_id: str, asked: Mapping[str, Any]) -> None:
    """Refuse what the service refuses. Raises: ApiError 400."""
    if not BATCH_ID.fullmatch(batch_id):
        raise invalid(
            f"Batch id '{batch_id}' must be 4-63 characters of a-z, 0-9 and '-'.", "batch_id"
        )
    if faults := request_faults(asked):
        raise invalid("; ".join(faults), "batch")
