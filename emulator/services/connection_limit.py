"""Limits the connections of a server on loopback, which every account of the machine can open. No
account without the token can take all of them: a new connection takes the place of the oldest one
that has not sent an accepted request.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from emulator.services.http_service import ApiError

MOST_CONNECTIONS = 128
"""Each has a thread and a descriptor, of which some systems allow a process 256."""


class ConnectionLimit:
    """The open connections of a server, at most MOST_CONNECTIONS. Methods are thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # in the order of their start
        self._waiting: dict[socket.socket, None] = {}
        self._accepted: set[socket.socket] = set()

    def add(self, connection: socket.socket) -> bool:
        """Add a new connection; return whether there is a place for it.

        The connection in whose place it comes, or the new one itself, gets a 503.
        """
        with self._lock:
            if len(self._waiting) + len(self._accepted) >= MOST_CONNECTIONS:
                oldest = next(iter(self._waiting), None)
                # its thread reads the end, and closes it
                _refuse(connection if oldest is None else oldest)
                if oldest is None:
                    return False
                del self._waiting[oldest]
            self._waiting[connection] = None
            return True

    def accept(self, connection: socket.socket) -> bool:
        """Keep the place of a connection that has sent an accepted request; return False if another
        one has its place by now.
        """
        with self._lock:
            if connection in self._waiting:
                del self._waiting[connection]
                self._accepted.add(connection)
            return connection in self._accepted

    def remove(self, connection: socket.socket) -> None:
        """Remove a connection, before it is closed."""
        with self._lock:
            self._waiting.pop(connection, None)
            self._accepted.discard(connection)


def _refuse(connection: socket.socket) -> None:
    error = ApiError(
        503,
        f"all {MOST_CONNECTIONS} connections of this server are in use, and one without an accepted"
        " request makes room for a new one: close idle connections and try again",
    )
    content, content_type = error.answer.encoded()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\n"
        f"content-type: {content_type}\r\n"
        "retry-after: 1\r\n"
        "connection: close\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    # the client may have closed the connection, or not read what it got before
    with suppress(OSError):
        connection.send(head.encode() + content, socket.MSG_DONTWAIT)
        connection.shutdown(socket.SHUT_RDWR)
