"""Fake of Dataproc Serverless: batches and operations over REST v1, for google-cloud-dataproc,
gcloud and Cloud Workflows. Batches follow a script or really run. Has no users, quotas or
networks.

Source:
https://cloud.google.com/dataproc-serverless/docs/reference/rest/v1/projects.locations.batches
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
    batch_filter,
    check_parameters,
    encode_message,
    parse_batch,
)
from emulator.services.dataproc_rules import BATCH_ID, REQUEST_ID, request_faults
from emulator.services.http_service import (
    Answer,
    ApiError,
    ConnectionCut,
    Handler,
    Request,
    Service,
    invalid_argument,
)
from emulator.services.paging import Paging
from emulator.services.served_batch import ServedBatch

log = logging.getLogger(__name__)

# operations are projects/P/regions/R/operations/ID, batches projects/P/locations/R/batches/ID, as
# `gcloud dataproc batches cancel` shows
LOCATION = r"/v1/projects/(?P<project>[^/:]+)/locations/(?P<region>[^/:]+)"
OPERATIONS = r"/v1/projects/(?P<project>[^/:]+)/(?:regions|locations)/(?P<region>[^/:]+)/operations"

PAGING = Paging(default_size=20, largest_size=1000)
"""As the reference of batches.list has it."""

Method = Literal["create", "get", "list", "delete", "get_operation", "list_operations", "cancel"]
CUT, LOST_ANSWER = "cut", "lost answer"
"""Failures of the connection: the request is lost, or the response is."""

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
    """The service. Its state is in memory, behind one lock."""

    def __init__(
        self,
        script: BatchScript | Callable[[str], BatchScript] = BatchScript(),  # noqa: B008 - frozen
        *,
        now: Callable[[], float] = time.time,
        run: Runner | None = None,
        write_output: Callable[[str, bytes], None] | None = None,
    ) -> None:
        """Args:
        script: Behaviour of a batch, or a function from its id to it.
        now: Clock, in seconds since the epoch.
        run: Starts real batches; only pending_seconds, usage_delay_seconds and
            least_billed_seconds of the script apply then.
        write_output: Receives the gs:// address and content of each driver output object.
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
        """Let the next calls of a method fail.

        Args:
            method: Method of the API.
            failure: HTTP status, "cut" or "lost answer".
            times: Number of calls.
        """
        with self._lock:
            self._failures[method].extend([failure] * times)

    def advance(self) -> None:
        """Let all batches catch up with the time. Every request does so; a server of real batches
        calls it between requests too.
        """
        with self._lock:
            for batch in self._batches.values():
                batch.lifecycle.advance(self._now())
                self._put_output(batch)

    def cancel_all(self) -> None:
        """Cancel every batch and wait until real ones have ended, so that none outlives the
        service.
        """
        with self._lock:
            for batch in self._batches.values():
                batch.lifecycle.cancel(self._now())
            running = [
                batch.lifecycle.running
                for batch in self._batches.values()
                if batch.lifecycle.running
            ]
        # outside of the lock: requests are answered until the last one has ended
        while any(process.poll() is None for process in running):
            time.sleep(0.05)
        self.advance()

    def states(self) -> dict[str, str]:
        """Return the state of each batch by its id."""
        self.advance()
        with self._lock:
            return {batch.batch_id: batch.lifecycle.state for batch in self._batches.values()}

    def outputs(self) -> dict[str, bytes]:
        """Return what the driver of each batch has written, by the batch's id."""
        with self._lock:
            return {batch.batch_id: batch.lifecycle.output() for batch in self._batches.values()}

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
                # a lost response: the work is done
                answer = handler(request, **names)
                if failure == LOST_ANSWER:
                    raise ConnectionCut
                return answer

        return serve

    def _create(self, request: Request, project: str, region: str) -> Answer:
        check_parameters(request.query, "batchId", "requestId")
        request_id = request.query.get("requestId", "")
        if request_id and not REQUEST_ID.fullmatch(request_id):
            raise invalid_argument(
                f"Request id '{request_id}' must contain only letters, numbers, underscores and"
                " hyphens, 40 characters at most.",
                "request_id",
            )
        parent = f"projects/{project}/locations/{region}"
        # a known request id returns the first operation, whatever the body says
        # (https://cloud.google.com/dataproc-serverless/docs/reference/rest/v1/projects.locations.batches/create)
        if request_id and (parent, request_id) in self._requests:
            return Answer(
                self._operations[self._requests[parent, request_id]].operation_json(
                    self._now(), request.query
                )
            )
        requested = parse_batch(request.json())
        batch_id = request.query.get("batchId") or uuid.uuid4().hex
        check_request(batch_id, requested)
        name = f"{parent}/batches/{batch_id}"
        if name in self._batches:
            raise ApiError(409, f"Already exists: Failed to create batch: Batch {name}")
        batch = self._new(project, region, batch_id, requested)
        self._batches[name] = batch
        self._operations[batch.operation] = batch
        if request_id:
            self._requests[parent, request_id] = batch.operation
        batch.lifecycle.advance(self._now())
        return Answer(batch.operation_json(self._now(), request.query))

    def _new(
        self, project: str, region: str, batch_id: str, requested: dict[str, Any]
    ) -> ServedBatch:
        unique = str(uuid.uuid4())
        bucket = (
            requested.get("environmentConfig", {}).get("executionConfig", {}).get("stagingBucket")
            or f"dataproc-staging-{region}-local"
        )
        output_uri = (
            f"gs://{bucket}/google-cloud-dataproc-metainfo/{uuid.uuid4()}"
            f"/jobs/srvls-batch-{unique}/driveroutput"
        )
        name = f"projects/{project}/locations/{region}/batches/{batch_id}"
        run = self._run
        start = (
            None
            if run is None
            else lambda: run(
                {
                    **requested,
                    "name": name,
                    "uuid": unique,
                    "runtimeInfo": {"outputUri": output_uri},
                },
                batch_id,
            )
        )
        script = self._script(batch_id) if callable(self._script) else self._script
        lifecycle = BatchLifecycle(requested, script, self._now(), start)
        operation = f"projects/{project}/regions/{region}/operations/{uuid.uuid4()}"
        return ServedBatch(
            project, region, batch_id, unique, operation, requested, output_uri, lifecycle
        )

    def _get(self, request: Request, project: str, region: str, batch_id: str) -> Answer:
        check_parameters(request.query)
        return Answer(
            encode_message(
                self._batch(project, region, batch_id).to_json(self._now()), request.query
            )
        )

    def _list(self, request: Request, project: str, region: str) -> Answer:
        check_parameters(request.query, "pageSize", "pageToken", "filter", "orderBy")
        order = request.query.get("orderBy", "")
        if order not in ("", "create_time desc", "createTime desc"):
            raise invalid_argument(
                f"Invalid order by '{order}': only 'create_time desc' is supported.", "order_by"
            )
        is_selected = batch_filter(request.query.get("filter", ""))
        batches_in_region = [
            batch
            for batch in self._batches.values()
            if (batch.project, batch.region) == (project, region)
        ]
        payloads = [
            batch.to_json(self._now())
            for batch in (reversed(batches_in_region) if order else batches_in_region)
        ]
        selected, following = PAGING.page(
            [payload for payload in payloads if is_selected(payload)], request.query
        )
        batches = [encode_message(payload, request.query) for payload in selected]
        return Answer(
            {
                **({"batches": batches} if batches else {}),
                **({"nextPageToken": following} if following else {}),
            }
        )

    def _delete(self, request: Request, project: str, region: str, batch_id: str) -> Answer:
        check_parameters(request.query)
        batch = self._batch(project, region, batch_id)
        if not batch.lifecycle.done:
            message = (
                f"Batch {batch.name} is in state {batch.lifecycle.state}: only a batch in state"
                " CANCELLED, SUCCEEDED or FAILED can be deleted."
            )
            raise ApiError(400, message, reason="FAILED_PRECONDITION")
        # the operation stays readable
        del self._batches[batch.name]
        return Answer({})

    def _get_operation(
        self, request: Request, project: str, region: str, operation_id: str
    ) -> Answer:
        check_parameters(request.query)
        return Answer(
            self._batch_of_operation(project, region, operation_id).operation_json(
                self._now(), request.query
            )
        )

    def _list_operations(self, request: Request, project: str, region: str) -> Answer:
        check_parameters(request.query, "pageSize", "pageToken", "filter", "returnPartialSuccess")
        batches_in_region = [
            batch
            for batch in self._operations.values()
            if (batch.project, batch.region) == (project, region)
        ]
        selected, following = PAGING.page(batches_in_region, request.query)
        operations = [batch.operation_json(self._now(), request.query) for batch in selected]
        return Answer(
            {
                **({"operations": operations} if operations else {}),
                **({"nextPageToken": following} if following else {}),
            }
        )

    def _cancel(self, request: Request, project: str, region: str, operation_id: str) -> Answer:
        check_parameters(request.query)
        self._batch_of_operation(project, region, operation_id).lifecycle.cancel(self._now())
        return Answer({})

    def _batch(self, project: str, region: str, batch_id: str) -> ServedBatch:
        name = f"projects/{project}/locations/{region}/batches/{batch_id}"
        if name not in self._batches:
            raise ApiError(404, f"Not found: Batch {name}")
        return self._batches[name]

    def _batch_of_operation(self, project: str, region: str, operation_id: str) -> ServedBatch:
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
            # as in the service, a missing bucket loses the output and not the batch
            log.exception("output of %s", batch.name)


def check_request(batch_id: str, requested: Mapping[str, Any]) -> None:
    """Reject a create request that the service rejects.

    Raises:
        ApiError: 400.
    """
    if not BATCH_ID.fullmatch(batch_id):
        raise invalid_argument(
            f"Batch id '{batch_id}' must be 4-63 characters of a-z, 0-9 and '-'.", "batch_id"
        )
    if faults := request_faults(requested):
        raise invalid_argument("; ".join(faults), "batch")
