"""The Host and Origin rule of the dashboard, without a server: which requests pass."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from reporting.dashboard.host_rule import HostRule


def _passes(listens_at: str, kind: str = "http", **headers: str) -> bool:
    """Return whether the application behind the rule gets a request with these headers."""
    passed: list[str] = []
    sent: list[dict[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    async def receive() -> Any:
        raise AssertionError("the rule reads the header only")

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "headers": pairs}
    asyncio.run(HostRule(application, listens_at)(scope, receive, send))
    if not passed:
        first = sent[0]
        assert first.get("status") == 403 or first["type"] == "websocket.close"
    return bool(passed)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_only_own_names_pass(kind: str) -> None:
    for host in ("127.0.0.1:8501", "localhost:8501", "LOCALHOST:8501", "[::1]:8501"):
        assert _passes("127.0.0.1", kind, host=host), host
        assert _passes("127.0.0.1", kind, host=host, origin=f"http://{host}"), host
    for host in ("evil.test", "evil.test:8501", "127.0.0.1.evil.test", "10.0.0.7:8501", "", "[::1"):
        assert not _passes("127.0.0.1", kind, host=host), host


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_pages_of_other_sites_are_refused(kind: str) -> None:
    own = "127.0.0.1:8501"
    for origin in ("http://evil.test", "null", "http://127.0.0.1:9999", "http://localhost:8501"):
        assert not _passes("127.0.0.1", kind, host=own, origin=origin), origin


def test_another_address_accepts_its_own_name_only() -> None:
    assert _passes("dash.example.com", host="dash.example.com:8501")
    assert not _passes("dash.example.com", host="other.example.com:8501")


def test_every_address_accepts_addresses_and_this_machine() -> None:
    for host in ("10.0.0.7:8501", "[fe80::1]:8501", socket.gethostname()):
        assert _passes("0.0.0.0", host=host), host
    assert not _passes("0.0.0.0", host="rebound.evil.test")


def test_a_request_without_one_host_is_refused() -> None:
    assert not _passes("127.0.0.1")
