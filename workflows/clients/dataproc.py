"""Client of Dataproc Serverless batches: submit, get, list, wait and cancel, by Google's client
over REST. Batches are the REST API's JSON: camelCase, int64 as text, states by name.

It polls the batch and not its operation, because an operation has no state. Prices and output
are elsewhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import requests
from google.api_core import exceptions
from google.api_core.retry import Retry, if_transient_error
from google.cloud.dataproc_v1 import Batch, BatchControllerClient
from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]

from common.errors import BatchFailed, CloudRefused, CloudUnavailable, ConfigurationError
from common.google.clients import (
    client_options,
    credentials,
    require_settings,
    translate_google_errors,
)
from config_spark import Settings

Document = dict[str, Any]
Progress = Callable[[Document, float], None]
"""Receives the batch and the seconds since it was created."""

Result = TypeVar("Result")

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
REQUEST_SECONDS = 60.0
"""Time limit of one request; the client has none of its own."""
RETRY_SECONDS = 300.0
FIRST_POLL_SECONDS, MOST_POLL_SECONDS, POLL_GROWTH = 2.0, 30.0, 1.5
USAGE_SECONDS, USAGE_POLL_SECONDS = 180.0, 10.0
"""How long to wait for the usage, which the service reports after the batch has ended."""
CANCEL_SECONDS = 600.0
GRACE_SECONDS = 600
"""Time beyond a batch's ttl for its start and for the service to end it."""
SERVICE_TTL_SECONDS = 4 * 3600.0
"""Ttl of a batch that sets none
(https://cloud.google.com/dataproc-serverless/docs/reference/rest/v1/EnvironmentConfig#ExecutionConfig).
"""


def is_transient(error: Exception) -> bool:
    """Return whether a retry of the same request may succeed."""
    return if_transient_error(error) or isinstance(
        error, exceptions.BadGateway | exceptions.GatewayTimeout | requests.exceptions.Timeout
    )


class Batches:
    """Batches of the settings' project and region. Every method raises CloudRefused,
    CloudUnavailable and EnvironmentNotReady.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        first_retry_seconds: float = 1.0,
    ) -> None:
        """Args:
        settings: Project, region and credentials.
        now: Clock of `wait` and `cancel`; seconds since the epoch.
        sleep: Waits so many seconds.
        first_retry_seconds: Pause before the first retry.
        """
        require_settings(settings, "project_id", "region")
        self.project, self.region = str(settings.project_id), str(settings.region)
        self._parent = f"projects/{self.project}/locations/{self.region}"
        self.now, self._sleep = now, sleep
        # the generated client has no default retry for these methods
        self._retry = Retry(
            predicate=is_transient, initial=first_retry_seconds, maximum=30.0, timeout=RETRY_SECONDS
        )
        self._client = BatchControllerClient(
            credentials=credentials(settings),
            transport="rest",
            client_options=client_options(settings, f"{self.region}-dataproc.googleapis.com"),
        )

    def console_url(self, batch_id: str) -> str:
        """Return the address of the batch in the Cloud console."""
        return (
            f"https://console.cloud.google.com/dataproc/batches/{self.region}/{batch_id}"
            f"?project={self.project}"
        )

    def submit(self, batch: Document, batch_id: str, request_id: str) -> Document:
        """Create a batch exactly once, and return it.

        Args:
            batch: Batch as the REST API's JSON.
            batch_id: Id of the batch.
            request_id: The same for every retry.

        Raises:
            ConfigurationError: The batch has an unknown field.
            CloudRefused: The id belongs to a batch of other work.
        """
        try:
            message = Batch.from_json(json.dumps(batch))
        except ParseError as error:
            raise ConfigurationError(
                f"batch {batch_id} is not a valid Dataproc batch: {error}"
            ) from error
        request = {
            "parent": self._parent,
            "batch": message,
            "batch_id": batch_id,
            "request_id": request_id,
        }

        # a retry has the same request id, so the service returns the first create's operation:
        # https://cloud.google.com/dataproc-serverless/docs/reference/rest/v1/projects.locations.batches/create
        def create() -> None:
            try:
                self._client.create_batch(request=request, retry=None, timeout=REQUEST_SECONDS)
            except exceptions.Conflict as error:
                self._require_same_work(batch, batch_id, error)

        self._call(batch_id, self._retry(create))
        return self.get(batch_id)

    def _require_same_work(
        self, batch: Document, batch_id: str, error: exceptions.Conflict
    ) -> None:
        """Accept an existing batch with the same program and arguments: an earlier try created it
        and its response was lost.
        """
        try:
            existing = self._to_json(
                self._client.get_batch(
                    name=self._name(batch_id), retry=self._retry, timeout=REQUEST_SECONDS
                )
            )
        except exceptions.NotFound:
            # ABORTED has the same HTTP status: nothing was created, so the request is retried
            raise exceptions.ServiceUnavailable(error.message) from error  # type: ignore[no-untyped-call]
        job, other = (payload.get("pysparkBatch", {}) for payload in (batch, existing))
        if any(job.get(field) != other.get(field) for field in ("mainPythonFileUri", "args")):
            raise CloudRefused(
                f"batch id {batch_id} is taken by another batch, created"
                f" {existing.get('createTime')}: submit again under another id, or look at it:"
                f" {self.console_url(batch_id)}"
            ) from error

    def get(self, batch_id: str) -> Document:
        """Return the batch."""
        return self._to_json(
            self._call(
                batch_id,
                lambda: self._client.get_batch(name=self._name(batch_id), **self._call_options()),
            )
        )

    def list(
        self,
        *,
        job: str | None = None,
        state: str | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
        limit: int | None = None,
    ) -> list[Document]:
        """Return the product's batches, newest first.

        Args:
            job: Only batches of this job.
            state: Only batches in this state.
            since: Earliest creation, UTC without a zone.
            before: Creation before this time, UTC without a zone.
            limit: Maximum number.
        """
        request = {
            "parent": self._parent,
            "filter": _filter(job, state, since, before),
            "order_by": "create_time desc",
            # the service returns 1,000 batches a page at most
            "page_size": min(limit or 1000, 1000),
        }

        def read_pages() -> list[Document]:
            return [
                self._to_json(batch)
                for batch in islice(
                    self._client.list_batches(request=request, **self._call_options()), limit
                )
            ]

        return self._call("the list of batches", read_pages)

    def cancel(self, batch_id: str) -> Document:
        """Cancel a batch and wait until it has ended.

        Returns:
            The batch: SUCCEEDED or FAILED if it ended before the cancel.

        Raises:
            CloudUnavailable: The batch does not end.
        """
        batch = self.get(batch_id)
        if batch["state"] in TERMINAL:
            return batch
        # a batch has no cancel of its own
        self._call(
            batch_id,
            lambda: self._client.cancel_operation(
                {"name": batch["operation"]}, **self._call_options()
            ),
        )
        batch = self._poll(batch_id, self.now() + CANCEL_SECONDS, None)
        if batch["state"] not in TERMINAL:
            raise CloudUnavailable(
                f"batch {batch_id} is still {batch['state']} {CANCEL_SECONDS / 60:.0f} minutes"
                f" after its cancel, and still billed: look at {self.console_url(batch_id)} and"
                " cancel it again"
            )
        return batch

    def wait(self, batch_id: str, progress: Progress | None = None) -> Document:
        """Poll at growing intervals until the batch has ended. A batch beyond its `seconds_left` is
        cancelled.

        Args:
            batch_id: Id of the batch.
            progress: Called after each poll.

        Returns:
            The ended batch, in any end state.

        Raises:
            BatchFailed: The batch exceeded its time and was cancelled.
        """
        started = self.now()
        left = seconds_left(self.get(batch_id))
        batch = self._poll(batch_id, started + left, progress)
        if batch["state"] in TERMINAL:
            return batch
        seconds = seconds_until(batch, self.now())
        ended = self.cancel(batch_id)
        if ended["state"] != "CANCELLED":
            return ended
        raise BatchFailed(
            f"batch {batch_id} was still {batch['state']} after {seconds:.0f} seconds, beyond its"
            " ttl, and is cancelled now: raise BATCH_TTL_MINUTES if it needs more."
            f" {self.console_url(batch_id)}"
        )

    def with_usage(self, batch_id: str) -> Document:
        """Wait up to USAGE_SECONDS for the usage of an ended batch.

        Returns:
            The batch; without usage if it never ran or the service has not reported it.
        """
        batch = self.get(batch_id)
        ran = any(earlier["state"] == "RUNNING" for earlier in batch.get("stateHistory", []))
        # this machine's clock may be behind the service's
        latest = min(_seconds(batch["stateTime"]), self.now()) + (USAGE_SECONDS if ran else 0)
        while "approximateUsage" not in batch.get("runtimeInfo", {}) and self.now() < latest:
            self._sleep(USAGE_POLL_SECONDS)
            batch = self.get(batch_id)
        return batch

    def _poll(self, batch_id: str, deadline: float, progress: Progress | None) -> Document:
        pause = FIRST_POLL_SECONDS
        while True:
            batch = self.get(batch_id)
            if progress:
                progress(batch, seconds_until(batch, self.now()))
            left = deadline - self.now()
            if batch["state"] in TERMINAL or left <= 0:
                return batch
            # not beyond the deadline, at which the batch is looked at once more
            self._sleep(min(pause, left))
            pause = min(pause * POLL_GROWTH, MOST_POLL_SECONDS)

    def _name(self, batch_id: str) -> str:
        return f"{self._parent}/batches/{batch_id}"

    def _call_options(self) -> dict[str, Any]:
        return {"retry": self._retry, "timeout": REQUEST_SECONDS}

    def _call(self, name: str, call: Callable[[], Result]) -> Result:
        with translate_google_errors(name):
            return call()

    def _to_json(self, batch: Batch) -> Document:
        payload: Document = json.loads(
            Batch.to_json(
                batch, use_integers_for_enums=False, always_print_fields_with_no_presence=False
            )
        )
        # a zero, which protobuf's JSON omits
        return {"state": "STATE_UNSPECIFIED"} | payload


def batch_id_of(batch: Document) -> str:
    """Return the last part of a batch's name."""
    return str(batch["name"]).rpartition("/")[2]


def created(batch: Document) -> float:
    """Return the creation time, in seconds since the epoch."""
    return _seconds(batch["createTime"])


def seconds_left(batch: Document) -> float:
    """Return how long a batch may still run: its ttl and GRACE_SECONDS, minus the time it took to
    reach its present state.
    """
    # only the service's times: this machine's clock may be wrong and must not end a batch
    ttl = batch.get("environmentConfig", {}).get("executionConfig", {}).get("ttl")
    passed = _seconds(batch.get("stateTime") or batch["createTime"]) - created(batch)
    return (float(ttl.removesuffix("s")) if ttl else SERVICE_TTL_SECONDS) + GRACE_SECONDS - passed


def seconds_until(batch: Document, now: float) -> float:
    """Return the seconds from a batch's creation to its end, or to `now` if it has not ended."""
    return max(
        0.0, (_seconds(batch["stateTime"]) if batch["state"] in TERMINAL else now) - created(batch)
    )


def _filter(
    job: str | None, state: str | None, since: datetime | None, before: datetime | None
) -> str:
    """Build the filter of a list
    (https://cloud.google.com/dataproc-serverless/docs/reference/rest/v1/projects.locations.batches/list).
    """
    clauses = {
        "labels.app = {}": "yieldspark",
        "labels.job = {}": job,
        "state = {}": state,
        'create_time >= "{}Z"': since and since.isoformat(timespec="seconds"),
        'create_time < "{}Z"': before and before.isoformat(timespec="seconds"),
    }
    return " AND ".join(clause.format(value) for clause, value in clauses.items() if value)


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
