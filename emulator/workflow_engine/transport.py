"""How a workflow's HTTP requests leave: `http.get` and its like as functions of the workflow, over
a `Transport` that moves bytes.

In: a call's arguments. Out: Google's response map {code, headers, body}, a JSON body decoded; 4xx,
5xx and lost connections as the errors of
https://cloud.google.com/workflows/docs/reference/syntax/error-types.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

from common.errors import ConfigurationError
from emulator.workflow_engine.errors import raised
from emulator.workflow_engine.evaluation import type_name

DEFAULT_TIMEOUT = 300.0
LONGEST_TIMEOUT = 1800.0
"""Seconds (https://cloud.google.com/workflows/docs/reference/stdlib/http/get)."""
HOSTS = ".googleapis.com"


class Transport(Protocol):
    def __call__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes | None,
        timeout: float,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer. Raises: ConnectionRefusedError, ConnectionError,
        TimeoutError.
        """


def hosts_at(base_url: str, token: str | None = None) -> Transport:
    """All of https://*.googleapis.com at one address, http://HOST:PORT; any other host is
    refused. Args: token is sent with every request, as Google sends one for `auth`.
    """
    place = urlsplit(base_url).netloc

    def send(
        method: str,
        url: str,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes | None,
        timeout: float,
    ) -> tuple[int, Mapping[str, str], bytes]:
        asked = urlsplit(url)
        if asked.scheme != "https" or not asked.netloc.endswith(HOSTS):
            raise ConfigurationError(
                f"{url} is no address of Google Cloud; a workflow asks https://*{HOSTS} alone"
            )
        target = "?".join(
            part
            for part in (
                asked.path,
                "&".join(part for part in (asked.query, urlencode(query)) if part),
            )
            if part
        )
        connection = http.client.HTTPConnection(place, timeout=timeout)
        try:
            sent = {**headers, "Authorization": f"Bearer {token}"} if token else dict(headers)
            connection.request(method, target, body, sent)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers.items()), answer.read()
        except ConnectionError:
            raise
        except http.client.HTTPException as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()

    return send


def request(
    transport: Transport,
    method: str,
    *,
    url: str,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, Any] | None = None,
    body: Any = None,
    auth: Mapping[str, Any] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> dict[str, Any]:
    """One request. Raises: Raised. Args: auth is checked; the token is the transport's."""
    if auth is not None and auth.get("type") != "OAuth2":
        raise ConfigurationError(
            f"auth {dict(auth)} is none for Google's APIs; they take type OAuth2"
        )
    if timeout > LONGEST_TIMEOUT:
        raise raised("ValueError", f"timeout {timeout} is over {LONGEST_TIMEOUT} s")
    content, kind = _encoded(body)
    try:
        texts = {key: _text(value) for key, value in (query or {}).items()}
        status, found, raw = transport(
            method, url, {**kind, **(headers or {})}, texts, content, timeout
        )
    except TimeoutError as error:
        raise raised("TimeoutError", f"{method} {url}: no answer in {timeout:g} s") from error
    except ConnectionRefusedError as error:
        raise raised("ConnectionFailedError", f"{method} {url}: {error}") from error
    except ConnectionError as error:
        raise raised("ConnectionError", f"{method} {url}: {error}") from error
    answer = {
        "code": status,
        "headers": {name.title(): value for name, value in found.items()},
        "body": _decoded(found, raw),
    }
    if status >= 400:
        raise raised("HttpError", f"HTTP server responded with error code {status}", **answer)
    return answer


def _encoded(body: Any) -> tuple[bytes | None, dict[str, str]]:
    if isinstance(body, dict | list):
        return json.dumps(body).encode(), {"content-type": "application/json"}
    if isinstance(body, str):
        return body.encode(), {"content-type": "text/plain"}
    return body, {}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise raised("TypeError", f"a query holds text and numbers, not {type_name(value)}")


def _decoded(headers: Mapping[str, str], raw: bytes) -> Any:
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    if kind.split(";")[0].strip().lower() != "application/json":
        return raw.decode(errors="replace")
    try:
        return json.loads(raw)
    except ValueError as error:
        raise raised(
            "ValueError", f"the answer says application/json, and its body is none: {error}"
        ) from error
