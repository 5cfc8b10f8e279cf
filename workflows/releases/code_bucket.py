"""The bucket of the releases, by Google's client: read, list, write with a precondition, delete.

Every write names the generation that it replaces, so concurrent writers never overwrite each other
(https://cloud.google.com/storage/docs/request-preconditions).
"""

from __future__ import annotations

import base64
import hashlib
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from google.api_core import exceptions
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from common.errors import CloudUnavailable
from common.google.clients import (
    client_options,
    credentials,
    require_settings,
    translate_google_errors,
)
from config_spark import Settings

Say = Callable[[str], None]

HOST = "https://storage.googleapis.com"
NO_BUCKET = "The specified bucket does not exist"
"""Cloud Storage's message; a missing object is a 404 too."""
RETRY_SECONDS = 60.0
"""How long one request is retried; the client's default is two minutes."""
PART_BYTES = 1 << 20
"""Part of a resumable upload: the unit of retries and of progress messages. Cloud Storage takes
multiples of 256 KiB.
"""
LARGE_BYTES = 1 << 18
SECONDS_BEFORE_PROGRESS = 2.0


def md5_hash(content: bytes) -> str:
    """Return the base64 MD5 that a listing has as `md5Hash`. It compares contents; the manifest's
    SHA-256 proves them.
    """
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


class PreconditionFailed(Exception):
    """The object exists, or has another generation than the one to replace."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object in a listing. `created` is RFC 3339, UTC."""

    bytes: int
    md5: str
    created: str


@dataclass(frozen=True)
class ObjectContent:
    """An object's bytes and their generation."""

    bytes: bytes
    generation: int


class CodeBucket:
    """Every method raises CloudRefused (no such bucket, missing rights) and CloudUnavailable."""

    def __init__(self, settings: Settings) -> None:
        """Raises:
        ConfigurationError: CODE_BUCKET is not set.
        EnvironmentNotReady: There are no credentials.
        """
        require_settings(settings, "code_bucket")
        self.name = str(settings.code_bucket)
        client = storage.Client(
            project=settings.project_id,
            credentials=credentials(settings),
            client_options=client_options(settings, HOST),
        )
        self._bucket = client.bucket(self.name)
        self._retry = DEFAULT_RETRY.with_timeout(RETRY_SECONDS)

    def uri(self, name: str) -> str:
        """Return the gs:// address of an object."""
        return f"gs://{self.name}/{name}"

    def listing(self, prefix: str) -> dict[str, ObjectInfo]:
        """Return the objects under a prefix, by name without the prefix."""
        with self._translate_errors(prefix):
            blobs = list(self._bucket.list_blobs(prefix=prefix, retry=self._retry))
        return {
            blob.name.removeprefix(prefix): ObjectInfo(
                blob.size, blob.md5_hash, blob.time_created.isoformat()
            )
            for blob in blobs
        }

    def read(self, name: str) -> ObjectContent | None:
        """Return an object; None if it does not exist."""
        blob = self._bucket.blob(name)
        with self._translate_errors(name):
            try:
                content = blob.download_as_bytes(retry=self._retry)
            except exceptions.NotFound as error:
                if NO_BUCKET in error.message:
                    raise
                return None
        # the download sets the generation that it has read
        return ObjectContent(content, int(blob.generation))

    def write(
        self, name: str, content: bytes, content_type: str, *, generation: int = 0, say: Say
    ) -> None:
        """Write an object if it has the expected generation.

        Args:
            name: Name of the object.
            content: Its bytes; more than LARGE_BYTES are uploaded in parts.
            content_type: MIME type.
            generation: Generation to replace; 0 requires that the object does not exist.
            say: Receives progress lines.

        Raises:
            PreconditionFailed: The object has another generation. The cause may be an earlier try
                of this write whose response was lost: compare the bytes.
        """
        large = len(content) > LARGE_BYTES
        blob = self._bucket.blob(name, chunk_size=PART_BYTES if large else None)
        with self._translate_errors(name):
            try:
                blob.upload_from_file(
                    ProgressReader(content, name.rpartition("/")[2], say),
                    # without a size the client sends parts, by a resumable upload
                    size=None if large else len(content),
                    content_type=content_type,
                    if_generation_match=generation,
                    checksum="crc32c",
                    retry=self._retry,
                )
            except exceptions.PreconditionFailed as error:
                raise PreconditionFailed(name) from error

    def delete(self, name: str) -> None:
        """Delete an object. A missing one is no error: an earlier try whose response was lost may
        have deleted it.
        """
        with self._translate_errors(name):
            try:
                self._bucket.blob(name).delete(retry=self._retry)
            except exceptions.NotFound as error:
                if NO_BUCKET in error.message:
                    raise

    @contextmanager
    def _translate_errors(self, name: str) -> Iterator[None]:
        try:
            with translate_google_errors(self.uri(name)):
                yield
        except DataCorruption as error:
            raise CloudUnavailable(
                f"{self.uri(name)} was damaged in transit: {error}. Try again"
            ) from error


class ProgressReader(io.BytesIO):
    """Content that reports how much of it was read, every SECONDS_BEFORE_PROGRESS."""

    def __init__(self, content: bytes, title: str, say: Say) -> None:
        super().__init__(content)
        self._title, self._say, self._size = title, say, len(content)
        self._next = time.monotonic() + SECONDS_BEFORE_PROGRESS

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, as `io.BytesIO.read`."""
        if time.monotonic() > self._next:
            self._say(f"{self._title}: {self.tell() / 1e6:.1f} of {self._size / 1e6:.1f} MB")
            self._next = time.monotonic() + SECONDS_BEFORE_PROGRESS
        return super().read(size)
