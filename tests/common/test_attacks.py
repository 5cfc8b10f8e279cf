"""Attacks of a web page, another account of the machine or a changed bucket on the local cloud and
its releases.

Each attack succeeded before its defence existed. The scenario `changed_release` tests that the
workflow rejects a changed release; test_deployment.py and test_terraform_apply.py test that gcloud
and Terraform's provider send the token.
"""

from __future__ import annotations

import ast
import http.client
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from emulator.services import connection_limit, http_server
from emulator.services.fake_secret_manager import FakeSecretManager
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from emulator.services.http_service import Service
from emulator.services.object_store import Conditions
from tests.support.fault_runs import until
from tests.support.processes import PROJECT

TOKEN = "the-token-of-this-test"
SECRET = "projects/p/secrets/database-password/versions/1"
PASSWORD = "the-password-of-this-test"
PATH = f"/v1/{SECRET}:access"


@dataclass
class Attacked:
    """A server like the local cloud's; the answer of its service is the database password."""

    url: str
    service: FakeSecretManager

    @property
    def place(self) -> str:
        return urlsplit(self.url).netloc

    def send(self, lines: bytes, body: bytes = b"") -> bytes:
        """Send bytes and return the answer."""
        address = ("127.0.0.1", int(self.place.partition(":")[2]))
        with socket.create_connection(address, timeout=30) as line:
            line.sendall(lines + body)
            answer = b""
            with suppress(ConnectionError):
                while chunk := line.recv(65536):
                    answer += chunk
            return answer

    def status(self, *headers: str, target: str = PATH, body: bytes = b"") -> int:
        """Return the status of a POST with these headers."""
        lines = "".join(f"{line}\r\n" for line in (f"POST {target} HTTP/1.1", *headers))
        answer = self.send(lines.encode() + b"Connection: close\r\n\r\n", body)
        return int(answer.split(b" ", 2)[1])

    @property
    def good(self) -> tuple[str, ...]:
        return (f"Host: {self.place}", f"Authorization: Bearer {TOKEN}")


class _AnyMethod(FakeSecretManager):
    """Handler that also answers POST, which a page can send with a body."""

    def __init__(self) -> None:
        super().__init__({SECRET: PASSWORD.encode()})
        self.route("POST", r"/v1/(?P<name>projects/[^:]+):access", self._access)


@pytest.fixture
def attacked() -> Iterator[Attacked]:
    service = _AnyMethod()
    with serving([service], token=TOKEN) as url:
        yield Attacked(url, service)


def test_server_accepts_only_its_token(attacked: Attacked) -> None:
    host = f"Host: {attacked.place}"
    assert attacked.status(*attacked.good) == 200
    attacked.service.requests.clear()
    for headers in (
        (host,),
        (host, "Authorization: Bearer"),
        (host, "Authorization: Bearer wrong"),
        (host, f"Authorization: Basic {TOKEN}"),
        (host, f"Cookie: token={TOKEN}"),
    ):
        assert attacked.status(*headers) == 401, headers
    assert attacked.status(host, target=f"{PATH}?access_token={TOKEN}") == 401
    assert attacked.service.requests == []


def test_rejects_other_hosts_and_browsers_with_a_valid_token(
    attacked: Attacked,
) -> None:
    port, token = attacked.place.partition(":")[2], f"Authorization: Bearer {TOKEN}"
    hosts = ("evil.test", f"evil.test:{port}", f"localhost:{port}", "127.0.0.1", f"[::1]:{port}")
    for host in hosts:
        assert attacked.status(f"Host: {host}", token) == 403, host
    assert attacked.status(token) == 403
    assert attacked.status(*attacked.good, f"Host: evil.test:{port}") == 403
    assert attacked.status(*attacked.good, target=f"http://evil.test:{port}{PATH}") == 403
    assert attacked.status(*attacked.good, target="http://[") == 400
    for header in (
        "Origin: http://evil.test",
        "Origin: null",
        f"Origin: {attacked.url}",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Sec-Fetch-Site: none",
        "sec-fetch-mode: no-cors",
    ):
        assert attacked.status(*attacked.good, header) == 403, header
    assert attacked.service.requests == []


SIZES = (
    ("Content-Length: -1", b"", 400),
    ("Content-Length: abc", b"", 400),
    ("Content-Length: +5", b"12345", 400),
    ("Content-Length : 5", b"12345", 400),
    ("no header\r\nOrigin: http://evil.example", b"", 400),
    ("Content-Length: 10000000000", b"x", 413),
    (f"Content-Length: {'9' * 4000}", b"x", 400),
    ("Content-Length: 5\r\nContent-Length: 6", b"12345", 400),
    ("Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", 400),
    ("Transfer-Encoding: gzip, chunked", b"0\r\n\r\n", 400),
    ("Transfer-Encoding: chunked", b"-1\r\n", 400),
    ("Transfer-Encoding: chunked", b"0x5\r\n", 400),
    ("Transfer-Encoding: chunked", b"\r\n", 400),
    ("Transfer-Encoding: chunked", b"1" * 100_000, 400),
    ("Transfer-Encoding: chunked", b"2540be400\r\nx", 413),
    ("Transfer-Encoding: chunked", b"2\r\nabc\r\n0\r\n\r\n", 400),
    ("Transfer-Encoding: chunked", b"0\r\n" + b"trailer: x\r\n" * 1000, 400),
)


def test_rejects_invalid_and_too_large_content_lengths(
    attacked: Attacked, capfd: pytest.CaptureFixture[str]
) -> None:
    for header, body, status in SIZES:
        assert attacked.status(*attacked.good, header, body=body) == status, (header, body[:20])
    assert attacked.status(f"Host: {attacked.place}", "Content-Length: 10000000000") == 401
    assert attacked.service.requests == []
    chunks = b"3;x=y\r\n{} \r\n0\r\nlast: 1\r\n\r\n"
    assert attacked.status(*attacked.good, "Transfer-Encoding: chunked", body=chunks) == 200
    assert "Traceback" not in capfd.readouterr().err


def test_limits_endless_chunked_bodies(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(http_server, "LARGEST_BODY", 1 << 20)
    chunk = b"10000\r\n" + b"x" * (1 << 16) + b"\r\n"
    head = "\r\n".join(("POST /v1/x HTTP/1.1", *attacked.good, "Transfer-Encoding: chunked"))
    bytes_sent = 0
    with socket.create_connection(("127.0.0.1", urlsplit(attacked.url).port or 0)) as line:
        line.sendall(f"{head}\r\n\r\n".encode())
        with suppress(ConnectionError):
            while bytes_sent < 64 << 20:
                line.sendall(chunk)
                bytes_sent += len(chunk)
    assert bytes_sent < 32 << 20
    assert attacked.status(*attacked.good) == 200
    assert "Traceback" not in capfd.readouterr().err


SLOW_CLIENTS = 40
PATIENCE_SECONDS = 60


def drip(line: socket.socket) -> bytes:
    """Send a byte every tenth of a second until the server closes the connection.

    Returns: what was answered. Raises: AssertionError after PATIENCE_SECONDS.
    """
    end, answer = time.monotonic() + PATIENCE_SECONDS, b""
    with suppress(ConnectionError):
        while time.monotonic() < end:
            line.sendall(b"x")
            time.sleep(0.1)
            with suppress(BlockingIOError):
                answer += line.recv(65536, socket.MSG_DONTWAIT)
        raise AssertionError(f"the server took one byte after the other, for {PATIENCE_SECONDS} s")
    return answer


@pytest.mark.parametrize("part", ["request line", "header", "body", "chunks", "refused body"])
def test_a_client_that_sends_a_byte_at_a_time_blocks_no_other_and_is_cut_off(
    part: str,
    attacked: Attacked,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """On a server as `local up` has it."""
    head = "".join(f"{line}\r\n" for line in ("POST /v1/x HTTP/1.1", *attacked.good)).encode()
    wrong = head.replace(TOKEN.encode(), b"wrong")
    beginning = {
        "request line": b"GET /",
        "header": head + b"X-Slow: ",
        "body": head + b"Content-Length: 100000\r\n\r\n",
        "chunks": head + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n",
        "refused body": wrong + b"Content-Length: 100000\r\n\r\n",
    }[part]
    address = ("127.0.0.1", urlsplit(attacked.url).port or 0)
    with ExitStack() as stack:
        for _ in range(SLOW_CLIENTS):
            stack.enter_context(socket.create_connection(address)).sendall(beginning)
        assert attacked.status(*attacked.good) == 200
    for name in ("HEADER_SECONDS", "BODY_SECONDS", "DRAIN_SECONDS"):
        monkeypatch.setattr(http_server, name, 1.0)
    with socket.create_connection(address) as line:
        line.sendall(beginning)
        answer = drip(line)
    assert answer[:12] == (b"HTTP/1.1 401" if part == "refused body" else b"")
    assert attacked.status(*attacked.good) == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_connection_that_waits_between_two_requests_is_served_again(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "HEADER_SECONDS", 0.5)
    with closing(http.client.HTTPConnection(attacked.place, timeout=30)) as client:
        for _ in range(2):
            client.request("GET", PATH, headers={"Authorization": f"Bearer {TOKEN}"})
            answer = client.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
            time.sleep(0.7)


def connected(attacked: Attacked, stack: ExitStack) -> socket.socket:
    address = ("127.0.0.1", urlsplit(attacked.url).port or 0)
    return stack.enter_context(socket.create_connection(address, timeout=30))


def server_threads() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def test_idle_connections_without_a_token_are_limited_and_block_no_client(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connection_limit, "MOST_CONNECTIONS", 20)
    before = server_threads()
    token = {"Authorization": f"Bearer {TOKEN}"}
    with ExitStack() as stack:
        client = stack.enter_context(closing(http.client.HTTPConnection(attacked.place)))
        client.request("GET", PATH, headers=token)
        assert client.getresponse().read()
        connections = [connected(attacked, stack) for _ in range(120)]
        # the oldest make room for the newest, with a reason
        answer = connections[0].recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 "), answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["status"] == "UNAVAILABLE"
        assert b"all 20 connections" in answer
        until(lambda: server_threads() - before <= 20, "the other threads have ended", 30)
        # a client on an open connection, and a new one, are served
        client.request("GET", PATH, headers=token)
        assert client.getresponse().status == 200
        assert attacked.status(*attacked.good) == 200
    until(lambda: server_threads() == before, "the threads have ended", 30)
    assert "Traceback" not in capfd.readouterr().err


def test_a_connection_too_many_is_refused_with_a_reason(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If every other one has sent the token."""
    monkeypatch.setattr(connection_limit, "MOST_CONNECTIONS", 3)
    with ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(closing(http.client.HTTPConnection(attacked.place)))
            client.request("GET", PATH, headers={"Authorization": f"Bearer {TOKEN}"})
            assert client.getresponse().read()
        assert connected(attacked, stack).recv(65536).startswith(b"HTTP/1.1 503 ")
        client.request("GET", PATH, headers={"Authorization": f"Bearer {TOKEN}"})
        assert client.getresponse().status == 200
    until(lambda: attacked.status(*attacked.good) == 200, "a place is free", 30)


def test_a_connection_that_sends_nothing_is_closed(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "HEADER_SECONDS", 0.5)
    with ExitStack() as stack:
        assert connected(attacked, stack).recv(1) == b""


def test_answers_unexpected_json_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving([FakeStorage(tmp_path, ["code"])], token=TOKEN) as url:
        server = Attacked(url, _AnyMethod())
        target = "/upload/storage/v1/b/code/o?uploadType="
        for body in (b"[" * 200_000, b"[1]", b"\xff", b'"text"'):
            size = f"Content-Length: {len(body)}"
            assert server.status(*server.good, size, target=f"{target}resumable", body=body) == 400
        body = b"--b\r\n\r\nno JSON\r\n--b\r\n\r\nx\r\n--b--"
        headers = ("Content-Type: multipart/related; boundary=b", f"Content-Length: {len(body)}")
        assert server.status(*server.good, *headers, target=f"{target}multipart", body=body) == 400
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["text/html\r\nset-cookie: a=b", "日本", "a\x00b\x1b[2J"])
def test_content_type_of_an_upload_cannot_inject_headers(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    storage = FakeStorage(tmp_path, ["code"])
    storage.store.write("code", "x", b"content", {"contentType": kind}, Conditions(), {})
    with serving([storage], token=TOKEN) as url:
        server = Attacked(url, _AnyMethod())
        lines = ("GET /storage/v1/b/code/o/x?alt=media HTTP/1.1", *server.good, "Connection: close")
        answer = server.send(("\r\n".join(lines) + "\r\n\r\n").encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"\r\nset-cookie" not in head
    assert b"\x1b" not in head
    assert body == b"content"
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.usefixtures("processes")
def test_requests_are_not_stored(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from emulator.services.http_service import Service; print(Service.keeps_requests)"
    finished = subprocess.run(
        [sys.executable, "-c", source], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert finished.stdout == "False\n"
    monkeypatch.setattr(Service, "keeps_requests", False)
    assert attacked.status(*attacked.good) == 200
    assert attacked.service.requests == []


def test_every_server_requires_a_token() -> None:
    folders = (PROJECT / "workflows", PROJECT / "emulator")
    paths = sorted(chain.from_iterable(folder.rglob("*.py") for folder in folders))
    calls = list(chain.from_iterable(_calls(path, "serving") for path in paths))
    assert len(calls) >= 3
    assert [name for name, keywords in calls if "token" not in keywords] == []
    grpc_calls = list(chain.from_iterable(_calls(path, "FakeMonitoring") for path in paths))
    assert [name for name, keywords in grpc_calls if "refusal" not in keywords] == []
    assert grpc_calls


def _calls(path: Path, function: str) -> Iterator[tuple[str, set[str | None]]]:
    """Yield the file's name and the keywords of each call of the function or method."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            names = getattr(node.func, "id", ""), getattr(node.func, "attr", "")
            if function in names:
                yield path.name, {keyword.arg for keyword in node.keywords}
