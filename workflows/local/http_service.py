"""A small HTTP server on loopback that the doubles of Google's services share: routes, JSON,
Google's errors, what was asked.

In: services, each with routes (method, pattern of the raw path, handler). Out: one address at which
they all answer, as Google's do at several. A pattern is matched on the path as it was sent: an
object's name keeps its %2F. Handlers run in threads, one for each connection.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
"""google.rpc.Code of an HTTP status (google/rpc/code.proto)."""


@dataclass(frozen=True)
class Request:
    """What was asked. Headers' names are lower case; path is as it was sent, values of the query
    are decoded, the last of equal names wins.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body's document. Raises: ApiError 400."""
        try:
            return json.loads(self.body or b"{}")
        except ValueError as error:
            raise ApiError(400, f"Invalid JSON payload received: {error}") from None


@dataclass(frozen=True)
class Answer:
    """What is answered: bytes as they are, anything else as JSON."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> tuple[bytes, str]:
        """The bytes and their content type."""
        if isinstance(self.body, bytes):
            return self.body, self.headers.get("content-type", "application/octet-stream")
        return json.dumps(self.body).encode(), "application/json; charset=UTF-8"


class ApiError(Exception):
    """An answer other than 2xx, in Google's form (https://cloud.google.com/apis/design/errors)."""

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


class ConnectionCut(Exception):
    """Raised by a handler: the connection is closed without an answer."""


Handler = Callable[..., Answer]
"""Takes the request and the pattern's named groups, as keywords."""


class Service:
    """One service's routes, and what it was asked, in order."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def route(self, method: str, pattern: str, handler: Handler) -> None:
        """Add a route; pattern is a regular expression for the whole path."""
        self._routes.append((method, re.compile(pattern), handler))

    def answer(self, request: Request) -> Answer | None:
        """The answer of the first route that fits, None where none does."""
        for method, pattern, handler in self._routes:
            found = pattern.fullmatch(request.path)
            if method == request.method and found:
                self.asked.append(request)
                try:
                    return handler(request, **found.groupdict())
                except ApiError as error:
                    return error.answer
        return None


@contextmanager
def serving(services: Sequence[Service], port: int = 0) -> Iterator[str]:
    """Serve them on 127.0.0.1 while the block runs; yields the address, http://127.0.0.1:PORT.
    Args: port 0 takes a free one.
    """
    server = _Server(services, port)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # with socketserver's 5 the kernel drops connections that come together, and clients try again
    # after 1, 2, 4.. s
    request_queue_size = 128

    def __init__(self, services: Sequence[Service], port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.services = services

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle, killed or interrupted, is no error of ours; the
        rest is shown.
        """
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers,
            body,
        )
        answers = (service.answer(request) for service in self.server.services)
        try:
            answer = next((found for found in answers if found is not None), None)
        except ConnectionCut:
            self.close_connection = True
            return
        answer = (
            answer
            or ApiError(404, f"{self.command} {parts.path} is no method of a service here").answer
        )
        content, content_type = answer.encoded()
        self.send_response(answer.status)
        for name, value in {
            "content-type": content_type,
            **answer.headers,
            "content-length": str(len(content)),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        """The request's body; Go's clients send an upload in chunks (RFC 9112, section 7.1)."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet: what was asked stands in `Service.asked`."""
