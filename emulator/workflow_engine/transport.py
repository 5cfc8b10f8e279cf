"""HTTP requests of a workflow: `http.get` and similar functions over a `Transport`. Returns
Google's response map {code, headers, body} with JSON decoded; raises 4xx, 5xx and lost
connections as in https://cloud.google.com/workflows/docs/reference/syntax/error-types.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

from common.errors import ConfigurationError
from emulator.workflow_engine.errors import engine_error
from emulator.workflow_engine.evaluation import type_name

DEFAULT_TIMEOUT = 300.0
LONGEST_TIMEOUT = 1800.0
"""Seconds (https://cloud.google.com/workflows/docs/reference/stdlib/http/get)."""
HOSTS = ".googleapis.com"


class Transport(Protocol):
    """Sends the HTTP requests of a workflow."""

    def __call__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes | None,
        timeout: float,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request; return status, headers and body.

        Raises:
            ConnectionError: The connection is refused or lost.
            TimeoutError: There is no response in time.
        """


def route_to(base_url: str, token: str | None = None) -> Transport:
    """Return a transport that sends all of https://*.googleapis.com to one address and rejects
    other hosts.

    Args:
        base_url: The address, http://HOST:PORT.
        token: Sent with every request, as Google does for `auth`.
    """
    host = urlsplit(base_url).netloc

    def send(
        method: str,
        url: str,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes | None,
        timeout: float,
    ) -> tuple[int, Mapping[str, str], bytes]:
        target_url = urlsplit(url)
        if target_url.scheme != "https" or not target_url.netloc.endswith(HOSTS):
            raise ConfigurationError(
                f"{url} is no address of Google Cloud; a workflow asks https://*{HOSTS} alone"
            )
        query_text = "&".join(part for part in (target_url.query, urlencode(query)) if part)
        target = "?".join(part for part in (target_url.path, query_text) if part)
        connection = http.client.HTTPConnection(host, timeout=timeout)
        try:
            request_headers = (
                {**headers, "Authorization": f"Bearer {token}"} if token else dict(headers)
            )
            connection.request(method, target, body, request_headers)
            response = connection.getresponse()
            return response.status, dict(response.headers.items()), response.read()
        except ConnectionError:
            # RemoteDisconnected is an HTTPException too
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
    """Send one request of a workflow.

    Args:
        transport: Sends the request, with its own token.
        method: HTTP method.
        url: Address.
        headers: Headers.
        query: Query parameters.
        body: Body; maps and lists are sent as JSON.
        auth: Checked only.
        timeout: Seconds.

    Returns:
        The response map.

    Raises:
        Raised: The request fails or is answered 4xx or 5xx.
    """
    if auth is not None and auth.get("type") != "OAuth2":
        raise ConfigurationError(
            f"auth {dict(auth)} is none for Google's APIs; they take type OAuth2"
        )
    if timeout > LONGEST_TIMEOUT:
        raise engine_error("ValueError", f"timeout {timeout} is over {LONGEST_TIMEOUT} s")
    content, content_headers = _encode_body(body)
    try:
        query_texts = {key: _text(value) for key, value in (query or {}).items()}
        status, response_headers, raw = transport(
            method, url, {**content_headers, **(headers or {})}, query_texts, content, timeout
        )
    except TimeoutError as error:
        raise engine_error("TimeoutError", f"{method} {url}: no answer in {timeout:g} s") from error
    except ConnectionRefusedError as error:
        raise engine_error("ConnectionFailedError", f"{method} {url}: {error}") from error
    except ConnectionError as error:
        raise engine_error("ConnectionError", f"{method} {url}: {error}") from error
    response = {
        "code": status,
        "headers": {name.title(): value for name, value in response_headers.items()},
        "body": _decode_body(response_headers, raw),
    }
    if status >= 400:
        raise engine_error(
            "HttpError", f"HTTP server responded with error code {status}", **response
        )
    return response


def _encode_body(body: Any) -> tuple[bytes | None, dict[str, str]]:
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
    raise engine_error("TypeError", f"a query holds text and numbers, not {type_name(value)}")


def _decode_body(headers: Mapping[str, str], raw: bytes) -> Any:
    content_type = next(
        (value for name, value in headers.items() if name.lower() == "content-type"), ""
    )
    if content_type.split(";")[0].strip().lower() != "application/json":
        return raw.decode(errors="replace")
    try:
        return json.loads(raw)
    except ValueError as error:
        raise engine_error(
            "ValueError", f"the answer says application/json, and its body is none: {error}"
        ) from error
