"""Errors of a workflow, in Google's form: a map with `tags` and `message`, or the value of `raise`.
An unsupported construct is a ConfigurationError of the source instead, which no `except`
catches.

Tags: https://cloud.google.com/workflows/docs/reference/syntax/error-types
"""

from __future__ import annotations

from typing import Any


class Raised(Exception):
    """An error that propagates to an `except`.

    Attributes:
        payload: The value that `as` receives.
        trail: Steps that it passed, innermost first.
    """

    def __init__(self, payload: Any) -> None:
        super().__init__(payload)
        self.payload = payload
        self.trail: list[str] = []


class WorkflowFailed(Exception):
    """An execution ended with an uncaught error. `payload` is the map or text that was raised."""

    def __init__(self, payload: Any, trail: list[str]) -> None:
        message = payload.get("message", payload) if isinstance(payload, dict) else payload
        super().__init__(f"{message} (in step {', of '.join(trail)})" if trail else str(message))
        self.payload = payload
        self.trail = trail


def engine_error(tag: str, message: str, **more: Any) -> Raised:
    """Return an error of the engine itself, such as KeyError or TypeError."""
    return Raised({"tags": [tag], "message": message, **more})
