"""Responses of the Cloud Storage JSON API: errors, resources, downloads, and the parameters that
requests share.

Source: https://cloud.google.com/storage/docs/json_api/v1
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from emulator.services.http_service import Answer, ApiError, Request
from emulator.services.object_store import (
    ChecksumMismatch,
    ConditionNotMet,
    Conditions,
    NoSuchBucket,
    NoSuchObject,
    StoredObject,
    Unchanged,
)


class StorageError(ApiError):
    """An error in the JSON API's older form: a list of errors with reasons instead of a status."""

    def __init__(self, status: int, message: str, reason: str, **where: str) -> None:
        super().__init__(status, message)
        errors = [{"message": message, "domain": "global", "reason": reason, **where}]
        self.answer = Answer(
            {"error": {"code": status, "message": message, "errors": errors}}, status
        )


@contextmanager
def translate_store_errors(
    request: Request, bucket: str, name: str = "", *, media: bool = False
) -> Iterator[None]:
    """Turn the store's errors into the service's responses.

    Args:
        request: The request.
        bucket: Name of the bucket.
        name: Name of the object.
        media: Whether it is a download, whose errors are plain text.
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
            # a reader's copy is still current, which is no error
            error.answer = Answer(b"", 304)
        raise error from None
    except ChecksumMismatch as mismatch:
        raise StorageError(400, str(mismatch), "invalid") from None


def conditions_of(request: Request) -> Conditions:
    """Return the preconditions in a request's query."""
    names = (
        "ifGenerationMatch",
        "ifGenerationNotMatch",
        "ifMetagenerationMatch",
        "ifMetagenerationNotMatch",
    )
    return Conditions(*(integer_parameter(request, name) for name in names))


def integer_parameter(request: Request, name: str) -> int | None:
    """Return a parameter of the query; None without it.

    Raises:
        StorageError: 400, for another text.
    """
    value = request.query.get(name)
    # Google's int64: Python reads other digits than 0-9 too, and rejects very long numbers
    if value is not None and not re.fullmatch(r"-?[0-9]{1,19}", value):
        raise StorageError(400, f"Invalid value for parameter {name}: '{value[:60]}'", "invalid")
    return None if value is None else int(value)


def media_answer(stored: StoredObject, content: bytes, request: Request) -> Answer:
    """Return the bytes of a download, all or the requested range (RFC 9110 section 14)."""
    headers = {
        "content-type": str(stored.settings["contentType"]),
        "etag": etag_of(stored),
        "x-goog-generation": str(stored.generation),
        "x-goog-metageneration": str(stored.metageneration),
        "x-goog-hash": f"crc32c={stored.crc32c},md5={stored.md5_hash}",
        "x-goog-stored-content-length": str(stored.size),
        "x-goog-stored-content-encoding": "identity",
        "accept-ranges": "bytes",
    }
    match = re.fullmatch(r"bytes=([0-9]{0,19})-([0-9]{0,19})", request.headers.get("range", ""))
    if not match or not any(match.groups()):
        return Answer(content, 200, headers)
    first = int(match[1]) if match[1] else max(stored.size - int(match[2]), 0)
    last = min(int(match[2]), stored.size - 1) if match[1] and match[2] else stored.size - 1
    if first > last:
        return Answer(b"", 416, {"content-range": f"bytes */{stored.size}"})
    return Answer(
        content[first : last + 1],
        206,
        headers | {"content-range": f"bytes {first}-{last}/{stored.size}"},
    )


def address_of(request: Request) -> str:
    """Return the server's address as the client reached it, for links in responses."""
    return f"http://{request.headers.get('host', '')}"


def etag_of(stored: StoredObject) -> str:
    """Return a tag that changes with the object's bytes and its metadata."""
    return base64.b64encode(f"{stored.generation}/{stored.metageneration}".encode()).decode()


def bucket_resource(bucket: str, request: Request) -> dict[str, Any]:
    """Return a bucket's resource
    (https://cloud.google.com/storage/docs/json_api/v1/buckets#resource).
    """
    link = f"{address_of(request)}/storage/v1/b/{bucket}"
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


def object_resource(stored: StoredObject, request: Request) -> dict[str, Any]:
    """Return an object's resource
    (https://cloud.google.com/storage/docs/json_api/v1/objects#resource). 64-bit numbers are text.
    """
    address = address_of(request)
    path = f"/storage/v1/b/{stored.bucket}/o/{quote(stored.name, safe='')}"
    return {
        "kind": "storage#object",
        "id": f"{stored.bucket}/{stored.name}/{stored.generation}",
        "selfLink": address + path,
        "mediaLink": f"{address}/download{path}?generation={stored.generation}&alt=media",
        "name": stored.name,
        "bucket": stored.bucket,
        "generation": str(stored.generation),
        "metageneration": str(stored.metageneration),
        **stored.settings,
        "storageClass": "STANDARD",
        "size": str(stored.size),
        "md5Hash": stored.md5_hash,
        "crc32c": stored.crc32c,
        "etag": etag_of(stored),
        "timeCreated": stored.created,
        "updated": stored.created,
    }
