"""Batches on Dataproc Serverless, by Google's own client over REST: submit, look, wait, cancel.

In: settings (project, region, address) and a batch as the REST API's JSON. Out: batches as that
JSON: camelCase, int64 as strings, states by name. Only SUCCEEDED is success. A batch is polled,
never its operation: that has no state. No prices and no printing here.

What is retried: 429, 500, 502, 503, 504 and a line that breaks, by us, because the client has no
retry of its own for these methods. A create that is sent again has the same request id, and the
service answers with the first one's operation
(https://cloud.google.com/dataproc-serverless/docs/reference/rest/v1/projects.locations.batches/create).
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
"""Takes the batch and the seconds since it was created."""

Found = TypeVar("Found")

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
REQUEST_SECONDS = 60.0
"""For one answer; the client's own limit is none."""
RETRY_SECONDS = 300.0
FIRST_POLL_SECONDS, MOST_POLL_SECONDS, POLL_GROWTH = 2.0, 30.0, 1.5
USAGE_SECONDS, USAGE_POLL_SECONDS = 180.0, 10.0
"""How long after the end the usage is waited for: the service counts it when the batch is over."""
CANCEL_SECONDS = 600.0
GRACE_SECONDS = 600.0
"""What a batch gets beyond its ttl: to start, and to be ended by the service."""
SERVICE_TTL_SECONDS = 4 * 3600.0
"""Of a batch without a ttl
(https://cloud.google.com/dataproc-serverless/docs/reference/rest/v1/EnvironmentConfig#ExecutionConfig).
"""


def is_transient(error: Exception) -> bool:
    """Whether the same request may go well in a moment."""
    return if_transient_error(error) or isinstance(
        error, exceptions.BadGateway | exceptions.GatewayTimeout | requests.exceptions.Timeout
    )


class Batches:
    """Those of the settings' project and region. Every method raises CloudRefused, CloudUnavailable
    and EnvironmentNotReady.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        first_retry_seconds: float = 1.0,
    ) -> None:
        """Args: now and sleep are the clock that `wait` and `cancel` go by; seconds since the
        epoch, and seconds.
        """
        require_settings(settings, "project_id", "region")
        self.project, self.region = str(settings.project_id), str(settings.region)
        self._parent = f"projects/{self.project}/locations/{self.region}"
        self.now, self._sleep = now, sleep
        self._retry = Retry(
            predicate=is_transient, initial=first_retry_seconds, maximum=30.0, timeout=RETRY_SECONDS
        )
        self._client = BatchControllerClient(
            credentials=credentials(settings),
            transport="rest",
            client_options=client_options(settings, f"{self.region}-dataproc.googleapis.com"),
        )

    def console_url(self, batch_id: str) -> str:
        """Where a person sees the batch."""
        return f"https://console.cloud.google.com/dataproc/batches/{self.region}/{batch_id}?project={self.project}"

    def submit(self, batch: Document, batch_id: str, request_id: str) -> Document:
        """Create a batch, once, whatever happens to the answers; returns it as it is then.

        Raises: CloudRefused also where the id is taken by a batch of other work; ConfigurationError
        for a field that a batch does not have.
        """
        try:
            message = Batch.from_json(json.dumps(batch))
        except ParseError as error:
            raise ConfigurationError(
                f"batch {batch_id} is not of the form that Dataproc takes: {error}"
            ) from error
        request = {
            "parent": self._parent,
            "batch": message,
            "batch_id": batch_id,
            "request_id": request_id,
        }

        def create() -> None:
            try:
                self._client.create_batch(request=request, retry=None, timeout=REQUEST_SECONDS)
            except exceptions.Conflict as error:
                self._must_be_ours(batch, batch_id, error)

        self._asked(batch_id, self._retry(create))
        return self.get(batch_id)

    def _must_be_ours(self, batch: Document, batch_id: str, error: exceptions.Conflict) -> None:
        """A batch of this id with the same program and arguments is the one that an answer we lost
        was about.
        """
        try:
            taken = self._document(
                self._client.get_batch(
                    name=self._name(batch_id), retry=self._retry, timeout=REQUEST_SECONDS
                )
            )
        except exceptions.NotFound:
            # ABORTED has this status too: nothing was made, and the same request may be sent again
            raise exceptions.ServiceUnavailable(error.message) from error  # type: ignore[no-untyped-call]
        ours, theirs = (document.get("pysparkBatch", {}) for document in (batch, taken))
        if any(ours.get(part) != theirs.get(part) for part in ("mainPythonFileUri", "args")):
            raise CloudRefused(
                f"batch id {batch_id} is taken by another batch, created {taken.get('createTime')}:"
                f" submit again under another id, or look at it: {self.console_url(batch_id)}"
            ) from error

    def get(self, batch_id: str) -> Document:
        """The batch as it is now."""
        return self._document(
            self._asked(
                batch_id,
                lambda: self._client.get_batch(name=self._name(batch_id), **self._calling()),
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
        """The product's batches, the newest first. Args: they were created in [since, before), UTC
        without a zone.
        """
        request = {
            "parent": self._parent,
            "filter": _filter(job, state, since, before),
            "order_by": "create_time desc",
            "page_size": min(limit or 1000, 1000),
        }

        def ask() -> list[Document]:
            return [
                self._document(batch)
                for batch in islice(
                    self._client.list_batches(request=request, **self._calling()), limit
                )
            ]

        return self._asked("the list of batches", ask)

    def cancel(self, batch_id: str) -> Document:
        """Cancel the batch's operation and wait until the batch has ended; returns it.

        A batch that had ended before is returned as it is; one that was faster than the cancel is
        SUCCEEDED or FAILED.
        Raises: CloudUnavailable also for a batch that does not end.
        """
        batch = self.get(batch_id)
        if batch["state"] in TERMINAL:
            return batch
        self._asked(
            batch_id,
            lambda: self._client.cancel_operation({"name": batch["operation"]}, **self._calling()),
        )
        batch = self._polled(batch_id, self.now() + CANCEL_SECONDS, None)
        if batch["state"] not in TERMINAL:
            raise CloudUnavailable(
                f"batch {batch_id} is still {batch['state']} {CANCEL_SECONDS / 60:.0f} minutes"
                " after its cancel, and it is billed while it runs: look at"
                f" {self.console_url(batch_id)} and cancel it again"
            )
        return batch

    def wait(self, batch_id: str, progress: Progress | None = None) -> Document:
        """Poll until the batch has ended, at growing intervals; returns it, whatever its state. One
        beyond its `seconds_left` is cancelled.

        Raises: BatchFailed for a batch that had to be cancelled.
        """
        began = self.now()
        left = seconds_left(self.get(batch_id))
        batch = self._polled(batch_id, began + left, progress)
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
        """An ended batch with what it used; without, where it never ran, or the service has not
        said it 3 minutes after the end.
        """
        batch = self.get(batch_id)
        ran = any(earlier["state"] == "RUNNING" for earlier in batch.get("stateHistory", []))
        latest = min(_seconds(batch["stateTime"]), self.now()) + (USAGE_SECONDS if ran else 0)
        while "approximateUsage" not in batch.get("runtimeInfo", {}) and self.now() < latest:
            self._sleep(USAGE_POLL_SECONDS)
            batch = self.get(batch_id)
        return batch

    def _polled(self, batch_id: str, deadline: float, progress: Progress | None) -> Document:
        pause = FIRST_POLL_SECONDS
        while True:
            batch = self.get(batch_id)
            if progress:
                progress(batch, seconds_until(batch, self.now()))
            left = deadline - self.now()
            if batch["state"] in TERMINAL or left <= 0:
                return batch
            self._sleep(min(pause, left))
            pause = min(pause * POLL_GROWTH, MOST_POLL_SECONDS)

    def _name(self, batch_id: str) -> str:
        return f"{self._parent}/batches/{batch_id}"

    def _calling(self) -> dict[str, Any]:
        return {"retry": self._retry, "timeout": REQUEST_SECONDS}

    def _asked(self, what: str, ask: Callable[[], Found]) -> Found:
        with translate_google_errors(what):
            return ask()

    def _document(self, batch: Batch) -> Document:
        document: Document = json.loads(
            Batch.to_json(
                batch, use_integers_for_enums=False, always_print_fields_with_no_presence=False
            )
        )
        return {"state": "STATE_UNSPECIFIED"} | document


def batch_id_of(batch: Document) -> str:
    """The last part of its name."""
    return str(batch["name"]).rpartition("/")[2]


def created(batch: Document) -> float:
    """Seconds since the epoch."""
    return _seconds(batch["createTime"])


def seconds_left(batch: Document) -> float:
    """What a batch that has not ended may still take: its ttl and ten minutes, without what the
    service says it took to its present state.

    The service's own times alone: this machine's clock may be hours off, and must not end a batch.
    """
    ttl = batch.get("environmentConfig", {}).get("executionConfig", {}).get("ttl")
    passed = _seconds(batch.get("stateTime") or batch["createTime"]) - created(batch)
    return (float(ttl.removesuffix("s")) if ttl else SERVICE_TTL_SECONDS) + GRACE_SECONDS - passed


def seconds_until(batch: Document, now: float) -> float:
    """From its creation to its end, or to now while it has not ended."""
    return max(
        0.0, (_seconds(batch["stateTime"]) if batch["state"] in TERMINAL else now) - created(batch)
    )


def _filter(
    job: str | None, state: str | None, since: datetime | None, before: datetime | None
) -> str:
    """https://cloud.google.com/dataproc-serverless/docs/reference/rest/v1/projects.locations.batches/list"""
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
