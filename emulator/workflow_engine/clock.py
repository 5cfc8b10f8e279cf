"""Clocks of a workflow: the machine's, with shorter sleeps on request, or a virtual one that only
sleeps advance.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Time of a workflow."""

    def now(self) -> float:
        """Return seconds since 1970-01-01 UTC."""

    def sleep(self, seconds: float) -> None:
        """Wait so many seconds of this clock."""


class RealClock:
    """The machine's clock. Its sleeps are divided by `factor`, since local batches start sooner."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def now(self) -> float:
        """Return the machine's time."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait for the `factor`th part of the seconds."""
        time.sleep(seconds / self.factor)


class VirtualClock:
    """A clock that only sleeps advance. They take no real time; `slept` records them."""

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self.time = now
        self.slept: list[float] = []

    def now(self) -> float:
        """Return the virtual time."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Advance the virtual time."""
        self.slept.append(seconds)
        self.time += seconds
