"""DefiLlama's web API: one polite client for pools, charts and prices.

In: a pool id, or coins and a start. Out: the answers' JSON as Python values, checked to be of the
promised form and otherwise untouched; an error of `common.errors` where there is no such answer.
Units as DefiLlama has them: APY percent, TVL and prices USD, unix seconds. Nothing is stored or
converted here. A refusal that may pass (429, 408, 5xx, a lost connection, a cut answer) is asked
again, later and later, never before the server's Retry-After.
"""

from __future__ import annotations

import json
import math
import queue
import random
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx

from common.errors import ConfigurationError, InputError, SourceUnavailable
from common.settings.cloud import PRODUCT_VERSION
from config_spark import Settings

MAX_PRICE_POINTS = 500
"""The chart endpoint of prices refuses more than this many coins x days in a request
(defillama-server, coins/src: MAX_RECORDS).
"""

MAX_ANSWER_BYTES = 128 * 2**20
"""Unpacked. The list of all pools, the largest answer, has some 20 MiB."""

NETWORK_VARIABLES = "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
SHOWN_LETTERS = 120

MAX_REFUSAL_BYTES = 64 * 2**10
MAX_DIGITS = 1000
"""Of an integer; Python itself refuses 4,300."""

ASK_AGAIN = {408, 425, 429}
NOT_FOR_US = {401, 403, 407, 451}
"""Refusals that hold for every address: a proxy's or a blocked country's, no single pool's."""


@dataclass(frozen=True)
class Patience:
    """How long to go on asking. Seconds; `sleep` replaces the pause between two attempts, which
    otherwise ends at once when the pull stops.
    """

    attempts: int = 5
    first_pause: float = 1.0
    longest_pause: float = 60.0
    longest_retry_after: float = 300.0
    silence: float = 30.0
    whole_answer: float = 180.0
    sleep: Callable[[float], None] | None = None


class Stopped(Exception):
    """The pull was stopped while this request was under way; never leaves the fetching threads."""


class _Passing(Exception):
    """A failure that may pass: the pause the server asked for, in seconds, or None."""

    def __init__(self, cause: str, retry_after: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after = retry_after


class DefiLlama:
    """The API behind two base URLs. May be used by several threads; `stop()` lets none of them
    begin another request.
    """

    def __init__(
        self, settings: Settings, *, concurrency: int = 4, patience: Patience | None = None
    ) -> None:
        self._yields = settings.defillama_yields_url.rstrip("/")
        self._coins = settings.defillama_coins_url.rstrip("/")
        self._patience = patience or Patience()
        self._stopping = threading.Event()
        silence = self._patience.silence
        try:
            self._http = httpx.Client(
                headers={
                    "User-Agent": f"yieldspark/{PRODUCT_VERSION}",
                    "Accept": "application/json",
                },
                timeout=httpx.Timeout(silence, connect=min(10.0, silence)),
                limits=httpx.Limits(max_connections=concurrency + 1),
                follow_redirects=True,
                event_hooks={"response": [_require_same_place]},
            )
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            # httpx reads the variables when the client is made, and has no error of its own
            raise ConfigurationError(
                f"the network's variables can't be used ({str(error)[:SHOWN_LETTERS]}):"
                f" {NETWORK_VARIABLES} name http:// or https:// proxies, hosts without a proxy, and"
                " files of certificates. Correct or unset them"
            ) from error

    def stop(self) -> None:
        self._stopping.set()

    def close(self) -> None:
        self._http.close()

    def pools(self) -> list[dict[str, Any]]:
        """Every pool DefiLlama lists now: pool, chain, project, symbol, tvlUsd, apy, stablecoin,
        underlyingTokens, poolMeta, ...
        """
        return [
            pool
            for pool in self._data(f"{self._yields}/pools")
            if isinstance(pool, dict) and isinstance(pool.get("pool"), str)
        ]

    def chart(self, pool_id: str) -> list[Any]:
        """The history of a pool as it came: {timestamp, tvlUsd, apy, apyBase, apyReward, il7d,
        apyBase7d} by day, the last one intraday.
        """
        return self._data(f"{self._yields}/chart/{quote(pool_id, safe='')}")

    def prices(
        self, coins: Sequence[str], *, start: int, days: int, search_width: str
    ) -> dict[str, list[Any]]:
        """Points {timestamp, price} of each coin, the ones nearest to `start` (unix seconds) and to
        each of the following `days` - 1 days.

        Raises: ValueError where coins x days is more than the endpoint gives in a request.
        """
        if len(coins) * days > MAX_PRICE_POINTS:
            raise ValueError(
                f"{len(coins)} coins x {days} days; the endpoint gives at most {MAX_PRICE_POINTS}"
                " points"
            )
        url = f"{self._coins}/chart/{','.join(coins)}"
        answer = self._get(
            url, {"start": start, "span": days, "period": "1d", "searchWidth": search_width}
        )
        found = answer.get("coins") if isinstance(answer, dict) else None
        if not isinstance(found, dict):
            raise InputError(
                f"{url} did not answer with prices but with {_shown(answer)}. Check"
                " DEFILLAMA_COINS_URL"
            )
        charts = {
            coin: found[coin].get("prices") if isinstance(found.get(coin), dict) else None
            for coin in coins
        }
        return {coin: points if isinstance(points, list) else [] for coin, points in charts.items()}

    def _data(self, url: str) -> list[Any]:
        answer = self._get(url)
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list):
            raise InputError(
                f"{url} did not answer with data but with {_shown(answer)}. Check"
                " DEFILLAMA_YIELDS_URL"
            )
        return data

    def _get(self, url: str, params: dict[str, str | int] | None = None) -> Any:
        for attempt in range(1, self._patience.attempts + 1):
            if self._stopping.is_set():
                raise Stopped
            try:
                return self._ask(url, params)
            except _Passing as failure:
                if attempt == self._patience.attempts:
                    raise SourceUnavailable(
                        f"{url}: {failure}, after {attempt} attempts. Check the network and"
                        " HTTPS_PROXY, then run again: it goes on where it stopped"
                    ) from failure
                self._pause(url, attempt, failure.retry_after)
        raise AssertionError("attempts is at least 1")

    def _ask(self, url: str, params: dict[str, str | int] | None) -> Any:
        try:
            with self._http.stream("GET", url, params=params) as response:
                if response.is_success:
                    return _json(self._body(response), url)
                raise _refusal(response)
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _Passing(f"no whole answer ({type(error).__name__}: {error})") from error
        except (httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise InputError(
                f"{url} leads nowhere ({error}). Check DEFILLAMA_YIELDS_URL and DEFILLAMA_COINS_URL"
            ) from error

    def _body(self, response: httpx.Response) -> bytes:
        """The whole answer. A server that trickles resets the silence time-out for ever, so the
        whole has a limit too.
        """
        deadline = time.monotonic() + self._patience.whole_answer
        chunks, size = [], 0
        for chunk in response.iter_bytes():
            if self._stopping.is_set():
                raise Stopped
            if time.monotonic() > deadline:
                raise _Passing(f"the answer was not whole after {self._patience.whole_answer:g} s")
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise InputError(
                    f"{response.url} answers with more than {MAX_ANSWER_BYTES // 2**20} MiB, which"
                    " no answer of DefiLlama has. Check DEFILLAMA_YIELDS_URL and"
                    " DEFILLAMA_COINS_URL"
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _pause(self, url: str, attempt: int, asked: float | None) -> None:
        patience = self._patience
        if asked is not None and asked > patience.longest_retry_after:
            raise SourceUnavailable(
                f"{url} asks to wait {asked:.0f} s (at most {patience.longest_retry_after:.0f} s is"
                " waited). Run again after that"
            )
        backed_off = min(
            patience.longest_pause, patience.first_pause * 2 ** (attempt - 1)
        ) * random.uniform(0.5, 1.0)
        # jitter on top of what was asked: threads refused together must not come back together
        seconds = backed_off if asked is None else asked + random.uniform(0.0, patience.first_pause)
        if patience.sleep:
            patience.sleep(seconds)
        else:
            self._stopping.wait(seconds)


def _refusal(response: httpx.Response) -> Exception:
    status = response.status_code
    words = f"HTTP {status} {response.reason_phrase}".strip()
    if status in ASK_AGAIN or status >= 500:
        return _Passing(
            words, retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC))
        )
    if status in NOT_FOR_US:
        return SourceUnavailable(
            f"{response.url} refused: {words}. Check HTTPS_PROXY, and whether this network may"
            " reach it"
        )
    said = next(response.iter_bytes(MAX_REFUSAL_BYTES), b"").decode(errors="replace")
    return InputError(f"{response.url} answered {words}: {_shown(said)}")


def _require_same_place(response: httpx.Response) -> None:
    """Raises: InputError for a redirect to another host, or from https to http: it would send the
    requests to a server that the settings do not name.
    """
    if not response.has_redirect_location:
        return
    target = response.url.join(response.headers["Location"])
    if target.host != response.url.host or (response.url.scheme, target.scheme) == (
        "https",
        "http",
    ):
        raise InputError(
            f"{response.url} redirects to {target.scheme}://{target.host}, which is not followed."
            " If that is the right place, set DEFILLAMA_YIELDS_URL or DEFILLAMA_COINS_URL to it"
        )


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Retry-After as seconds from `now`: a number or an HTTP date (RFC 9110, 10.2.3); None where
    there is none that can be read.
    """
    if header is None:
        return None
    if header.strip().isascii() and header.strip().isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def _json(body: bytes, url: str) -> Any:
    """NaN, Infinity and numbers beyond a double stay as text: jsonb has none of them, and the
    metrics job knows what to do with text.

    Raises: InputError for a document that is nested too deeply to be read.
    """
    try:
        return json.loads(
            body,
            parse_constant=str,
            parse_float=lambda text: value if math.isfinite(value := float(text)) else text,
            parse_int=lambda text: int(text) if len(text) <= MAX_DIGITS else text,
        )
    except RecursionError as error:
        raise InputError(f"{url} answers with JSON that is nested too deeply to be read") from error
    except ValueError as error:
        raise _Passing(f"the answer of {len(body)} bytes is no JSON ({error})") from error


def _shown(answer: object) -> str:
    return repr(answer)[:200]


Chart = tuple[str, "list[Any] | Exception"]


def fetch_charts(
    client: DefiLlama, pool_ids: Sequence[str], concurrency: int
) -> Generator[Chart, None, None]:
    """(pool id, its chart or the error) as they come; at most `concurrency` requests under way, and
    as many answers waiting to be taken.

    Closing the iterator stops the threads. They are daemons that hold nothing but a socket: a
    server that is silent can't delay the end of the program.
    """
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    for pool_id in pool_ids:
        todo.put(pool_id)
    fetched: queue.Queue[Chart] = queue.Queue()
    may_wait = threading.Semaphore(2 * concurrency)
    for number in range(min(concurrency, len(pool_ids))):
        threading.Thread(
            target=_fetch,
            args=(client, todo, fetched, may_wait),
            name=f"defillama-{number}",
            daemon=True,
        ).start()
    try:
        for _ in pool_ids:
            yield fetched.get()
            may_wait.release()
    except BaseException:
        client.stop()
        may_wait.release(concurrency)
        raise


def _fetch(
    client: DefiLlama,
    todo: queue.SimpleQueue[str],
    fetched: queue.Queue[Chart],
    may_wait: threading.Semaphore,
) -> None:
    while True:
        may_wait.acquire()
        try:
            pool_id = todo.get_nowait()
        except queue.Empty:
            return
        try:
            fetched.put((pool_id, client.chart(pool_id)))
        except Stopped:
            return
        except Exception as error:  # goes to the thread that takes the answers, which judges it
            fetched.put((pool_id, error))
