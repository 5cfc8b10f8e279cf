"""The bucket of the releases, by Google's own client: read, list, create what must not exist,
replace what must not have changed, delete.

In: settings (CODE_BUCKET, GOOGLE_API_ENDPOINT). Out: bytes with their generation, and listings with
sizes and hashes. Every write has a generation to match: two who write at once never overwrite each
other (https://cloud.google.com/storage/docs/request-preconditions). The client tries again after
429, 5xx and a line that breaks. A try whose answer was lost has written, and the next one is
refused: refused is no failure until bytes are compared.
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
from google.cloud.storage.exceptions import DataCorruption  # type: ignore[import-untyped]
from google.cloud.storage.retry import DEFAULT_RETRY  # type: ignore[import-untyped]

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
"""Cloud Storage's words; a missing object is a 404 too."""
RETRY_SECONDS = 60.0
"""How long one request is tried again; the client's own is two minutes."""
PART_BYTES = 1 << 20
"""Of a large file: a part that is lost is sent again, and after each there is a line of progress to
say.
"""
LARGE_BYTES = 1 << 18
SECONDS_BEFORE_PROGRESS = 2.0


def md5_hash(content: bytes) -> str:
    """As a listing has it in `md5Hash`: base64. It tells two contents apart; what a release holds
    is proved by its manifest's sha256.
    """
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


class AlreadyThere(Exception):
    """The object exists, or is no longer of the generation that was to be replaced."""


@dataclass(frozen=True)
class Listed:
    """An object as a listing has it; created is RFC 3339, UTC."""

    bytes: int
    md5: str
    created: str


@dataclass(frozen=True)
class Content:
    """An object's bytes, and the generation that they are of."""

    bytes: bytes
    generation: int


class CodeBucket:
    """Every method raises CloudRefused (no such bucket, no rights) and CloudUnavailable."""

    def __init__(self, settings: Settings) -> None:
        """Raises: ConfigurationError without CODE_BUCKET, EnvironmentNotReady without
        credentials.
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

    def where(self, name: str) -> str:
        return f"gs://{self.name}/{name}"

    def listing(self, prefix: str) -> dict[str, Listed]:
        """All objects whose names begin so, by name without the prefix."""
        with self._asking(prefix):
            blobs = list(self._bucket.list_blobs(prefix=prefix, retry=self._retry))
        return {
            blob.name.removeprefix(prefix): Listed(
                blob.size, blob.md5_hash, blob.time_created.isoformat()
            )
            for blob in blobs
        }

    def read(self, name: str) -> Content | None:
        """The object, None where it does not exist."""
        blob = self._bucket.blob(name)
        with self._asking(name):
            try:
                content = blob.download_as_bytes(retry=self._retry)
            except exceptions.NotFound as error:
                if NO_BUCKET in error.message:
                    raise
                return None
        return Content(content, int(blob.generation))

    def write(
        self, name: str, content: bytes, content_type: str, *, generation: int = 0, say: Say
    ) -> None:
        """Write the object if it is of this generation; 0: if it does not exist. A large one goes
        up in parts.

        Raises: AlreadyThere.
        """
        large = len(content) > LARGE_BYTES
        blob = self._bucket.blob(name, chunk_size=PART_BYTES if large else None)
        with self._asking(name):
            try:
                blob.upload_from_file(
                    _Told(content, name.rpartition("/")[2], say),
                    # without a size the client sends parts, by a resumable upload
                    size=None if large else len(content),
                    content_type=content_type,
                    if_generation_match=generation,
                    checksum="crc32c",
                    retry=self._retry,
                )
            except exceptions.PreconditionFailed as error:
                raise AlreadyThere(name) from error

    def delete(self, name: str) -> None:
        """Delete the object. One that is gone already is no error: a try whose answer was lost has
        deleted it.
        """
        with self._asking(name):
            try:
                self._bucket.blob(name).delete(retry=self._retry)
            except exceptions.NotFound as error:
                if NO_BUCKET in error.message:
                    raise

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        try:
            with translate_google_errors(self.where(name)):
                yield
        except DataCorruption as error:
            raise CloudUnavailable(
                f"{self.where(name)} came through damaged: {error}. Try again"
            ) from error


class _Told(io.BytesIO):
    """Content that says how much of it was taken, once that has lasted some seconds and then every
    so often.
    """

    def __init__(self, content: bytes, title: str, say: Say) -> None:
        super().__init__(content)
        self._title, self._say, self._size = title, say, len(content)
        self._next = time.monotonic() + SECONDS_BEFORE_PROGRESS

    def read(self, size: int | None = -1) -> bytes:
        if time.monotonic() > self._next:
            self._say(f"{self._title}: {self.tell() / 1e6:.1f} of {self._size / 1e6:.1f} MB")
            self._next = time.monotonic() + SECONDS_BEFORE_PROGRESS
        return super().read(size)
