"""Uploads of the Cloud Storage JSON API: metadata, checksums, multipart bodies and resumable parts.

Source: https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from emulator.services.http_service import Request
from emulator.services.object_store import Conditions, StoredObject
from emulator.services.storage_responses import StorageError, conditions_of

SETTINGS = (
    "cacheControl",
    "contentDisposition",
    "contentEncoding",
    "contentLanguage",
    "contentType",
    "metadata",
)
"""Fields that an upload may set
(https://cloud.google.com/storage/docs/json_api/v1/objects#resource).
"""
CHUNK = 256 * 1024
"""All parts of a resumable upload but the last are a multiple of this size."""


@dataclass
class Upload:
    """An upload in progress. It is kept in memory only; the service forgets one after a week."""

    bucket: str
    name: str
    settings: Mapping[str, object]
    conditions: Conditions
    expected: Mapping[str, str]
    content: bytearray
    finished: StoredObject | None = None


def new_upload(
    request: Request, bucket: str, metadata: Mapping[str, Any], content_type: str
) -> Upload:
    """Check the name of an upload and collect what its request sets.

    Args:
        request: The request that starts the upload.
        bucket: Name of the bucket.
        metadata: The object's resource in the body, without bytes.
        content_type: MIME type of the bytes, by the headers.

    Raises:
        StorageError: 400, for a missing or invalid name.
    """
    # at most 1024 bytes, without line ends (https://cloud.google.com/storage/docs/objects#naming)
    name = request.query.get("name") or str(metadata.get("name", ""))
    # JSON can write half a surrogate pair, which UTF-8 can't
    encoded = name.encode(errors="replace")
    if not name or encoded.decode() != name or len(encoded) > 1024 or {"\r", "\n"} & set(name):
        raise StorageError(
            400,
            "Required parameter: name" if not name else f"Invalid object name: {name!r}",
            "invalid",
        )
    settings = {"contentType": content_type or "application/octet-stream"} | {
        key: metadata[key] for key in SETTINGS if key in metadata
    }
    expected = {kind: str(metadata[kind]) for kind in ("md5Hash", "crc32c") if kind in metadata}
    return Upload(bucket, name, settings, conditions_of(request), expected, bytearray())


def checksums_of(request: Request, expected: Mapping[str, str]) -> dict[str, str]:
    """Return the checksums that an upload must match: those of its metadata and of x-goog-hash
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


def multipart_parts(request: Request) -> tuple[Mapping[str, Any], str, bytes]:
    """Split a multipart/related body (RFC 2387) into metadata, content type and content. gcloud
    ends its lines with a bare LF.
    """
    match = re.search(
        r"boundary=(?:'([^']+)'|\"([^\"]+)\"|([^;\s]+))", request.headers.get("content-type", "")
    )
    marker = b"--" + next(group for group in match.groups() if group).encode() if match else b""
    parts = request.body.split(marker) if marker else []
    # the text before the first marker, two parts, and `--` behind the last marker
    if len(parts) != 4:
        raise StorageError(
            400,
            f"Multipart upload must have two parts; {max(len(parts) - 2, 0)} found.",
            "badRequest",
        )
    newline = b"\r\n" if parts[1].startswith(b"\r\n") else b"\n"
    (_, _, metadata), (head, _, content) = (part.partition(2 * newline) for part in parts[1:3])
    content_type = re.search(rb"(?im)^content-type:\s*([^\r\n]+)", head)
    return (
        replace(request, body=metadata).json(),
        content_type[1].decode("latin-1") if content_type else "",
        content.removesuffix(newline),
    )


def append_part(upload: Upload, request: Request) -> int | None:
    """Append a part's new bytes and return the total size, if the client sent it. A part may repeat
    bytes of an earlier one.
    """
    match = re.fullmatch(
        r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19}|\*)",
        request.headers.get(
            "content-range", f"bytes 0-{len(request.body) - 1}/{len(request.body)}"
        ),
    )
    if not match:
        # `bytes 0--1/0`, the default for an empty body: an empty object
        if len(request.body) == 0:
            return 0
        raise StorageError(400, "Failed to parse Content-Range header.", "badRequest")
    first, last, total = (None if group in (None, "*") else int(group) for group in match.groups())
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
        # the first bytes may have arrived already
        upload.content += request.body[len(upload.content) - first :]
    return total
