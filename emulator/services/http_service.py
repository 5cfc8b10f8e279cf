"""Services of the fakes: routes, requests, responses and Google's errors. `http_server.py` serves
them at one address. Paths are matched as sent, so an object's name keeps its %2F.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
"""google.rpc.Code of an HTTP status (google/rpc/code.proto)."""


@dataclass(frozen=True)
class Request:
    """One request. Header names are lower case, the path is as sent, query values are decoded, and
    the last of equal names wins.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the JSON object in the body.

        Raises:
            ApiError: 400, for another body.
        """
        try:
            payload = json.loads(self.body or b"{}")
        # RecursionError: deeply nested lists
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"Invalid JSON payload received: {error}") from None
        if not isinstance(payload, dict):
            raise ApiError(400, "Invalid JSON payload received: its root is no object")
        return payload


@dataclass(frozen=True)
class Answer:
    """One response: bytes as they are, anything else as JSON."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> tuple[bytes, str]:
        """Return the bytes and their content type."""
        if isinstance(self.body, bytes):
            return self.body, self.headers.get("content-type", "application/octet-stream")
        return json.dumps(self.body).encode(), "application/json; charset=UTF-8"


class ApiError(Exception):
    """A response other than 2xx, in Google's form (https://cloud.google.com/apis/design/errors)."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str | None = None,
        details: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        error: dict[str, Any] = {
            "code": status,
            "message": message,
            "status": reason or STATUS_NAMES.get(status, "UNKNOWN"),
        }
        if details:
            error["details"] = list(details)
        self.answer = Answer({"error": error}, status)


def invalid_argument(message: str, field: str = "") -> ApiError:
    """Return a 400 INVALID_ARGUMENT with the details of Google's front end."""
    violation = {"description": message, **({"field": field} if field else {})}
    return ApiError(
        400,
        message,
        details=[
            {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}
        ],
    )


class ConnectionCut(Exception):
    """Raised by a handler to close the connection without a response."""


Handler = Callable[..., Answer]
"""Receives the request, and the pattern's named groups as keywords."""


class Service:
    """Routes of one service. `requests` has the requests in order if `keeps_requests` is set, as in
    tests; a long-running server would keep every upload.
    """

    keeps_requests: ClassVar[bool] = False

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def route(self, method: str, pattern: str, handler: Handler) -> None:
        """Add a route.

        Args:
            method: HTTP method.
            pattern: Regular expression of the whole path.
            handler: Answers the request.
        """
        self._routes.append((method, re.compile(pattern), handler))

    def record(self, request: Request) -> None:
        """Record a request, if requests are recorded."""
        if self.keeps_requests:
            self.requests.append(request)

    def answer(self, request: Request) -> Answer | None:
        """Return the response of the first matching route; None if there is none."""
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(request.path)
            if method == request.method and match:
                self.record(request)
                try:
                    return handler(request, **match.groupdict())
                except ApiError as error:
                    return error.answer
        return None
