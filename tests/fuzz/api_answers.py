"""An answer case: DefiLlama answers one request wrongly over real HTTP, and a pull is compared with
the answers.

The wrong answer is the list of pools, the chart of one pool or the prices. A good pool beside the
changed one is stored whole. Every valid point of a chart is stored or counted as refused;
everything else gives one sentence.
"""

from __future__ import annotations

import copy
import datetime as dt
import gzip
import json
import random
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from common.errors import MAX_MESSAGE_CHARACTERS, InputError, SourceUnavailable
from config_spark import Settings
from data_processing.ingest.defillama.client import RetryPolicy
from data_processing.ingest.defillama.pull import ingest
from tests.fuzz.cases import require_sentence
from tests.fuzz.files import counts
from tests.fuzz.mutations import changed_bytes
from tests.support.defillama_server import CUT, STALLED, TRUNCATED, DefiLlamaServer, Failure

Target = Literal["pools", "chart", "prices"]

PRICES = "/chart/coingecko:ethereum,coingecko:bitcoin"
PATHS: dict[Target, str] = {"pools": "/pools", "chart": "/chart/changed", "prices": PRICES}

IMPATIENT = RetryPolicy(
    attempts=2,
    first_pause=0.01,
    longest_pause=0.02,
    longest_retry_after=0.05,
    silence=1.5,
    whole_answer=3.0,
)

RAW = "raw JSON follows: "
"""Begins a text that stands in the document without its quotes."""

RAW_TEXT = re.compile(rf'"{RAW}(?:[^"\\]|\\.)*"')


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, "", " ", "x" * 5000, [], {}, [[]], [None], {"": None}),
    *(2**63, 10**30, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
    *("\0", "\ud800", "a\0b\udfff", "\u202e", "\x1b[2J", "'; DROP TABLE pools;--", "🦙" * 300),
    *("NaN", "Infinity", "1e400", "1,5", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+00:00"),
    *("2025-02-30T00:00:00Z", "2025-03-01", "now", 1740787200, 1740787200000, -1e18, "2025"),
    *(nested(30), nested(700), {"timestamp": None}, list(range(3000))),
    *(RAW + text for text in ("1e400", "-1e999", "1" * 999, "9" * 5000, "0x1F", "01", "tru")),
    *(RAW + text for text in ('{"apy":1,"apy":2}', "[" * 3000, "'a'", "NaN", "\\u0000", '"\\x"')),
)

LOCATIONS = (
    *("/chart/changed", "/pools", "//", "", "?", "#", "http://[", "http://127.0.0.1:99999/"),
    *("https://elsewhere.invalid/pools", "ftp://127.0.0.1/", "file:///etc/passwd", "javascript:1"),
    *("http://localhost:1/", "\u00e4", "/%00", "/" + "x" * 3000),
)
RETRY_AFTER = ("0", "-1", "1e9", "99999999999", "soon", "", "Wed, 21 Oct 2015 07:28:00 GMT", "٣")
STATUSES = (
    *(201, 203, 204, 206, 300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 407, 408),
    *(410, 418, 425, 429, 431, 451, 499, 500, 501, 502, 503, 504, 511, 599),
)


@dataclass(frozen=True)
class Answered:
    """A changed answer.

    `document` is the changed document if the body is still JSON and its status 200; `is_beside`
    means that the pool `good` must not be affected.
    """

    description: str
    target: Target
    is_beside: bool
    document: Any = None


def good_world(rng: random.Random, server: DefiLlamaServer) -> None:
    """Serve two pools with charts and prices, and no failure."""
    today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today - dt.timedelta(days=back) for back in range(rng.randint(2, 6), 0, -1)]
    server.failures.clear()
    server.always.clear()
    server.requests.clear()
    server.pools = [_pool_entry(rng, name) for name in ("good", "changed")]
    server.charts = {}
    for name in ("good", "changed"):
        server.charts[name] = [_point(rng, day) for day in days]
    server.prices = {}
    for coin in ("coingecko:ethereum", "coingecko:bitcoin"):
        prices = {int(day.timestamp()): rng.randint(1, 10**6) / 100 for day in days}
        server.prices[coin] = prices


def _pool_entry(rng: random.Random, name: str) -> dict[str, Any]:
    return {
        "chain": "Ethereum",
        "project": "aave-v3",
        "symbol": "USDC",
        "tvlUsd": rng.randint(1, 10**8),
        "apy": rng.random() * 10,
        "stablecoin": True,
        "underlyingTokens": ["0xA0b8"],
        "poolMeta": None,
        "pool": name,
    }


def _point(rng: random.Random, day: dt.datetime) -> dict[str, Any]:
    moment = day + dt.timedelta(hours=23, minutes=rng.randrange(60))
    return {
        "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "tvlUsd": rng.randint(1, 10**8),
        "apy": round(rng.random() * 10, 4),
        "apyBase": rng.choice((None, 2.5)),
        "apyReward": None,
        "il7d": None,
    }


def change_answers(rng: random.Random, server: DefiLlamaServer) -> Answered:
    target: Target = rng.choice(("pools", "chart", "chart", "chart", "prices"))
    query = {"start": "0", "span": "1", "searchWidth": "1m", "period": "1d"}
    _, document = server.answer(PATHS[target], query)
    change = rng.choice((_other_json, _other_json, _other_bytes, _other_http))
    return change(rng, server, target, copy.deepcopy(document))


def _other_json(
    rng: random.Random, server: DefiLlamaServer, target: Target, document: Any
) -> Answered:
    """Change values at one to three places of the document."""
    for _ in range(rng.randint(1, 3)):
        document = _changed_at_one_place(rng, document)
    is_readable = _is_json(document)
    server.always[PATHS[target]] = Failure(body=_to_bytes(document))
    return Answered("other JSON", target, target != "pools", document if is_readable else None)


def _changed_at_one_place(rng: random.Random, document: Any) -> Any:
    """Replace, remove or repeat one value of the document; the root only rarely."""
    holder: Any = None
    key: Any = None
    value = document
    while isinstance(value, dict | list) and value and (holder is None or rng.random() < 0.8):
        holder = value
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        value = value[key]
    if holder is None or rng.random() < 0.02:
        return rng.choice(HOSTILE)
    change = rng.choice(("replace", "replace", "replace", "drop", "repeat"))
    if change == "drop":
        del holder[key]
    elif change == "repeat" and isinstance(holder, list):
        holder.append(copy.deepcopy(value))
    else:
        holder[key] = rng.choice(HOSTILE)
    return document


def _other_bytes(
    rng: random.Random, server: DefiLlamaServer, target: Target, document: Any
) -> Answered:
    body = changed_bytes(rng, _to_bytes(document))
    server.always[PATHS[target]] = Failure(body=body)
    return Answered("other bytes", target, target != "pools")


def _other_http(
    rng: random.Random, server: DefiLlamaServer, target: Target, document: Any
) -> Answered:
    """Change status, header, coding or pace, once or every time."""
    body = _to_bytes(document)
    kinds: tuple[Callable[[], Failure], ...] = (
        lambda: Failure(rng.choice(STATUSES), {"Retry-After": rng.choice(RETRY_AFTER)}),
        lambda: Failure(rng.choice((301, 302, 307)), {"Location": rng.choice(LOCATIONS)}),
        lambda: Failure(
            headers={"Content-Encoding": rng.choice(("gzip", "deflate", "br", "?"))}, body=body
        ),
        lambda: Failure(headers={"Content-Encoding": "gzip"}, body=_packed(rng, body)),
        lambda: Failure(headers={"Content-Type": "text/html; charset=utf-16"}, body=b"<html>busy"),
        lambda: Failure(body=rng.choice((b"", b"null", b"\xff", body.decode().encode("utf-16")))),
        lambda: Failure(body=_raw(rng, body), kind="raw"),
        lambda: rng.choice((CUT, TRUNCATED, STALLED, Failure(kind="trickled"))),
    )
    failure = rng.choice(kinds)()
    if rng.random() < 0.3:
        server.failures[PATHS[target]] = [failure]
    else:
        server.always[PATHS[target]] = failure
    return Answered("other HTTP", target, target != "pools")


def _packed(rng: random.Random, body: bytes) -> bytes:
    whole = gzip.compress(body, mtime=0)
    bomb = gzip.compress(b" " * 20_000_000, mtime=0)
    return rng.choice(
        (whole, whole[:-9], whole[:20], changed_bytes(rng, whole), zlib.compress(body), bomb)
    )


def _raw(rng: random.Random, body: bytes) -> bytes:
    """Return a whole response with a fault in its head or its framing."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return rng.choice(
        (
            *(b"", b"\r\n", b"HTTP/1.1", b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n"),
            *(b"SSH-2.0-OpenSSH\r\n", b"\x15\x03\x01\x00\x02\x02\x28", body),
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 3000 + b"\r\n" + body,
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n" + body,
            b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + body,
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n" + body,
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n" + body,
            b"HTTP/1.1 \xff\xfe \xff\r\n\r\n" + body,
            b"HTTP/1.1 302 \x1b[31m\r\nLocation: /pools\r\n\r\n",
            *(
                chunked + b"%x\r\n" % (len(body) + 10) + body,
                chunked + b"zz\r\n",
                chunked + b"-1\r\n",
            ),
            chunked + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n",
        )
    )


def _to_bytes(document: Any) -> bytes:
    text = json.dumps(document)
    return RAW_TEXT.sub(lambda match: json.loads(match[0]).removeprefix(RAW), text).encode()


def _is_json(document: Any) -> bool:
    """Return whether the bytes of `_to_bytes` are the same JSON document."""
    return RAW not in json.dumps(document)


# Pulls


def pull_and_compare(
    settings: Settings, connection: Connection, changed: Answered, server: DefiLlamaServer
) -> str:
    """Pull both pools; returns the outcome.

    Raises: AssertionError if the good pool lacks a point, a point is neither stored nor counted, or
    an error is not one of the product.
    """
    try:
        summary = ingest(
            settings, pool_ids=["good", "changed"], retry_policy=IMPATIENT, progress=lambda _: None
        )
    except Exception as error:
        sentence = require_sentence(error)
        if changed.is_beside or not isinstance(error, InputError | SourceUnavailable):
            raise AssertionError(f"the pull is given up: {sentence}") from error
        return "given up"
    for failure in summary["failed"]:
        assert 0 < len(failure["error"]) <= MAX_MESSAGE_CHARACTERS, failure
    failed = {failure["pool_id"] for failure in summary["failed"]}
    _require_good_pool(connection, server, summary)
    assert summary["pools_fetched"] + len(failed - {None}) == summary["pools_chosen"] == 2, summary
    assert "good" not in failed, summary
    _require_points(connection, summary, changed, server, is_failed="changed" in failed)
    return f"{len(failed)} failed"


def _require_good_pool(
    connection: Connection, server: DefiLlamaServer, summary: dict[str, Any]
) -> None:
    stored = connection.exec_driver_sql(
        "SELECT raw_json_data FROM raw_defillama_pool_history WHERE pool_id = 'good' ORDER BY"
        " timestamp"
    ).scalars()
    points = list(stored)
    assert points == server.charts["good"], (len(points), summary)


def _require_points(
    connection: Connection,
    summary: dict[str, Any],
    changed: Answered,
    server: DefiLlamaServer,
    *,
    is_failed: bool,
) -> None:
    row_counts = counts(connection)
    assert row_counts["history"] == summary["rows_inserted"], (row_counts, summary)
    assert row_counts["quarantine"] == summary["rows_refused"], (row_counts, summary)
    points = changed.document.get("data") if isinstance(changed.document, dict) else None
    if changed.target != "chart" or is_failed or not isinstance(points, list):
        return
    counted = sum(summary[f"rows_{name}"] for name in ("inserted", "already_there", "refused"))
    assert counted == len(points) + len(server.charts["good"]), summary
    stored = list(
        connection.exec_driver_sql(
            "SELECT raw_json_data FROM raw_defillama_pool_history WHERE pool_id = 'changed'"
        ).scalars()
    )
    for point in server.charts["changed"]:
        assert point not in points or point in stored, point
