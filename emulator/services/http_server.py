"""HTTP server on loopback that the fakes share. All services answer at one address. Each connection
has a thread; their number is limited, and a client cannot keep one for ever.
"""

from __future__ import annotations

import hmac
import io
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from email.errors import MissingHeaderBodySeparatorDefect
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from common.plain_text import on_one_line
from emulator.services.connection_limit import ConnectionLimit
from emulator.services.http_service import Answer, ApiError, ConnectionCut, Request, Service

log = logging.getLogger(__name__)

LARGEST_BODY = 256 * 1024 * 1024
"""Bytes of one request's body; clients send larger uploads in parts."""
LONGEST_LINE = 1024
"""Bytes of a chunk's size line, and of a trailer."""
MOST_TRAILERS = 100
DRAINED_BYTES = 1024 * 1024
"""Bytes read of a rejected request, so that a client that sends its body first gets the response.
"""
BROWSER_HEADERS = re.compile(r"(?i)(origin$|sec-fetch-)")
"""Headers that a page's script can neither set nor remove
(https://developer.mozilla.org/docs/Glossary/Forbidden_request_header).
"""
IDLE_SECONDS = 300.0
"""Between two requests on one connection, the first of which was accepted."""
HEADER_SECONDS = 30.0
BODY_SECONDS = 300.0
"""Limits of a whole header and a whole body; the first header of a connection has this time from
its start. A limit of each read alone would let a client that sends one byte a second keep its
thread for ever.
"""
DRAIN_SECONDS = 2.0


@contextmanager
def serving(
    services: Sequence[Service],
    port: int = 0,
    *,
    token: str | None = None,
    hosts: Collection[str] = (),
) -> Iterator[str]:
    """Serve on 127.0.0.1 while the block runs.

    Args:
        services: Asked in this order.
        port: TCP port; 0 selects a free one.
        token: Required bearer token; None requires none, for tests of a fake that starts nothing.
        hosts: Further host names that the server accepts, as a proxy needs.

    Yields:
        The address, http://127.0.0.1:PORT.
    """
    server = _Server(services, port, token, hosts)
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
    # a client may keep its connection open
    block_on_close = False
    # socketserver's default of 5 drops simultaneous connections, which clients retry after 1, 2,
    # 4 s and so on
    request_queue_size = 128

    def __init__(
        self, services: Sequence[Service], port: int, token: str | None, hosts: Collection[str]
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.services = services
        self.token = token
        self.connections = ConnectionLimit()
        self.hosts = {f"127.0.0.1:{self.server_address[1]}", *hosts}

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the thread of a connection, unless there is no place for it."""
        if self.connections.add(request):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self.connections.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error unless the client closed the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _TimedReader(io.RawIOBase):
    """Bytes of a connection, with a time limit: a read after it raises TimeoutError."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self.limit(HEADER_SECONDS)

    def limit(self, seconds: float) -> None:
        """Limit the time for everything that is read from now on, in seconds."""
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._end - time.monotonic()
        if left <= 0.0:
            raise TimeoutError("the client sends too slowly")
        # the socket's timeout holds for one read; writes get the idle limit back below
        self._connection.settimeout(left)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(IDLE_SECONDS)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # header and body are two writes; with Nagle's algorithm the second waits for the client's ACK
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        # the base class reads without a limit
        self.rfile.close()
        self._reader = _TimedReader(self.connection)
        self._is_accepted = False
        self.rfile = self._buffer = io.BufferedReader(self._reader)

    def handle_one_request(self) -> None:
        """Handle one request; close an idle connection."""
        # the base class itself closes the connection at a TimeoutError of a later read
        if self._is_accepted:
            self._reader.limit(IDLE_SECONDS)
        try:
            self._buffer.peek(1)
        except TimeoutError:
            self.close_connection = True
            return
        if self._is_accepted:
            self._reader.limit(HEADER_SECONDS)
        super().handle_one_request()

    def _serve(self) -> None:
        self._reader.limit(BODY_SECONDS)
        try:
            if rejection := self._rejection():
                raise rejection
            self._is_accepted = self.server.connections.accept(self.connection)
            if not self._is_accepted:
                raise ConnectionCut
            answer = self._answer(self._body())
        except ConnectionCut:
            self.close_connection = True
            return
        except ApiError as error:
            self._reject(error)
            return
        self._send(answer)

    def _rejection(self) -> ApiError | None:
        """Return why a request is rejected before its body is read; None if it is accepted."""
        # Python ignores the headers after a line that is none, such as `Content-Length : 5`
        if MissingHeaderBodySeparatorDefect in map(type, self.headers.defects):
            return ApiError(400, "a line of the header is no header")
        # every account and web page of this machine can reach loopback. By DNS rebinding a page
        # could read the response, but its browser then sends another host or an origin
        try:
            target_host = urlsplit(self.path).netloc
        except ValueError:
            return ApiError(400, "the request's target is no address")
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not {*hosts, *filter(None, [target_host])} <= self.server.hosts:
            return ApiError(403, "the Host of this request is not this server")
        if any(BROWSER_HEADERS.match(name) for name in self.headers):
            return ApiError(403, "requests of a browser are refused")
        if self.server.token is None:
            return None
        kind, _, credential = self.headers.get("Authorization", "").partition(" ")
        # in constant time: any account of this machine may try
        if kind.lower() == "bearer" and hmac.compare_digest(
            credential.strip().encode(), self.server.token.encode()
        ):
            return None
        return ApiError(
            401,
            "no valid bearer token; GOOGLE_API_TOKEN_FILE names the file that has it, as"
            " `local up` prints it",
        )

    def _answer(self, body: bytes) -> Answer:
        """Return the response of the first service with a route for the request.

        Raises:
            ConnectionCut: The handler cuts the connection.
        """
        parts = urlsplit(self.path)
        request = Request(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
            body,
        )
        answers = (service.answer(request) for service in self.server.services)
        try:
            answer = next((answer for answer in answers if answer is not None), None)
        except ConnectionCut:
            raise
        except Exception:
            # an unexpected error may be the request's fault, so the server continues
            log.exception("%s %s", self.command, parts.path)
            return ApiError(500, f"{self.command} {parts.path} failed here; see the log").answer
        unknown = f"{self.command} {parts.path} is no method of a service here"
        return answer or ApiError(404, unknown).answer

    def _reject(self, error: ApiError) -> None:
        """Send an error and close the connection, whose next bytes may be the rest of a body."""
        self.close_connection = True
        self._reader.limit(DRAIN_SECONDS)
        self._send(error.answer)
        # closing with unread bytes would reset the connection, and the client lose the response
        try:
            self.connection.shutdown(socket.SHUT_WR)
            left = DRAINED_BYTES
            while left > 0 and (read := self.rfile.read1(min(left, 1 << 16))):
                left -= len(read)
        except OSError:
            log.debug("a rejected client sent no more")

    def _send(self, answer: Answer) -> None:
        content, content_type = answer.encoded()
        self.send_response(answer.status)
        closing = {"connection": "close"} if self.close_connection else {}
        for name, value in {
            "content-type": content_type,
            **answer.headers,
            **closing,
            "content-length": str(len(content)),
        }.items():
            # a value may come from an upload; a line end in it would add a header
            self.send_header(
                name, on_one_line(value).encode("latin-1", "replace").decode("latin-1")
            )
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        """Read the body, of at most LARGEST_BODY bytes.

        Raises:
            ApiError: 400 or 413.
        """
        lengths = self.headers.get_all("Content-Length", [])
        codings = self.headers.get_all("Transfer-Encoding", [])
        # both together are how requests are smuggled (RFC 9112, section 6.1)
        if codings:
            if lengths or [coding.strip().lower() for coding in codings] != ["chunked"]:
                raise ApiError(400, "the only Transfer-Encoding here is chunked, without a length")
            return self._chunks()
        if not lengths:
            return b""
        if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,20}", lengths[0]):
            raise ApiError(400, "Content-Length is no number of bytes")
        return self._read(int(lengths[0]), LARGEST_BODY)

    def _chunks(self) -> bytes:
        """Read a chunked body (RFC 9112, section 7.1), which Go's clients send."""
        body = bytearray()
        while size := self._chunk_size():
            body += self._read(size, LARGEST_BODY - len(body))
            if self.rfile.readline(LONGEST_LINE).strip():
                raise ApiError(400, "a chunk is longer than its size says")
        for _ in range(MOST_TRAILERS):
            if not self.rfile.readline(LONGEST_LINE).strip():
                return bytes(body)
        raise ApiError(400, f"more than {MOST_TRAILERS} trailers")

    def _chunk_size(self) -> int:
        line = self.rfile.readline(LONGEST_LINE).partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", line):
            raise ApiError(400, "a chunk's size is no hexadecimal number")
        return int(line, 16)

    def _read(self, size: int, most: int) -> bytes:
        if size > most:
            raise ApiError(413, f"a request has {LARGEST_BODY} bytes at most")
        content = self.rfile.read(size)
        if len(content) < size:
            raise ConnectionCut
        return content

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing: the client reports paths and errors."""
