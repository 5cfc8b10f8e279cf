"""The HTML page that loads Streamlit: its title, language, icon and the server's address.

Streamlit sends the same page for the address of every page of the dashboard. Without the server's
address in it, the browser would look for the server below `/pool` first, and report two failed
requests.
"""

from __future__ import annotations

from reporting.dashboard.host_rule import Application, Message, Receive, Send

HEAD = b"""<html lang="en">
  <head>
    <script>window.__streamlit = {BACKEND_BASE_URL: location.origin + "/"};</script>"""
OPENING = b"""<html lang="en">
  <head>"""
TITLE, OWN_TITLE = b"<title>Streamlit</title>", b"<title>YieldSpark</title>"


class IndexPage:
    """ASGI middleware that changes HTML pages of the application behind it."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass the request on, and change the response if it is a page."""
        if scope["type"] != "http" or not _asks_for_page(scope):
            await self._app(scope, receive, send)
            return
        headers = [pair for pair in scope["headers"] if pair[0] not in _CONDITIONS]
        await self._app({**scope, "headers": headers}, receive, _Changed(send))


# a compressed page, or none because the browser has it, could not be changed
_CONDITIONS = (b"accept-encoding", b"if-none-match", b"if-modified-since", b"range")


def _asks_for_page(scope: Message) -> bool:
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
    return scope["method"] == "GET" and b"text/html" in accepted


class _Changed:
    """Sends a response once its body is complete."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        headers = dict(self._start["headers"])
        if headers.get(b"content-type", b"").startswith(b"text/html"):
            self._body = self._body.replace(OPENING, HEAD, 1).replace(TITLE, OWN_TITLE, 1)
            headers[b"content-length"] = str(len(self._body)).encode()
            headers.pop(b"etag", None)
        await self._send({**self._start, "headers": list(headers.items())})
        await self._send({"type": "http.response.body", "body": self._body})
