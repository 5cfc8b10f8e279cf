"""A TCP proxy for PostgreSQL that is cut in mid-stream or made slow on request.

`cut_after` ends all connections when a number of bytes has passed in one direction. Later
connections pass, unless the proxy stays down.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Direction = Literal["to_server", "to_client"]

CHUNK_BYTES = 4096


class CutProxy:
    """Listens on a free port of 127.0.0.1 and connects to `host`:`port`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._armed: Direction | None = None
        self._left = 0
        self._stays_down = False
        self.was_cut = threading.Event()
        # before each piece of CHUNK_BYTES, in both directions
        self.delay_seconds = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(
        self, bytes_passed: int, direction: Direction, *, stays_down: bool = False
    ) -> None:
        """Schedule the cut.

        Args:
            bytes_passed: number of bytes; those that reach the limit are not passed on.
            direction: counted direction.
            stays_down: reject all later connections.
        """
        with self._lock:
            self._armed, self._left, self._stays_down = direction, bytes_passed, stays_down

    def disarm(self) -> None:
        """Take a scheduled cut back."""
        with self._lock:
            self._armed = None

    def close(self) -> None:
        self._listener.close()
        with self._lock:
            self._cut_all()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                with self._lock:
                    if self._stays_down and self.was_cut.is_set():
                        client.close()
                        continue
                    server = socket.create_connection(self._target)
                    self._open |= {client, server}
                for source, sink, direction in (
                    (client, server, "to_server"),
                    (server, client, "to_client"),
                ):
                    threading.Thread(
                        target=self._pass_on, args=(source, sink, direction), daemon=True
                    ).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        with suppress(OSError):  # one side is gone, and so is the other then
            while (chunk := source.recv(CHUNK_BYTES)) and self._may_pass(len(chunk), direction):
                time.sleep(self.delay_seconds)
                sink.sendall(chunk)
        with self._lock:
            for side in {source, sink} & self._open:
                self._open.discard(side)
                _end(side)

    def _may_pass(self, size: int, direction: Direction) -> bool:
        with self._lock:
            if self._armed != direction:
                return True
            self._left -= size
            if self._left > 0:
                return True
            self._armed = None
            self.was_cut.set()
            self._cut_all()
            return False

    def _cut_all(self) -> None:
        for side in self._open:
            _end(side)
        self._open.clear()


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # it was never connected, or is closed already
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def cut_proxy(host: str, port: int) -> Iterator[CutProxy]:
    """Yield a proxy that ends with the block."""
    proxy = CutProxy(host, port)
    try:
        yield proxy
    finally:
        proxy.close()
