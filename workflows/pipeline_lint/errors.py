"""Errors of a workflow's source."""

from __future__ import annotations

from common.errors import ConfigurationError


def source_error(line: int, message: str) -> ConfigurationError:
    """Return the error of a construct that Google or the interpreter rejects.

    Args:
        line: Line of the source, from 1.
        message: The fault.
    """
    return ConfigurationError(f"workflow source, line {line}: {message}")
