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
    """One wrong answer: another status or body (`whole`), half a body announced as whole (`cut`) or
    as half (`truncated`), 5 bytes (`held`), a body byte by byte (`trickled`), a body that is the
    whole answer with its status line (`raw`).
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    kind: str = "whole"


CUT = Failure(kind="cut")
TRUNCATED = Failure(kind="truncated")
HELD = Failure(kind="held")


@dataclass
class DefiLlamaServer:
    """What the server knows, shows and saw. `failures[path]` are shown once each, in order;
    `always[path]` for ever.
    """

    pools: list[dict[str, Any]] = field(default_factory=list)
    charts: dict[str, list[Any]] = field(default_factory=dict)
    prices: dict[str, dict[int, float]] = field(default_factory=dict)
    failures: dict[str, list[Failure]] = field(default_factory=lambda: defaultdict(list))
    always: dict[str, Failure] = field(default_factory=dict)
    down_after_charts: int | None = None
    url: str = ""
    asked: list[str] = field(default_factory=list)
    most_at_once: int = 0
    meet: threading.Barrier | None = None
    release: threading.Event = field(default_factory=threading.Event)
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def charts_asked(self) -> list[str]:
        """Pool ids in the order in which their charts were asked for."""
        return [
            unquote(path.removeprefix("/chart/"))
            for path in self.asked
            if path.startswith("/chart/") and "coingecko" not in path
        ]

    def price_requests(self) -> list[dict[str, str]]:
        return [
            {key: values[0] for key, values in parse_qs(urlsplit(path).query).items()}
            for path in self.asked
            if "coingecko" in path
        ]

    def failure(self, path: str) -> Failure | None:
        with self._lock:
            if (
                self.down_after_charts is not None
                and len(self.charts_asked()) > self.down_after_charts
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
        found = {}
        for coin in coins:
            records = self.prices.get(coin, {})
            nearest = (
                {
                    min(records, key=lambda moment: abs(moment - asked))
                    for asked in range(start, start + span * DAY, DAY)
                }
                if records
                else set()
            )
            near = sorted(
                moment
                for moment in nearest
                if min(abs(moment - asked) for asked in range(start, start + span * DAY, DAY))
                <= seconds
            )
            if near:
                found[coin] = {
                    "symbol": coin[:3],
                    "confidence": 0.99,
                    "prices": [{"timestamp": moment, "price": records[moment]} for moment in near],
                }
        return 200, {"coins": found}

    def enter(self, target: str) -> None:
        with self._lock:
            self.asked.append(target)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)

    def leave(self) -> None:
        with self._lock:
            self._at_once -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: DefiLlamaServer

    def do_GET(self) -> None:
        self.state.enter(self.path)
        try:
            self._serve()
        except OSError:
            # the client went away, as an interrupted pull does
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
        status, document = self.state.answer(
            address.path, {key: values[0] for key, values in parse_qs(address.query).items()}
        )
        failure = self.state.failure(address.path)
        body = json.dumps(document).encode()
        if failure is None:
            self._send(status, {}, body, len(body))
        elif failure.kind == "held":
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
            shown = failure.body if failure.body is not None else b'{"message": "no"}'
            self._send(failure.status, failure.headers, shown, len(shown))

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
        """Silent: pytest's output is for the tests."""


@contextmanager
def running() -> Iterator[DefiLlamaServer]:
    """A server on a free port of 127.0.0.1 until the block ends."""
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
