"""Reads the output of a batch's driver from the staging bucket: the objects
`<outputUri>.000000000`, `.000000001` and so on. The service appends to the last one while the
batch runs.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from google.cloud.storage import Blob, Client

from common.google.clients import client_options, credentials, translate_google_errors
from config_spark import Settings

TAIL_BYTES = 65_536
"""Bytes of the output in which the last lines are searched."""


class DriverOutput:
    """Output of one batch. Every method raises CloudRefused and CloudUnavailable."""

    def __init__(self, settings: Settings, output_uri: str) -> None:
        self._uri = output_uri
        self._client = Client(
            project=settings.project_id,
            credentials=credentials(settings),
            client_options=client_options(settings, "https://storage.googleapis.com"),
        )
        self._seen: dict[str, int] = {}
        # a character may be split between two reads
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def read_new(self) -> str:
        """Return the text since the last call; empty for none."""
        with translate_google_errors(self._uri):
            return "".join(self._new_text())

    def last_lines(self, count: int = 20) -> list[str]:
        """Return the newest lines, at most TAIL_BYTES of them."""
        content = b""
        with translate_google_errors(self._uri):
            # the newest object first: an older one is read only if the newer ones are short
            for blob in reversed(self._objects()):
                if len(content) < TAIL_BYTES:
                    content = _bytes(blob, max(0, (blob.size or 0) - TAIL_BYTES)) + content
        return content[-TAIL_BYTES:].decode(errors="replace").splitlines()[-count:]

    def _new_text(self) -> Iterator[str]:
        for blob in self._objects():
            offset = self._seen.get(blob.name, 0)
            if (blob.size or 0) > offset:
                content = _bytes(blob, offset)
                self._seen[blob.name] = offset + len(content)
                yield self._decoder.decode(content)

    def _objects(self) -> list[Blob]:
        bucket, _, path = self._uri.removeprefix("gs://").partition("/")
        return sorted(
            self._client.list_blobs(bucket, prefix=f"{path}."), key=lambda blob: str(blob.name)
        )


def _bytes(blob: Blob, start: int) -> bytes:
    # start=0 would send a range, which Cloud Storage rejects for an empty object
    content: bytes = blob.download_as_bytes(start=start or None)
    return content
