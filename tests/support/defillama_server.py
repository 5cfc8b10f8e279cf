"""Runs a local HTTP server with DefiLlama's protocol and its failures, for the ingest tests.

It serves pools, charts and price records on 127.0.0.1, records the requests, and returns the
failures of an address before its answer. The price chart follows defillama-server (coins/src,
getCoinsChart): the record nearest to each requested time within searchWidth, at most 500 points a
request.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

DAY = 86_400

SEARCH_WIDTHS = {"m": 60, "h": 3600, "d": DAY}


@dataclass(frozen=True)
class Failure:
    """A wrong response.

    kind: `whole` has another status or body, `cut` half of a body that is announced as whole,
    `truncated` half a body announced as such, `stalled` 5 bytes and then nothing, `trickled` comes
    byte by byte, and in `raw` the body is the whole response with its status line.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    kind: str = "whole"


CUT = Failure(kind="cut")
TRUNCATED = Failure(kind="truncated")
STALLED = Failure(kind="stalled")


@dataclass
class DefiLlamaServer:
    """Contents, failures and requests of the server.

    `failures[path]` are sent once each, in order; `always[path]` every time.
    """

    pools: list[dict[str, Any]] = field(default_factory=list)
    charts: dict[str, list[Any]] = field(default_factory=dict)
    prices: dict[str, dict[int, float]] = field(default_factory=dict)
    failures: dict[str, list[Failure]] = field(default_factory=lambda: defaultdict(list))
    always: dict[str, Failure] = field(default_factory=dict)
    down_after_charts: int | None = None
    url: str = ""
    requests: list[str] = field(default_factory=list)
    most_at_once: int = 0
    meet: threading.Barrier | None = None
    release: threading.Event = field(default_factory=threading.Event)
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def requested_charts(self) -> list[str]:
        """Return pool ids in the order in which their charts were requested."""
        return [
            unquote(path.removeprefix("/chart/"))
            for path in self.requests
            if path.startswith("/chart/") and "coingecko" not in path
        ]

    def price_requests(self) -> list[dict[str, str]]:
        queries = [urlsplit(path).query for path in self.requests if "coingecko" in path]
        return [_first_values(query) for query in queries]

    def failure(self, path: str) -> Failure | None:
        with self._lock:
            if (
                self.down_after_charts is not None
                and len(self.requested_charts()) > self.down_after_charts
            ):
                return Failure(status=503)
            return self.failures[path].pop(0) if self.failures[path] else self.always.get(path)

    def answer(self, path: str, query: Mapping[str, str]) -> tuple[int, Any]:
        if path == "/pools":
            return 200, {"status": "success", "data": self.pools}
        name = unquote(path.removeprefix("/chart/"))
        if name.startswith("coingecko:"):
            return self._price_chart(name.split(","), query)
        if name in self.charts:
            return 200, {"status": "success", "data": self.charts[name]}
        return 404, {"message": "not found"}

    def _price_chart(self, coins: list[str], query: Mapping[str, str]) -> tuple[int, Any]:
        start, span, width = int(query["start"]), int(query["span"]), query["searchWidth"]
        if len(coins) * span > 500 or query["period"] != "1d":
            return 400, {
                "message": f"Requested {len(coins) * span} data points exceeds the maximum of 500"
            }
        seconds = int(width[:-1]) * SEARCH_WIDTHS[width[-1]]
        charts = {}
        moments = range(start, start + span * DAY, DAY)
        for coin in coins:
            records = self.prices.get(coin, {})
            near = _nearest_records(records, moments, seconds)
            if near:
                charts[coin] = {
                    "symbol": coin[:3],
                    "confidence": 0.99,
                    "prices": [{"timestamp": moment, "price": records[moment]} for moment in near],
                }
        return 200, {"coins": charts}

    def enter(self, target: str) -> None:
        with self._lock:
            self.requests.append(target)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)

    def leave(self) -> None:
        with self._lock:
            self._at_once -= 1


def _first_values(query: str) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(query).items()}


def _nearest_records(records: Mapping[int, float], moments: range, seconds: int) -> list[int]:
    """Return the record nearest to each moment, in order, if one of the moments is within
    `seconds` of it.
    """
    if not records:
        return []
    near = []
    for nearest in {min(records, key=lambda record: abs(record - moment)) for moment in moments}:
        if min(abs(nearest - moment) for moment in moments) <= seconds:
            near.append(nearest)
    return sorted(near)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: DefiLlamaServer

    def do_GET(self) -> None:
        self.state.enter(self.path)
        try:
            self._serve()
        except OSError:
            # the client has disconnected, as an interrupted pull does
            self.close_connection = True
        finally:
            self.state.leave()

    def _serve(self) -> None:
        address = urlsplit(self.path)
        if (
            self.state.meet
            and address.path.startswith("/chart/")
            and "coingecko" not in address.path
        ):
            self.state.meet.wait(timeout=20)
        status, document = self.state.answer(address.path, _first_values(address.query))
        failure = self.state.failure(address.path)
        body = json.dumps(document).encode()
        if failure is None:
            self._send(status, {}, body, len(body))
        elif failure.kind == "stalled":
            self._send(200, {}, body[:5], len(body))
            self.state.release.wait(timeout=60)
            self.close_connection = True
        elif failure.kind == "cut":
            self._send(200, {}, body[: len(body) // 2], len(body))
            self.close_connection = True
        elif failure.kind == "truncated":
            self._send(200, {}, body[: len(body) // 2], len(body) // 2)
        elif failure.kind == "trickled":
            self._trickle(failure.body or body)
        elif failure.kind == "raw":
            self.wfile.write(failure.body or b"")
            self.close_connection = True
        else:
            body = failure.body if failure.body is not None else b'{"message": "no"}'
            self._send(failure.status, failure.headers, body, len(body))

    def _trickle(self, body: bytes) -> None:
        self._send(200, {}, b"", len(body))
        for position in range(len(body)):
            self.wfile.write(body[position : position + 1])
            if self.state.release.wait(timeout=0.05):
                break
        self.close_connection = True

    def _send(self, status: int, headers: Mapping[str, str], body: bytes, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing, because pytest's output belongs to the tests."""


@contextmanager
def running() -> Iterator[DefiLlamaServer]:
    """Run a server on a free port of 127.0.0.1 until the block ends."""
    state = DefiLlamaServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    http.daemon_threads = True
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(
        target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield state
    finally:
        state.release.set()
        http.shutdown()
        http.server_close()
        thread.join()
