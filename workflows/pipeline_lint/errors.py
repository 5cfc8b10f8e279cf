"""The error of a workflow source that this product, or Google, does not take."""

from __future__ import annotations

from common.errors import ConfigurationError


def refused(line: int, message: str) -> ConfigurationError:
    """A construct that this interpreter, or Google, does not take; found before the first step
    runs.
    """
    return ConfigurationError(f"workflow source, line {line}: {message}")
