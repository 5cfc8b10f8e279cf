"""A TCP proxy for PostgreSQL that reads the startup message of each connection and may change it,
like a pooler, or answer with an error.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

PROTOCOL_3 = 196608
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
ENCRYPTION_REQUESTS = {SSL_REQUEST, GSS_REQUEST}
CHUNK_BYTES = 65536

Parameters = dict[str, str]
Answer = Parameters | bytes
"""Parameters for the server, or an answer in place of the server's."""


def error_message(fields: Mapping[str, str], encoding: str = "utf-8") -> bytes:
    """Return an ErrorResponse; the fields have letters as names (PostgreSQL manual, "Error and
    Notice Message Fields").
    """
    text = "".join(f"{letter}{value}\0" for letter, value in fields.items())
    body = text.encode(encoding) + b"\0"
    return b"E" + struct.pack("!I", len(body) + 4) + body


def listens(port: int) -> bool:
    """Return whether a server listens on that port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def unchanged(parameters: Parameters) -> Answer:
    return parameters


@contextmanager
def startup_proxy(
    target: tuple[str, int],
    answer: Callable[[Parameters], Answer] = unchanged,
    tls: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """Yield the port of a proxy.

    Args:
        target: host and port of the server.
        answer: called with the parameters of every connection.
        tls: context for clients that ask for TLS.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener, target, answer, tls), daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        # a close alone does not wake the thread that waits in accept
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _accept(listener: socket.socket, *arguments: Any) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, *arguments), daemon=True).start()


def _serve(
    client: socket.socket,
    target: tuple[str, int],
    answer: Callable[[Parameters], Answer],
    tls: ssl.SSLContext | None,
) -> None:
    with suppress(OSError):
        body = _read_message(client)
        while (code := struct.unpack("!I", body[:4])[0]) in ENCRYPTION_REQUESTS:
            encrypted = tls if code == SSL_REQUEST else None
            client.sendall(b"S" if encrypted else b"N")
            if encrypted:
                client = encrypted.wrap_socket(client, server_side=True)
            body = _read_message(client)
        if code == PROTOCOL_3:  # and no request to cancel
            texts = body[4:].decode().rstrip("\0").split("\0")
            decided = answer(dict(zip(texts[::2], texts[1::2], strict=True)))
            if isinstance(decided, bytes):
                client.sendall(decided)
                return
            pairs = "".join(f"{name}\0{value}\0" for name, value in decided.items())
            body = body[:4] + pairs.encode() + b"\0"
        with socket.create_connection(target) as server:
            server.sendall(struct.pack("!I", len(body) + 4) + body)
            _pass_on(client, server)
    client.close()


def _read_message(source: socket.socket) -> bytes:
    size = struct.unpack("!I", _read(source, 4))[0]
    return _read(source, size - 4)


def _read(source: socket.socket, size: int) -> bytes:
    read = b""
    while len(read) < size:
        chunk = source.recv(size - len(read))
        if not chunk:
            raise ConnectionError("the client has gone")
        read += chunk
    return read


def _pass_on(client: socket.socket, server: socket.socket) -> None:
    """Copy data until one side closes. In one thread, because two may not share a TLS socket."""
    other = {client: server, server: client}
    while True:
        for source in select.select([client, server], [], [])[0]:
            chunk = source.recv(CHUNK_BYTES)
            while isinstance(source, ssl.SSLSocket) and source.pending():
                chunk += source.recv(CHUNK_BYTES)
            if not chunk:
                return
            other[source].sendall(chunk)
