"""What a workflow takes for time: the machine's clock, with shorter sleeps if one likes, or one
that only its own sleeps move.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""

    def sleep(self, seconds: float) -> None:
        """Wait, as long as the clock makes of that many seconds."""


class RealClock:
    """The machine's clock. Its sleeps take a `factor`-th of what was asked: a local batch is there
    sooner than the service's.
    """

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / self.factor)


class VirtualClock:
    """Stands still but for sleeps, which take no time; `slept` has them in order."""

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self.time = now
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
