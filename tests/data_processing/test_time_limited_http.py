"""Servers whose answers never end, in each part of an answer. Needs no database."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from common.errors import InputError, SourceUnavailable
from config_spark import load_settings
from data_processing.ingest.defillama.client import (
    DefiLlama,
    RetryPolicy,
    retry_after_seconds,
)

OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def sending(first: bytes, repeated: bytes = b"") -> Iterator[Callable[[], DefiLlama]]:
    """Serve `first`, and then `repeated` for ever, to each connection; yields a client's maker."""
    is_over = threading.Event()

    def send(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            try:
                connection.sendall(first)
                while repeated and not is_over.wait(0.02):
                    connection.sendall(repeated)
            except OSError:
                return

    def accept() -> None:
        while not is_over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=send, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=accept, daemon=True).start()
        settings = load_settings(_env_file=None, defillama_yields_url=url)
        policy = RetryPolicy(attempts=2, first_pause=0.01, whole_answer=1.0)
        try:
            yield lambda: DefiLlama(settings, retry_policy=policy)
        finally:
            is_over.set()
            listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("first", "repeated"),
    [
        (b"HTTP/1.1 200 ", b"O"),
        (OK + b"X: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
        (OK + b"Content-Length: 100000\r\n\r\n", b" "),
        (OK + b'\r\n{"data": []}', b" "),
    ],
    ids=["status line", "header", "interim answers", "chunk size", "body", "no length"],
)
def test_endless_answer_ends_with_the_limit(first: bytes, repeated: bytes) -> None:
    with sending(first, repeated) as client, pytest.raises(SourceUnavailable, match="not whole"):
        client().chart("a")


def test_endless_body_of_a_refusal_or_redirect_is_not_read() -> None:
    endless = b"Content-Length: 100000000000\r\n\r\n"
    with (
        sending(b"HTTP/1.1 404 Not Found\r\n" + endless, b"x" * 1000) as client,
        pytest.raises(InputError, match="answered HTTP 404"),
    ):
        client().chart("a")
    with (
        sending(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n" + endless, b"x" * 1000) as client,
        pytest.raises(InputError, match="redirects 5 times"),
    ):
        client().chart("a")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (b"Location: http://xn--/", "leads nowhere"),
        (b"Content-Encoding: gzip, gzip", "compressed twice"),
        (b"Content-Encoding: gzip\r\nContent-Encoding: gzip", "compressed twice"),
    ],
)
def test_rejects_odd_headers(headers: bytes, message: str) -> None:
    answer = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n" + headers + b"\r\n\r\n"
    with sending(answer) as client, pytest.raises(InputError, match=message):
        client().chart("a")


@pytest.mark.parametrize("year", ["99999", "9" * 20])
def test_date_beyond_the_calendar_is_no_retry_after(year: str) -> None:
    assert retry_after_seconds(f"Mon, 1 Jan {year} 00:00:00 GMT", datetime.now(UTC)) is None
