"""A double of Cloud Storage's JSON API on a folder, for the official client, gcloud, and the
workflow's plain HTTP.

Buckets: create, get, list. Objects: simple, multipart and resumable upload, get, download (whole or
a range), list, delete, each with generations and preconditions. It has no versioning, no rights, no
copy and no XML API. What tests want to go wrong is a `Fault`. Rules:
https://cloud.google.com/storage/docs/json_api/v1, and there /status-codes;
https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from emulator.services.http_service import Answer, ApiError, ConnectionCut, Request, Service
from emulator.services.object_store import (
    BucketExists,
    ChecksumMismatch,
    ConditionNotMet,
    Conditions,
    NoSuchBucket,
    NoSuchObject,
    ObjectStore,
    StoredObject,
    Unchanged,
)

OBJECTS = re.compile(r"(?:/(?:upload|download|resumable/upload))?/storage/v1/b/[^/]+/o.*")
SETTINGS = (
    "cacheControl",
    "contentDisposition",
    "contentEncoding",
    "contentLanguage",
    "contentType",
    "metadata",
)
"""What an upload may set (https://cloud.google.com/storage/docs/json_api/v1/objects#resource)."""
CHUNK = 256 * 1024
"""All parts of a resumable upload but the last are a multiple of this."""
PAGE = 1000


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a request: an answer of this status instead of the work, or a connection
    that ends before the work or after it.
    """

    kind: Literal["status", "cut before", "cut after"] = "status"
    status: int = 503


UNAVAILABLE = Fault()
TOO_MANY = Fault(status=429)
CUT_BEFORE = Fault("cut before")
CUT_AFTER = Fault("cut after")

FaultPlan = Callable[[int, Request], Fault | None]
"""Takes a request for an object, or for a list of them, and its number, from 1; says what goes
wrong with it.

Requests for a bucket have neither number nor fault: the official client asks for a bucket's
metadata in a thread of its own, at any time.
"""


class StorageError(ApiError):
    """The JSON API's older form of an error: a list of errors, each with a reason, instead of a
    status.
    """

    def __init__(self, status: int, message: str, reason: str, **where: str) -> None:
        super().__init__(status, message)
        errors = [{"message": message, "domain": "global", "reason": reason, **where}]
        self.answer = Answer(
            {"error": {"code": status, "message": message, "errors": errors}}, status
        )


@dataclass
class _Upload:
    """A resumable upload that has begun; it lives in memory, so that a restarted double has
    forgotten it, as the service forgets after a week.
    """

    bucket: str
    name: str
    settings: Mapping[str, object]
    conditions: Conditions
    expected: Mapping[str, str]
    content: bytearray
    finished: StoredObject | None = None


class FakeStorage(Service):
    """Args: folder keeps the objects; buckets are made where they are missing; fault may be set and
    unset at any time.
    """

    def __init__(
        self, folder: Path, buckets: Sequence[str] = (), fault: FaultPlan | None = None
    ) -> None:
        super().__init__()
        self.store = ObjectStore(folder)
        self.fault = fault
        self._count = 0
        self._lock = threading.Lock()
        self._uploads: dict[str, _Upload] = {}
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
        """As `Service.answer`, with the fault that is planned for this request. Raises:
        ConnectionCut.
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
            self.keep(request)
        if fault.kind == "status":
            return StorageError(
                fault.status, "A fault that a test asked for.", "backendError"
            ).answer
        raise ConnectionCut

    def _list_buckets(self, request: Request) -> Answer:
        prefix = request.query.get("prefix", "")
        items = [
            _bucket_resource(bucket, request)
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
        return Answer(_bucket_resource(bucket, request))

    def _get_bucket(self, request: Request, bucket: str) -> Answer:
        with _as_answers(request, bucket):
            self.store.objects_of(bucket)
        return Answer(_bucket_resource(bucket, request))

    def _list(self, request: Request, bucket: str) -> Answer:
        after = base64.b64decode(request.query.get("pageToken", "")).decode()
        limit = min(_number(request, "maxResults") or PAGE, PAGE)
        with _as_answers(request, bucket):
            page = self.store.list(
                bucket,
                prefix=request.query.get("prefix", ""),
                delimiter=request.query.get("delimiter", ""),
                after=after,
                limit=limit,
            )
        document: dict[str, Any] = {"kind": "storage#objects"}
        if page.objects:
            document["items"] = [_resource(stored, request) for stored in page.objects]
        if page.prefixes:
            document["prefixes"] = page.prefixes
        if page.next_after:
            document["nextPageToken"] = base64.b64encode(page.next_after.encode()).decode()
        return Answer(document)

    def _get(self, request: Request, bucket: str, name: str) -> Answer:
        name = unquote(name)
        media = request.query.get("alt") == "media" or request.path.startswith("/download/")
        with _as_answers(request, bucket, name, media=media):
            conditions, generation = _conditions(request), _number(request, "generation")
            if not media:
                return Answer(
                    _resource(self.store.find(bucket, name, conditions, generation), request)
                )
            return _media(*self.store.read(bucket, name, conditions, generation), request)

    def _delete(self, request: Request, bucket: str, name: str) -> Answer:
        name = unquote(name)
        with _as_answers(request, bucket, name):
            self.store.delete(bucket, name, _conditions(request), _number(request, "generation"))
        return Answer(b"", 204)

    def _upload(self, request: Request, bucket: str) -> Answer:
        kind = request.query.get("uploadType")
        if kind == "resumable":
            return self._begin(request, bucket, request.json())
        if kind == "multipart":
            document, content_type, content = _multipart_parts(request)
        elif kind == "media":
            document, content_type, content = (
                {},
                request.headers.get("content-type", ""),
                request.body,
            )
        else:
            raise StorageError(400, f"Unknown uploadType: {kind}", "invalid")
        upload = _new_upload(request, bucket, document, content_type)
        with _as_answers(request, bucket, upload.name):
            stored = self.store.write(
                bucket,
                upload.name,
                content,
                upload.settings,
                upload.conditions,
                _hashes(request, upload.expected),
            )
        return Answer(_resource(stored, request))

    def _begin(self, request: Request, bucket: str, document: Mapping[str, Any]) -> Answer:
        upload = _new_upload(
            request, bucket, document, request.headers.get("x-upload-content-type", "")
        )
        with _as_answers(request, bucket, upload.name):
            self.store.check(bucket, upload.name, upload.conditions)
        key = secrets.token_hex(16)
        self._uploads[key] = upload
        location = (
            f"{_address(request)}{request.path}?uploadType=resumable"
            f"&name={quote(upload.name, safe='')}&upload_id={key}"
        )
        return Answer(b"", 200, {"location": location, "x-guploader-uploadid": key})

    def _resume(self, request: Request, bucket: str) -> Answer:
        upload = self._uploads.get(request.query.get("upload_id", ""))
        if upload is None:
            raise StorageError(404, "No such upload session; start the upload again.", "notFound")
        with self._lock:
            if upload.finished:
                return Answer(_resource(upload.finished, request))
            total = _append(upload, request)
            if total != len(upload.content):
                received = {"range": f"bytes=0-{len(upload.content) - 1}"} if upload.content else {}
                return Answer(b"", 308, received)
            expected = _hashes(request, upload.expected)
            with _as_answers(request, bucket, upload.name):
                upload.finished = self.store.write(
                    bucket,
                    upload.name,
                    bytes(upload.content),
                    upload.settings,
                    upload.conditions,
                    expected,
                )
            upload.content.clear()
            return Answer(_resource(upload.finished, request))

    def _cancel(self, request: Request, bucket: str) -> Answer:
        if self._uploads.pop(request.query.get("upload_id", ""), None) is None:
            raise StorageError(404, "No such upload session.", "notFound")
        return Answer(b"", 499)


@contextmanager
def _as_answers(
    request: Request, bucket: str, name: str = "", *, media: bool = False
) -> Iterator[None]:
    """The store's errors as the service's answers. Args: media asks for those of a download, which
    are plain text.
    """
    try:
        yield
    except NoSuchBucket:
        raise StorageError(404, "The specified bucket does not exist.", "notFound") from None
    except NoSuchObject:
        error = StorageError(404, f"No such object: {bucket}/{name}", "notFound")
        if media:
            error.answer = Answer(
                str(error).encode(), 404, {"content-type": "text/html; charset=UTF-8"}
            )
        raise error from None
    except ConditionNotMet as failed:
        message = "At least one of the pre-conditions you specified did not hold."
        error = StorageError(
            412, message, "conditionNotMet", locationType="header", location="If-Match"
        )
        if isinstance(failed, Unchanged) and request.method in ("GET", "HEAD"):
            error.answer = Answer(b"", 304)
        raise error from None
    except ChecksumMismatch as mismatch:
        raise StorageError(400, str(mismatch), "invalid") from None


def _conditions(request: Request) -> Conditions:
    names = (
        "ifGenerationMatch",
        "ifGenerationNotMatch",
        "ifMetagenerationMatch",
        "ifMetagenerationNotMatch",
    )
    return Conditions(*(_number(request, name) for name in names))


def _number(request: Request, name: str) -> int | None:
    value = request.query.get(name)
    if value is not None and not re.fullmatch(r"-?\d+", value):
        raise StorageError(400, f"Invalid value for parameter {name}: '{value}'", "invalid")
    return None if value is None else int(value)


def _new_upload(
    request: Request, bucket: str, document: Mapping[str, Any], content_type: str
) -> _Upload:
    name = request.query.get("name") or str(document.get("name", ""))
    if not name or len(name.encode()) > 1024 or "\r" in name or "\n" in name:
        raise StorageError(
            400,
            "Required parameter: name" if not name else f"Invalid object name: {name!r}",
            "invalid",
        )
    settings = {"contentType": content_type or "application/octet-stream"} | {
        key: document[key] for key in SETTINGS if key in document
    }
    expected = {kind: str(document[kind]) for kind in ("md5Hash", "crc32c") if kind in document}
    return _Upload(bucket, name, settings, _conditions(request), expected, bytearray())


def _hashes(request: Request, expected: Mapping[str, str]) -> dict[str, str]:
    """The checksums that the upload has to match: the metadata's and those of x-goog-hash
    (https://cloud.google.com/storage/docs/xml-api/reference-headers).
    """
    pairs = [
        part.strip().partition("=") for part in request.headers.get("x-goog-hash", "").split(",")
    ]
    return dict(expected) | {
        {"md5": "md5Hash"}.get(kind, kind): value
        for kind, _, value in pairs
        if kind in ("md5", "crc32c")
    }


def _multipart_parts(request: Request) -> tuple[Mapping[str, Any], str, bytes]:
    """The metadata, the content's type and the content of a multipart/related body (RFC 2387).
    gcloud ends its lines with a bare LF.
    """
    found = re.search(
        r"boundary=(?:'([^']+)'|\"([^\"]+)\"|([^;\s]+))", request.headers.get("content-type", "")
    )
    marker = b"--" + next(group for group in found.groups() if group).encode() if found else b""
    parts = request.body.split(marker) if marker else []
    if len(parts) != 4:
        raise StorageError(
            400,
            f"Multipart upload must have two parts; {max(len(parts) - 2, 0)} found.",
            "badRequest",
        )
    newline = b"\r\n" if parts[1].startswith(b"\r\n") else b"\n"
    (_, _, document), (head, _, content) = (part.partition(2 * newline) for part in parts[1:3])
    content_type = re.search(rb"(?im)^content-type:\s*([^\r\n]+)", head)
    return (
        json.loads(document),
        content_type[1].decode() if content_type else "",
        content.removesuffix(newline),
    )


def _append(upload: _Upload, request: Request) -> int | None:
    """Add this part's new bytes; returns the whole size where the client has said it. A part may
    repeat bytes that are here already.
    """
    found = re.fullmatch(
        r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)",
        request.headers.get(
            "content-range", f"bytes 0-{len(request.body) - 1}/{len(request.body)}"
        ),
    )
    if not found:
        if len(request.body) == 0:
            return 0
        raise StorageError(400, "Failed to parse Content-Range header.", "badRequest")
    first, last, total = (None if group in (None, "*") else int(group) for group in found.groups())
    if first is not None and last is not None:
        if first > len(upload.content) or last - first + 1 != len(request.body):
            raise StorageError(
                503,
                f"The upload's offset is {first}, and {len(upload.content)} byte(s) are uploaded.",
                "backendError",
            )
        if total is None and len(request.body) % CHUNK:
            raise StorageError(
                400,
                f"Invalid request. The number of bytes must be a multiple of {CHUNK} in all parts"
                " but the last.",
                "badRequest",
            )
        upload.content += request.body[len(upload.content) - first :]
    return total


def _media(stored: StoredObject, content: bytes, request: Request) -> Answer:
    """The bytes, all or the asked range (RFC 9110 section 14)."""
    headers = {
        "content-type": str(stored.settings["contentType"]),
        "etag": _etag(stored),
        "x-goog-generation": str(stored.generation),
        "x-goog-metageneration": str(stored.metageneration),
        "x-goog-hash": f"crc32c={stored.crc32c},md5={stored.md5_hash}",
        "x-goog-stored-content-length": str(stored.size),
        "x-goog-stored-content-encoding": "identity",
        "accept-ranges": "bytes",
    }
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if not found or not any(found.groups()):
        return Answer(content, 200, headers)
    first = int(found[1]) if found[1] else max(stored.size - int(found[2]), 0)
    last = min(int(found[2]), stored.size - 1) if found[1] and found[2] else stored.size - 1
    if first > last:
        return Answer(b"", 416, {"content-range": f"bytes */{stored.size}"})
    return Answer(
        content[first : last + 1],
        206,
        headers | {"content-range": f"bytes {first}-{last}/{stored.size}"},
    )


def _address(request: Request) -> str:
    return f"http://{request.headers.get('host', '')}"


def _etag(stored: StoredObject) -> str:
    return base64.b64encode(f"{stored.generation}/{stored.metageneration}".encode()).decode()


def _bucket_resource(bucket: str, request: Request) -> dict[str, Any]:
    link = f"{_address(request)}/storage/v1/b/{bucket}"
    return {
        "kind": "storage#bucket",
        "id": bucket,
        "name": bucket,
        "selfLink": link,
        "metageneration": "1",
        "location": "US",
        "storageClass": "STANDARD",
        "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}},
    }


def _resource(stored: StoredObject, request: Request) -> dict[str, Any]:
    """https://cloud.google.com/storage/docs/json_api/v1/objects#resource; 64-bit numbers are
    strings.
    """
    path = f"/storage/v1/b/{stored.bucket}/o/{quote(stored.name, safe='')}"
    return {
        "kind": "storage#object",
        "id": f"{stored.bucket}/{stored.name}/{stored.generation}",
        "selfLink": _address(request) + path,
        "mediaLink": f"{_address(request)}/download{path}?generation={stored.generation}&alt=media",
        "name": stored.name,
        "bucket": stored.bucket,
        "generation": str(stored.generation),
        "metageneration": str(stored.metageneration),
        **stored.settings,
        "storageClass": "STANDARD",
        "size": str(stored.size),
        "md5Hash": stored.md5_hash,
        "crc32c": stored.crc32c,
        "etag": _etag(stored),
        "timeCreated": stored.created,
        "updated": stored.created,
    }
