"""Calls REST methods of Google services that have no client in the requirements, with google-auth's
session. Raises the errors of `common.errors`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from google.api_core import exceptions
from google.auth.transport.requests import AuthorizedSession
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from common.google.clients import credentials, translate_google_errors
from config_spark import Settings

Document = dict[str, Any]

REQUEST_SECONDS = 60
RETRYABLE_STATUS = (429, 500, 502, 503, 504)


class GoogleRest:
    """One service. Every method raises CloudRefused and CloudUnavailable."""

    def __init__(
        self, settings: Settings, host: str, version: str, *, repeatable: Collection[str] = ("GET",)
    ) -> None:
        """Args:
        settings: Credentials; GOOGLE_API_ENDPOINT overrides `host`.
        host: Google's address of the service.
        version: Version of the API.
        repeatable: HTTP methods that are retried. A POST that starts something must not be one:
            a lost response may have started it.
        """
        self._base = f"{settings.google_api_endpoint or host}/{version}"
        self._session = AuthorizedSession(credentials(settings))  # type: ignore[no-untyped-call]
        adapter = HTTPAdapter(
            max_retries=Retry(
                total=5,
                backoff_factor=1,
                status_forcelist=RETRYABLE_STATUS,
                allowed_methods=repeatable,
            )
        )
        # an emulator has no TLS
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def request(self, method: str, path: str, body: Document | None = None) -> Document:
        """Send one request; `path` follows the version."""
        with translate_google_errors(path.partition("?")[0]):
            response = self._session.request(
                method, f"{self._base}/{path}", json=body, timeout=REQUEST_SECONDS
            )  # type: ignore[no-untyped-call]
            if not response.ok:
                raise exceptions.from_http_response(response)  # type: ignore[no-untyped-call]
            payload: Document = response.json()
            return payload
