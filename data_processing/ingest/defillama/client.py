"""Reads DefiLlama's web API: pools, charts and prices.

Returns the JSON of the answers as Python values, checked for its form and otherwise unchanged. APY
percent, TVL and prices USD, unix seconds. Stores and converts nothing. A failure that may pass
(429, 408, 5xx, a lost connection, a truncated answer) is retried with growing pauses, never before
the server's Retry-After.
"""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx

from common.errors import ConfigurationError, InputError, SourceUnavailable
from common.version import PRODUCT_VERSION
from config_spark import Settings
from data_processing.ingest.defillama.time_limited_http import TimeLimitedHttp, TimeLimitExceeded

MAX_PRICE_POINTS = 500
"""Largest number of coins x days in a request for prices (defillama-server, coins/src:
MAX_RECORDS).
"""

MAX_ANSWER_BYTES = 128 * 2**20
"""Unpacked. The largest answer, the list of all pools, has some 20 MiB."""

NETWORK_VARIABLES = "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
MAX_QUOTED_CHARACTERS = 120

CHECK_ADDRESSES = "Check DEFILLAMA_YIELDS_URL and DEFILLAMA_COINS_URL"
MAX_REDIRECTS = 5
MAX_DIGITS = 1000
"""Of an integer; Python itself rejects 4,300."""

RETRYABLE_STATUS = {408, 425, 429}
FORBIDDEN_STATUS = {401, 403, 407, 451}
"""Refusals that apply to every address: of a proxy or a blocked country, not of a single pool."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long requests are retried. Times in seconds.

    Attributes:
        attempts: attempts for each request, at least 1.
        first_pause: pause after the first attempt; it doubles after each attempt.
        longest_pause: largest pause of the client's own choice.
        longest_retry_after: largest Retry-After that is waited for.
        silence: time without a byte after which an attempt ends.
        whole_answer: limit of a whole answer.
        sleep: replaces the pause, which otherwise ends at once when the client is stopped.
    """

    attempts: int = 5
    first_pause: float = 1.0
    longest_pause: float = 60.0
    longest_retry_after: float = 300.0
    silence: float = 30.0
    whole_answer: float = 180.0
    sleep: Callable[[float], None] | None = None


class IngestStopped(Exception):
    """The client was stopped during this request. It never leaves the fetching threads."""


class _TransientError(Exception):
    """A failure that may pass; `retry_after` is the pause that the server requests, in seconds, or
    None.
    """

    def __init__(self, cause: str, retry_after: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after = retry_after


class DefiLlama:
    """The API at two base URLs, for use by several threads.

    `stop()` keeps all of them from starting another request.
    """

    def __init__(self, settings: Settings, *, retry_policy: RetryPolicy | None = None) -> None:
        self._yields = settings.defillama_yields_url.rstrip("/")
        self._coins = settings.defillama_coins_url.rstrip("/")
        self._policy = retry_policy or RetryPolicy()
        self._stopping = threading.Event()
        try:
            self._http = TimeLimitedHttp(self._new_client)
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            # httpx reads the variables when the client is created, and has no error type for them
            raise ConfigurationError(
                f"the network's variables can't be used ({str(error)[:MAX_QUOTED_CHARACTERS]}):"
                f" {NETWORK_VARIABLES} name http:// or https:// proxies, hosts without a proxy, and"
                " files of certificates. Correct or unset them"
            ) from error

    def stop(self) -> None:
        """Keep all threads from starting another request."""
        self._stopping.set()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def pools(self) -> list[dict[str, Any]]:
        """Return every listed pool: pool, chain, project, symbol, tvlUsd, apy, stablecoin,
        underlyingTokens, poolMeta, ...

        Raises:
            InputError: the answer has another form, or the address is wrong.
            SourceUnavailable: the API does not answer.
        """
        return [
            pool
            for pool in self._data(f"{self._yields}/pools")
            if isinstance(pool, dict) and isinstance(pool.get("pool"), str)
        ]

    def chart(self, pool_id: str) -> list[Any]:
        """Return the history of a pool as it is sent: {timestamp, tvlUsd, apy, apyBase, apyReward,
        il7d, apyBase7d} by day, the last one intraday.

        Args:
            pool_id: DefiLlama's id of the pool.

        Raises:
            InputError: the answer has another form, or the pool is unknown.
            SourceUnavailable: the API does not answer.
        """
        # a slash in an id must not change the path
        return self._data(f"{self._yields}/chart/{quote(pool_id, safe='')}")

    def prices(
        self, coins: Sequence[str], *, start: int, days: int, search_width: str
    ) -> dict[str, list[Any]]:
        """Return points {timestamp, price} of each coin, one for each day.

        Args:
            coins: DefiLlama's names of the coins.
            start: unix seconds; a day's point is the one nearest to the same time of that day.
            days: number of days.
            search_width: largest distance of a point, such as 30m.

        Raises:
            ValueError: coins x days is more than the endpoint returns in a request.
            InputError: the answer has another form, or the address is wrong.
            SourceUnavailable: the API does not answer.
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
        charts = answer.get("coins") if isinstance(answer, dict) else None
        if not isinstance(charts, dict):
            raise InputError(
                f"{url} did not answer with prices but with {_excerpt(answer)}. Check"
                " DEFILLAMA_COINS_URL"
            )
        points_by_coin: dict[str, list[Any]] = {}
        for coin in coins:
            chart = charts.get(coin)
            points = chart.get("prices") if isinstance(chart, dict) else None
            points_by_coin[coin] = points if isinstance(points, list) else []
        return points_by_coin

    def _data(self, url: str) -> list[Any]:
        answer = self._get(url)
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list):
            raise InputError(
                f"{url} did not answer with data but with {_excerpt(answer)}. Check"
                " DEFILLAMA_YIELDS_URL"
            )
        return data

    def _get(self, url: str, params: dict[str, str | int] | None = None) -> Any:
        for attempt in range(1, self._policy.attempts + 1):
            if self._stopping.is_set():
                raise IngestStopped
            try:
                return self._request(url, params)
            except _TransientError as failure:
                if attempt == self._policy.attempts:
                    raise SourceUnavailable(
                        f"{url}: {failure}, after {attempt} attempts. Check the network and"
                        " HTTPS_PROXY, then run again: it continues where it stopped"
                    ) from failure
                self._pause(url, attempt, failure.retry_after)
        raise AssertionError("attempts is at least 1")

    def _request(self, url: str, params: dict[str, str | int] | None) -> Any:
        limit, target = self._policy.whole_answer, url
        try:
            for _ in range(MAX_REDIRECTS):
                with self._http.get(target, params, limit) as response:
                    _require_one_coding(response)
                    if response.is_success:
                        return _json(self._body(response), url)
                    if not response.has_redirect_location:
                        raise _refusal(response)
                    target, params = _redirect_target(response), None
            raise InputError(f"{url} redirects {MAX_REDIRECTS} times. {CHECK_ADDRESSES}")
        except TimeLimitExceeded as error:
            raise _TransientError(f"the answer was not whole after {limit:g} s") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _TransientError(f"no whole answer ({type(error).__name__}: {error})") from error
        # httpx decodes host names on its own, by a library that raises UnicodeError
        except (httpx.InvalidURL, UnicodeError) as error:
            raise InputError(f"{url} leads nowhere ({error}). {CHECK_ADDRESSES}") from error

    def _new_client(self) -> httpx.Client:
        silence = self._policy.silence
        return httpx.Client(
            headers={
                "User-Agent": f"yieldspark/{PRODUCT_VERSION}",
                "Accept": "application/json",
            },
            timeout=httpx.Timeout(silence, connect=min(10.0, silence)),
            limits=httpx.Limits(max_connections=1),
        )

    def _body(self, response: httpx.Response) -> bytes:
        chunks, size = [], 0
        for chunk in response.iter_bytes():
            if self._stopping.is_set():
                raise IngestStopped
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise InputError(
                    f"{response.url} answers with more than {MAX_ANSWER_BYTES // 2**20} MiB, which"
                    f" no answer of DefiLlama has. {CHECK_ADDRESSES}"
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _pause(self, url: str, attempt: int, retry_after: float | None) -> None:
        policy = self._policy
        if retry_after is not None and retry_after > policy.longest_retry_after:
            raise SourceUnavailable(
                f"{url} asks to wait {retry_after:.0f} s (at most"
                f" {policy.longest_retry_after:.0f} s is waited). Run again after that"
            )
        # jitter: threads that are refused together must not come back together
        if retry_after is None:
            backoff = min(policy.longest_pause, policy.first_pause * 2 ** (attempt - 1))
            seconds = backoff * random.uniform(0.5, 1.0)
        else:
            seconds = retry_after + random.uniform(0.0, policy.first_pause)
        if policy.sleep:
            policy.sleep(seconds)
        else:
            self._stopping.wait(seconds)


def _refusal(response: httpx.Response) -> Exception:
    code = response.status_code
    status = f"HTTP {code} {response.reason_phrase}".strip()
    if code in RETRYABLE_STATUS or code >= 500:
        retry_after = retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC))
        return _TransientError(status, retry_after)
    if code in FORBIDDEN_STATUS:
        return SourceUnavailable(
            f"{response.url} refused: {status}. Check HTTPS_PROXY, and whether this network may"
            " reach it"
        )
    # the first bytes to arrive: the rest may be large, or never come
    body = next(response.iter_bytes(), b"").decode(errors="replace")
    return InputError(f"{response.url} answered {status}: {_excerpt(body)}")


def _require_one_coding(response: httpx.Response) -> None:
    """Raise InputError for an answer that is compressed more than once."""
    # 64 KiB that are read at once may unpack to 64 MiB, and these to 64 GiB
    codings = response.headers.get_list("Content-Encoding", split_commas=True)
    if len(codings) > 1:
        raise InputError(
            f"{response.url} answers with data that is compressed twice, which DefiLlama's is not."
            f" {CHECK_ADDRESSES}"
        )


def _redirect_target(response: httpx.Response) -> str:
    """Return the address of a redirect.

    Raises:
        InputError: it leads to another host, or from https to http.
    """
    # it would send the requests to a server that the settings do not name
    target = response.url.join(response.headers["Location"])
    is_downgrade = (response.url.scheme, target.scheme) == ("https", "http")
    if target.host != response.url.host or is_downgrade:
        raise InputError(
            f"{response.url} redirects to {target.scheme}://{target.host}, which is not followed."
            " If that is the right place, set DEFILLAMA_YIELDS_URL or DEFILLAMA_COINS_URL to it"
        )
    return str(target)


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Parse a Retry-After header: a number of seconds or an HTTP date (RFC 9110, 10.2.3).

    Args:
        header: value of the header; None if it is missing.
        now: current time, UTC.

    Returns:
        Seconds from `now`, at least 0; None if the header can't be read.
    """
    if header is None:
        return None
    # isdigit also accepts signs such as a superscript 2, which are no numbers
    if header.strip().isascii() and header.strip().isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def _json(body: bytes, url: str) -> Any:
    # NaN, Infinity and numbers beyond a double stay text: jsonb has none of them, and the metrics
    # job validates text
    try:
        return json.loads(
            body,
            parse_constant=str,
            parse_float=_finite_or_text,
            parse_int=_int_or_text,
        )
    except RecursionError as error:
        raise InputError(f"{url} answers with JSON that is nested too deeply to be read") from error
    except ValueError as error:
        # a truncated answer: the next attempt may bring all of it
        raise _TransientError(f"the answer of {len(body)} bytes is no JSON ({error})") from error


def _finite_or_text(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _int_or_text(text: str) -> int | str:
    return int(text) if len(text) <= MAX_DIGITS else text


def _excerpt(answer: object) -> str:
    return repr(answer)[:200]
