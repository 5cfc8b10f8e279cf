"""States of one emulated batch over time, by a script or by a real process, and its usage. Times
are seconds since the epoch. `advance` catches up with the time and dates each state when it was
due.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from emulator.services.dataproc_usage import MIN_BILLED_SECONDS, dcu_and_shuffle_gb

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})

CANCELLED_BY_REQUEST = "Batch was cancelled."
CANCELLED_BY_TTL = "Batch was cancelled because it exceeded its ttl of {ttl} seconds."
"""The service's messages are not public, so the product must not parse these."""


class RunningBatch(Protocol):
    """A batch that runs as a process."""

    @property
    def output(self) -> Path | bytes:
        """Return what the driver has written, or the file that has it."""

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""

    def cancel(self) -> None:
        """Request its end; `poll` reports it."""


Runner = Callable[[dict[str, Any], str], RunningBatch]
"""Starts a batch and returns at once. Receives the requested batch, with name and
runtimeInfo.outputUri, and its id.
"""


@dataclass(frozen=True)
class BatchScript:
    """Behaviour of a batch that does not really run. Durations are seconds; `end` None never ends
    by itself; `keeps_ttl` False ignores the request's ttl; usage is of `least_billed_seconds` or
    more.
    """

    pending_seconds: float = 30.0
    running_seconds: float = 300.0
    end: Literal["SUCCEEDED", "FAILED", "CANCELLED"] | None = "SUCCEEDED"
    message: str = ""
    cancelling_seconds: float = 10.0
    usage_delay_seconds: float = 60.0
    least_billed_seconds: float = MIN_BILLED_SECONDS
    keeps_ttl: bool = True
    output: bytes = b""


class BatchLifecycle:
    """States of one batch. `history` has (state, message, start of the state), newest last."""

    def __init__(
        self,
        request: Mapping[str, Any],
        script: BatchScript,
        started: float,
        start: Callable[[], RunningBatch] | None = None,
    ) -> None:
        """Args:
        request: The requested batch.
        script: Behaviour of the batch.
        started: Creation time.
        start: Starts the real process; default: the script decides the end.
        """
        self.history: list[tuple[str, str, float]] = [("PENDING", "", started)]
        self.running: RunningBatch | None = None
        self._script = script
        self._start = start
        execution = request.get("environmentConfig", {}).get("executionConfig", {})
        self._ttl = _seconds(execution.get("ttl")) if script.keeps_ttl else 0.0
        self._load = dcu_and_shuffle_gb(request.get("runtimeConfig", {}).get("properties", {}))
        self._cancel: tuple[float, str] | None = None

    @property
    def state(self) -> str:
        """Return the present state, by the REST API's name."""
        return self.history[-1][0]

    @property
    def done(self) -> bool:
        """Return whether the batch has ended."""
        return self.state in TERMINAL

    @property
    def since(self) -> float:
        """Return when the present state began."""
        return self.history[-1][2]

    def advance(self, now: float) -> None:
        """Enter the states that are due."""
        if self.state == "PENDING" and now >= self.since + self._script.pending_seconds:
            self._begin(self.since + self._script.pending_seconds)
        if self.state == "RUNNING":
            self._advance_running(now)
        if self.state == "CANCELLING":
            self._end_cancelling(now)

    def cancel(self, now: float, message: str = CANCELLED_BY_REQUEST) -> None:
        """Request the end; an ended batch is unchanged."""
        if self.done or self.state == "CANCELLING":
            return
        self._enter("CANCELLING", "", now)
        # a real process ends when it ends; only a script has a duration
        self._cancel = (now + (0.0 if self.running else self._script.cancelling_seconds), message)
        if self.running:
            self.running.cancel()
        self._end_cancelling(now)

    def usage(self, now: float) -> dict[str, int] | None:
        """Return milliDcuSeconds and shuffleStorageGbSeconds; None until `usage_delay_seconds`
        after the end, and for a batch that never ran.
        """
        # without PENDING: Google does not document whether the start is billed
        durations = [
            end - start
            for (state, _, start), end in zip(self.history, self._ends(), strict=True)
            if state in ("RUNNING", "CANCELLING")
        ]
        ran = any(state == "RUNNING" for state, _, _ in self.history)
        if not self.done or not ran or now < self.since + self._script.usage_delay_seconds:
            return None
        dcu, shuffle_gb = self._load
        billed = max(sum(durations), self._script.least_billed_seconds)
        return {
            "milliDcuSeconds": round(dcu * 1000 * billed),
            "shuffleStorageGbSeconds": round(shuffle_gb * billed),
        }

    def current_usage(self) -> dict[str, int] | None:
        """Return milliDcu and shuffleStorageGb while it runs."""
        if self.state != "RUNNING":
            return None
        dcu, shuffle_gb = self._load
        return {"milliDcu": round(dcu * 1000), "shuffleStorageGb": round(shuffle_gb)}

    def output(self) -> bytes:
        """Return what the driver has written."""
        if self.running is None:
            return self._script.output if self.state != "PENDING" else b""
        output = self.running.output
        if isinstance(output, bytes):
            return output
        return output.read_bytes() if output.is_file() else b""

    def _begin(self, when: float) -> None:
        self._enter("RUNNING", "", when)
        if self._start is None:
            return
        try:
            self.running = self._start()
        except Exception as error:
            # as a driver that cannot be started, which fails the batch and not the service
            self._enter("FAILED", f"{type(error).__name__}: {error}", when)

    def _advance_running(self, now: float) -> None:
        expiry = self.since + self._ttl if self._ttl else None
        if self._start is None:
            end = self.since + self._script.running_seconds if self._script.end else None
            if end is not None and end <= now and (expiry is None or end <= expiry):
                self._enter(str(self._script.end), self._script.message, end)
        elif self.running and (code := self.running.poll()) is not None:
            self._enter(
                "FAILED" if code else "SUCCEEDED",
                f"the driver ended with exit code {code}" if code else "",
                now,
            )
        if self.state == "RUNNING" and expiry is not None and now >= expiry:
            # dated at the ttl, however late this is called
            self.cancel(expiry, CANCELLED_BY_TTL.format(ttl=round(self._ttl)))

    def _end_cancelling(self, now: float) -> None:
        if (
            self._cancel is None
            or now < self._cancel[0]
            or (self.running and self.running.poll() is None)
        ):
            return
        self._enter("CANCELLED", self._cancel[1], now if self.running else self._cancel[0])

    def _enter(self, state: str, message: str, when: float) -> None:
        self.history.append((state, message, when))

    def _ends(self) -> list[float]:
        starts = [start for _, _, start in self.history]
        # the last state has no end yet, and no duration
        return [*starts[1:], starts[-1]]


def _seconds(duration: str | None) -> float:
    """Parse a protobuf duration such as 600s or 0.5s; 0 for none."""
    return float(duration.removesuffix("s")) if duration else 0.0
