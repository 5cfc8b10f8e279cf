"""REST methods of Google's services that have no client among our packages: google-auth's session,
JSON in and out.

In: settings and a service's address. Out: documents, or errors of `common.errors`.
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
PASSING = (429, 500, 502, 503, 504)


class GoogleRest:
    """One service.

    Every method raises CloudRefused and CloudUnavailable.
    """

    def __init__(
        self, settings: Settings, host: str, version: str, *, repeatable: Collection[str] = ("GET",)
    ) -> None:
        """Args: host is Google's own address; the setting GOOGLE_API_ENDPOINT wins over it.
        repeatable are the HTTP methods that are sent again after a failure. A POST that starts
        something is none of them: an answer that was lost may have started it.
        """
        self._base = f"{settings.google_api_endpoint or host}/{version}"
        self._session = AuthorizedSession(credentials(settings))  # type: ignore[no-untyped-call]
        patient = HTTPAdapter(
            max_retries=Retry(
                total=5,
                backoff_factor=1,
                status_forcelist=PASSING,
                allowed_methods=repeatable,
            )
        )
        self._session.mount("https://", patient)
        self._session.mount("http://", patient)

    def ask(self, method: str, path: str, body: Document | None = None) -> Document:
        """One request; path begins behind the version."""
        with translate_google_errors(path.partition("?")[0]):
            answer = self._session.request(
                method, f"{self._base}/{path}", json=body, timeout=REQUEST_SECONDS
            )  # type: ignore[no-untyped-call]
            if not answer.ok:
                raise exceptions.from_http_response(answer)  # type: ignore[no-untyped-call]
            document: Document = answer.json()
            return document
