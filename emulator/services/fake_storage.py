"""Fake of Cloud Storage's JSON API on a folder, for the official client, gcloud and plain HTTP.
Supports buckets; upload (simple, multipart, resumable), download, list and delete of objects;
generations and preconditions. Has no versioning, permissions, copy or XML API.

Sources: https://cloud.google.com/storage/docs/json_api/v1, and there /status-codes
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from emulator.services.http_service import Answer, ConnectionCut, Request, Service
from emulator.services.object_store import BucketExists, ObjectStore
from emulator.services.paging import Paging
from emulator.services.storage_responses import (
    StorageError,
    address_of,
    bucket_resource,
    conditions_of,
    integer_parameter,
    media_answer,
    object_resource,
    translate_store_errors,
)
from emulator.services.storage_uploads import (
    Upload,
    append_part,
    checksums_of,
    multipart_parts,
    new_upload,
)

OBJECTS = re.compile(r"(?:/(?:upload|download|resumable/upload))?/storage/v1/b/[^/]+/o.*")
PAGING = Paging(
    default_size=1000,
    largest_size=1000,
    list_parameters=("prefix", "delimiter"),
    size_parameter="maxResults",
    error=lambda message, _field: StorageError(400, message, "invalid"),
)
"""The position of a token is the last name of its page."""


@dataclass(frozen=True)
class Fault:
    """A planned failure: a status instead of the work, or a connection that is cut before or after
    it.
    """

    kind: Literal["status", "cut before", "cut after"] = "status"
    status: int = 503


UNAVAILABLE = Fault()
TOO_MANY = Fault(status=429)
CUT_BEFORE = Fault("cut before")
CUT_AFTER = Fault("cut after")

FaultPlan = Callable[[int, Request], Fault | None]
"""Receives the number (from 1) and the request of an object or list, and returns its failure.

Requests for a bucket are not counted: the official client sends them at any time, from a thread.
"""


class FakeStorage(Service):
    """The service. Its objects outlive it in the folder.

    Args:
        folder: Stores the objects.
        buckets: Created if they are missing.
        fault: Planned failures; can be changed at any time.
    """

    def __init__(
        self, folder: Path, buckets: Sequence[str] = (), fault: FaultPlan | None = None
    ) -> None:
        super().__init__()
        self.store = ObjectStore(folder)
        self.fault = fault
        self._count = 0
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        for bucket in set(buckets) - set(self.store.buckets()):
            self.store.create_bucket(bucket)
        for method in ("GET", "HEAD"):
            self.route(method, r"/storage/v1/b/(?P<bucket>[^/]+)", self._get_bucket)
            self.route(
                method,
                r"(?:/download)?/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)",
                self._get,
            )
        self.route("GET", r"/storage/v1/b", self._list_buckets)
        self.route("POST", r"/storage/v1/b", self._create_bucket)
        self.route("GET", r"/storage/v1/b/(?P<bucket>[^/]+)/o", self._list)
        self.route("DELETE", r"/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)", self._delete)
        self.route("POST", r"(?:/resumable)?/upload/storage/v1/b/(?P<bucket>[^/]+)/o", self._upload)
        self.route("PUT", r"(?:/resumable)?/upload/storage/v1/b/(?P<bucket>[^/]+)/o", self._resume)
        self.route(
            "DELETE", r"(?:/resumable)?/upload/storage/v1/b/(?P<bucket>[^/]+)/o", self._cancel
        )

    def answer(self, request: Request) -> Answer | None:
        """Answer a request, with its planned failure.

        Raises:
            ConnectionCut: The plan cuts the connection.
        """
        if not OBJECTS.fullmatch(request.path):
            return super().answer(request)
        with self._lock:
            self._count += 1
            number = self._count
        fault = self.fault(number, request) if self.fault else None
        if fault is None:
            return super().answer(request)
        if fault.kind == "cut after":
            super().answer(request)
        else:
            # no route sees it, and tests count it all the same
            self.record(request)
        if fault.kind == "status":
            return StorageError(
                fault.status, "A fault that a test asked for.", "backendError"
            ).answer
        raise ConnectionCut

    def _list_buckets(self, request: Request) -> Answer:
        prefix = request.query.get("prefix", "")
        items = [
            bucket_resource(bucket, request)
            for bucket in self.store.buckets()
            if bucket.startswith(prefix)
        ]
        return Answer({"kind": "storage#buckets", "items": items})

    def _create_bucket(self, request: Request) -> Answer:
        bucket = str(request.json().get("name", ""))
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{1,220}[a-z0-9]", bucket):
            raise StorageError(400, f"Invalid bucket name: '{bucket}'", "invalid")
        try:
            self.store.create_bucket(bucket)
        except BucketExists:
            message = (
                "Your previous request to create the named bucket succeeded and you already own it."
            )
            raise StorageError(409, message, "conflict") from None
        return Answer(bucket_resource(bucket, request))

    def _get_bucket(self, request: Request, bucket: str) -> Answer:
        with translate_store_errors(request, bucket):
            self.store.objects_of(bucket)
        return Answer(bucket_resource(bucket, request))

    def _list(self, request: Request, bucket: str) -> Answer:
        after = PAGING.position(request.query, str) or ""
        limit = PAGING.size(request.query)
        with translate_store_errors(request, bucket):
            page = self.store.list(
                bucket,
                prefix=request.query.get("prefix", ""),
                delimiter=request.query.get("delimiter", ""),
                after=after,
                limit=limit,
            )
        payload: dict[str, Any] = {"kind": "storage#objects"}
        if page.objects:
            payload["items"] = [object_resource(stored, request) for stored in page.objects]
        if page.prefixes:
            payload["prefixes"] = page.prefixes
        if page.next_after:
            payload["nextPageToken"] = PAGING.token(page.next_after, request.query)
        return Answer(payload)

    def _get(self, request: Request, bucket: str, name: str) -> Answer:
        # decoded only now: a %2F of the name is no separator of the path
        name = unquote(name)
        media = request.query.get("alt") == "media" or request.path.startswith("/download/")
        with translate_store_errors(request, bucket, name, media=media):
            conditions, generation = (
                conditions_of(request),
                integer_parameter(request, "generation"),
            )
            if not media:
                return Answer(
                    object_resource(self.store.find(bucket, name, conditions, generation), request)
                )
            return media_answer(*self.store.read(bucket, name, conditions, generation), request)

    def _delete(self, request: Request, bucket: str, name: str) -> Answer:
        name = unquote(name)
        with translate_store_errors(request, bucket, name):
            self.store.delete(
                bucket, name, conditions_of(request), integer_parameter(request, "generation")
            )
        return Answer(b"", 204)

    def _upload(self, request: Request, bucket: str) -> Answer:
        kind = request.query.get("uploadType")
        if kind == "resumable":
            return self._begin(request, bucket, request.json())
        if kind == "multipart":
            metadata, content_type, content = multipart_parts(request)
        elif kind == "media":
            metadata, content_type, content = (
                {},
                request.headers.get("content-type", ""),
                request.body,
            )
        else:
            raise StorageError(400, f"Unknown uploadType: {kind}", "invalid")
        upload = new_upload(request, bucket, metadata, content_type)
        with translate_store_errors(request, bucket, upload.name):
            stored = self.store.write(
                bucket,
                upload.name,
                content,
                upload.settings,
                upload.conditions,
                checksums_of(request, upload.expected),
            )
        return Answer(object_resource(stored, request))

    def _begin(self, request: Request, bucket: str, metadata: Mapping[str, Any]) -> Answer:
        upload = new_upload(
            request, bucket, metadata, request.headers.get("x-upload-content-type", "")
        )
        with translate_store_errors(request, bucket, upload.name):
            # the service checks the conditions at the start too, before any part is sent
            self.store.check(bucket, upload.name, upload.conditions)
        key = secrets.token_hex(16)
        self._uploads[key] = upload
        location = (
            f"{address_of(request)}{request.path}?uploadType=resumable"
            f"&name={quote(upload.name, safe='')}&upload_id={key}"
        )
        return Answer(b"", 200, {"location": location, "x-guploader-uploadid": key})

    def _resume(self, request: Request, bucket: str) -> Answer:
        upload = self._uploads.get(request.query.get("upload_id", ""))
        if upload is None:
            raise StorageError(404, "No such upload session; start the upload again.", "notFound")
        with self._lock:
            # a client that lost the last response sends the last part again
            if upload.finished:
                return Answer(object_resource(upload.finished, request))
            total = append_part(upload, request)
            if total != len(upload.content):
                received = {"range": f"bytes=0-{len(upload.content) - 1}"} if upload.content else {}
                # without a range nothing has been received
                return Answer(b"", 308, received)
            expected = checksums_of(request, upload.expected)
            with translate_store_errors(request, bucket, upload.name):
                upload.finished = self.store.write(
                    bucket,
                    upload.name,
                    bytes(upload.content),
                    upload.settings,
                    upload.conditions,
                    expected,
                )
            upload.content.clear()
            return Answer(object_resource(upload.finished, request))

    def _cancel(self, request: Request, bucket: str) -> Answer:
        if self._uploads.pop(request.query.get("upload_id", ""), None) is None:
            raise StorageError(404, "No such upload session.", "notFound")
        # the status of a cancelled upload, not an error
        # (https://cloud.google.com/storage/docs/performing-resumable-uploads)
        return Answer(b"", 499)
