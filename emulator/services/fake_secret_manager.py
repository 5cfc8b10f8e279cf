"""Fake of Secret Manager's access method: GET v1/projects/P/secrets/S/versions/V:access."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import google_crc32c

from emulator.services.http_service import Answer, ApiError, Request, Service


class FakeSecretManager(Service):
    """The service.

    Args:
        secrets: Values by full name, projects/P/secrets/S/versions/V; there is no `latest`.
    """

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        super().__init__()
        self._secrets = secrets
        self.route(
            "GET",
            r"/v1/(?P<name>projects/[^/]+/secrets/[^/]+/versions/[^/:]+):access",
            self._access,
        )

    def _access(self, request: Request, name: str) -> Answer:
        value = self._secrets.get(name)
        if value is None:
            raise ApiError(
                404, f"Secret [{name.rpartition('/versions/')[0]}] not found or has no versions."
            )
        payload = {
            "data": base64.b64encode(value).decode(),
            "dataCrc32c": str(google_crc32c.value(value)),
        }
        return Answer({"name": name, "payload": payload})
