"""HTTP requests with a limit on their whole time, whatever the server sends in between.

httpx limits the time of a single read. A server that sends the status line, the headers, interim
responses or the size of a chunk byte by byte would keep a request open for ever.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx


class TimeLimitExceeded(Exception):
    """The answer was not whole within the limit."""


class TimeLimitedHttp:
    """Sends GET requests for several threads. Redirects are returned, not followed.

    Args:
        make_client: makes an httpx client; each thread has its own, so that a request that takes
            too long ends no other.
    """

    def __init__(self, make_client: Callable[[], httpx.Client]) -> None:
        self._make_client = make_client
        self._of_thread = threading.local()
        self._clients: list[httpx.Client] = []
        self._client()

    def close(self) -> None:
        """Close the connections of all threads."""
        for client in self._clients:
            client.close()

    @contextmanager
    def get(
        self, url: str, params: Mapping[str, str | int] | None, seconds: float
    ) -> Iterator[httpx.Response]:
        """Open an answer whose body has to be read within the block.

        Args:
            url: the address.
            params: query parameters.
            seconds: limit from the request to the end of the block.

        Raises:
            TimeLimitExceeded: the limit has passed.
        """
        client, request = self._client(), _LimitedRequest(self._of_thread)
        deadline = time.monotonic() + seconds
        timer = threading.Timer(seconds, request.end)
        # a command that is interrupted does not wait for it
        timer.daemon = True
        timer.start()
        try:
            with client.stream(
                "GET", url, params=params, extensions={"trace": request.trace}
            ) as response:
                yield response
        except httpx.TransportError as error:
            if time.monotonic() >= deadline:
                raise TimeLimitExceeded from error
            raise
        finally:
            timer.cancel()
        # an answer without a length ends where its connection ends
        if time.monotonic() >= deadline:
            raise TimeLimitExceeded

    def _client(self) -> httpx.Client:
        client: httpx.Client | None = getattr(self._of_thread, "client", None)
        if client is None:
            client = self._of_thread.client = self._make_client()
            self._clients.append(client)
        return client


class _LimitedRequest:
    """One request, which another thread can end.

    Args:
        of_thread: keeps the open connection of this thread from one request to the next.
    """

    def __init__(self, of_thread: threading.local) -> None:
        self._of_thread = of_thread
        self._stream: Any = getattr(of_thread, "stream", None)

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Record a new connection (httpcore's extension `trace`)."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._stream = self._of_thread.stream = info["return_value"]

    def end(self) -> None:
        """Shut the connection down, which ends the read that waits for it."""
        connection = self._stream.get_extra_info("socket") if self._stream else None
        if connection is not None:
            # the method of ssl.SSLSocket would also change the object that the other thread uses
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
