"""Host and Origin rule of the dashboard: which requests of a browser the server answers.

Without the rule, a page of another site could read the dashboard by DNS rebinding, or open a
WebSocket to it. Reads the header of a request only.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERY_ADDRESS = ("0.0.0.0", "::")

# the pages load nothing from other hosts, and no other page may show them in a frame
SECURITY_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none';"
        b" base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class HostRule:
    """ASGI middleware that refuses requests for another host, or of another site's page.

    Args:
        app: the application behind it.
        host: address that the server listens at. At EVERY_ADDRESS, all IP addresses and the name of
            this machine are accepted: DNS rebinding needs another name.
    """

    def __init__(self, app: Application, host: str) -> None:
        self._app = app
        self._names = {*LOOPBACK, host.lower()}
        self._accepts_addresses = host in EVERY_ADDRESS
        if self._accepts_addresses:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with 403."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif refusal := self._refusal(scope):
            await _refuse(scope, send, refusal)
        else:
            await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Message) -> str | None:
        hosts, origins = (_values(scope, name) for name in (b"host", b"origin"))
        if len(hosts) != 1 or not self._is_accepted(hosts[0]):
            return "the Host of this request is not this server"
        # a browser sends the origin of the page with WebSockets and with requests of scripts
        if any(urlsplit(origin).netloc.lower() != hosts[0].lower() for origin in origins):
            return "requests of other sites' pages are refused"
        return None

    def _is_accepted(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._names or (self._accepts_addresses and _is_address(name))


def _values(scope: Message, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _refuse(scope: Message, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        # before the handshake: the server answers with 403
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *SECURITY_HEADERS]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *SECURITY_HEADERS]
        await send(message)

    return sending
