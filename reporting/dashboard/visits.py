"""Counts the pages that are being made, so that work in the background waits for visitors.

Streamlit makes each page in a thread of the server, for every visit and click.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_made = 0
_last_end: float | None = None


@contextmanager
def counted() -> Iterator[None]:
    """Count a page while the block makes it."""
    global _made, _last_end
    with _lock:
        _made += 1
    try:
        yield
    finally:
        with _lock:
            _made -= 1
            _last_end = time.monotonic()


def quiet_seconds() -> float:
    """Return the time since the last page was made; 0 while one is, and before the first."""
    with _lock:
        if _made or _last_end is None:
            return 0.0
        return time.monotonic() - _last_end
