"""What goes wrong in a workflow, as Google names it: an error is a map with `tags` and `message`
(or what `raise` was given).

Tags: https://cloud.google.com/workflows/docs/reference/syntax/error-types. What the interpreter
does not know is no error of the workflow but a ConfigurationError of its source, which no `except`
catches.
"""

from __future__ import annotations

from typing import Any


class Raised(Exception):
    """An error on its way to an `except`. The payload is what `as` receives; trail names the steps
    it passed, innermost first.
    """

    def __init__(self, payload: Any) -> None:
        super().__init__(payload)
        self.payload = payload
        self.trail: list[str] = []


class WorkflowFailed(Exception):
    """The execution ended with an error that no `except` caught. Its payload is the map, or the
    string, that was raised.
    """

    def __init__(self, payload: Any, trail: list[str]) -> None:
        message = payload.get("message", payload) if isinstance(payload, dict) else payload
        super().__init__(f"{message} (in step {', of '.join(trail)})" if trail else str(message))
        self.payload = payload
        self.trail = trail


def raised(tag: str, message: str, **more: Any) -> Raised:
    """An error of the engine itself, such as KeyError or TypeError."""
    return Raised({"tags": [tag], "message": message, **more})
