"""Functions of Cloud Workflows' standard library that pipeline.yaml may use
(https://cloud.google.com/workflows/docs/reference/stdlib/overview). Functions that wait (`http.*`,
sys.sleep, sys.log) are steps of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from emulator.workflow_engine.clock import Clock
from emulator.workflow_engine.engine import Calls
from emulator.workflow_engine.errors import engine_error
from emulator.workflow_engine.evaluation import Functions, type_name
from emulator.workflow_engine.transport import Transport, request

SEVERITIES = (
    "DEFAULT",
    "DEBUG",
    "INFO",
    "NOTICE",
    "WARNING",
    "ERROR",
    "CRITICAL",
    "ALERT",
    "EMERGENCY",
)
HTTP_METHODS = ("get", "post", "delete")


def expression_functions(environment: Mapping[str, str], clock: Clock) -> Functions:
    """Return the functions of `${}`."""

    def get_env(name: str, *default: str) -> str:
        if name in environment or default:
            return str(environment.get(name, *default))
        # https://cloud.google.com/workflows/docs/reference/stdlib/sys/get_env
        raise engine_error("KeyError", f"environment variable not found: {name}")

    return {
        "default": lambda value, other: other if value is None else value,
        "int": _int,
        "json.decode": _json_decode,
        "json.encode_to_string": lambda value: json.dumps(value, separators=(",", ":")),
        "keys": lambda value: list(_require_type(dict, value)),
        "len": lambda value: len(_require_type((str, list, dict), value)),
        "list.concat": lambda values, value: [*_require_type(list, values), value],
        "map.get": _map_get,
        "math.min": min,
        "string": _string,
        "sys.get_env": get_env,
        "sys.now": clock.now,
        "text.match_regex": (
            lambda source, regexp: (
                re.search(_require_type(str, regexp), _require_type(str, source)) is not None
            )
        ),
        "text.replace_all": (
            lambda source, old, new: str(_require_type(str, source)).replace(
                _require_type(str, old), _require_type(str, new)
            )
        ),
        "text.split": lambda source, separator: _require_type(str, source).split(
            _require_type(str, separator)
        ),
        "text.url_encode": lambda source: quote(_require_type(str, source), safe=""),
        "time.format": (
            lambda seconds: datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ),
    }


def call_functions(
    transport: Transport, clock: Clock, log: Callable[[dict[str, Any]], None]
) -> Calls:
    """Return the functions of `call` steps."""

    def sys_log(*, json: Any = None, text: str | None = None, severity: str = "DEFAULT") -> None:
        if severity not in SEVERITIES or (json is None) == (text is None):
            raise engine_error(
                "TypeError",
                f"sys.log takes json or text, and a severity of {', '.join(SEVERITIES)}",
            )
        log(
            {
                "severity": severity,
                **({"jsonPayload": json} if text is None else {"textPayload": text}),
            }
        )

    requests = {
        f"http.{method}": partial(request, transport, method.upper()) for method in HTTP_METHODS
    }
    return {**requests, "sys.log": sys_log, "sys.sleep": lambda *, seconds: clock.sleep(seconds)}


def _require_type(types: type | tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, types):
        raise engine_error("TypeError", f"{type_name(value)} is not what this function takes")
    return value


def _int(value: Any) -> int:
    try:
        return int(_require_type((str, int, float), value))
    except ValueError:
        raise engine_error("ValueError", f"{value!r} is no number") from None


def _string(value: Any) -> str:
    # Python's True is Google's true
    return (
        str(value).lower()
        if isinstance(value, bool)
        else str(_require_type((str, int, float), value))
    )


def _json_decode(value: Any) -> Any:
    try:
        return json.loads(_require_type((str, bytes), value))
    except ValueError as error:
        raise engine_error("ValueError", f"no JSON: {error}") from None


def _map_get(value: Any, keys: Any) -> Any:
    """Return null for a missing key, or a parent that is no map
    (https://cloud.google.com/workflows/docs/reference/stdlib/map/get).
    """
    for key in keys if isinstance(keys, list) else [keys]:
        value = value.get(_require_type(str, key)) if isinstance(value, dict) else None
    return value
