"""One batch of the Dataproc double over time: the states it goes through, by a script or by really
running it, and what it used.

In: the request, a script or a runner, and the time of each look (seconds since the epoch). Out:
states with the times they began, message, usage. Nothing happens between two looks: `advance`
catches up, each state dated when it was due. No HTTP and no JSON of the service here.
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
"""The service's own words for these two are not public: nothing may read them."""


class RunningBatch(Protocol):
    """A batch that really runs."""

    @property
    def output(self) -> Path | bytes:
        """What the driver wrote so far, or the file that has it."""

    def poll(self) -> int | None:
        """The exit code, None while it runs."""

    def cancel(self) -> None:
        """Ask it to end; `poll` tells when it has."""


Runner = Callable[[dict[str, Any], str], RunningBatch]
"""Starts a batch: takes the batch as it was requested, with its name and runtimeInfo.outputUri, and
its id. Returns at once.
"""


@dataclass(frozen=True)
class BatchScript:
    """What a batch does that no one really runs. Seconds; end None never ends by itself; keeps_ttl
    False forgets the request's ttl.
    """

    pending_seconds: float = 30.0
    running_seconds: float = 300.0
    end: Literal["SUCCEEDED", "FAILED", "CANCELLED"] | None = "SUCCEEDED"
    message: str = ""
    cancelling_seconds: float = 10.0
    usage_delay_seconds: float = 60.0
    keeps_ttl: bool = True
    output: bytes = b""


class BatchLifecycle:
    """The states of one batch. `history` holds (state, message, when it began), the newest last."""

    def __init__(
        self,
        request: Mapping[str, Any],
        script: BatchScript,
        started: float,
        start: Callable[[], RunningBatch] | None = None,
    ) -> None:
        """Args: start runs the batch when it is due; without it the script says how the
        batch ends.
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
        return self.history[-1][0]

    @property
    def done(self) -> bool:
        return self.state in TERMINAL

    @property
    def since(self) -> float:
        """When the present state began."""
        return self.history[-1][2]

    def advance(self, now: float) -> None:
        """Go through the states that are due by now."""
        if self.state == "PENDING" and now >= self.since + self._script.pending_seconds:
            self._begin(self.since + self._script.pending_seconds)
        if self.state == "RUNNING":
            self._go_on(now)
        if self.state == "CANCELLING":
            self._end_cancelling(now)

    def cancel(self, now: float, message: str = CANCELLED_BY_REQUEST) -> None:
        """Ask it to end; a batch that has ended stays as it is."""
        if self.done or self.state == "CANCELLING":
            return
        self._enter("CANCELLING", "", now)
        self._cancel = (now + (0.0 if self.running else self._script.cancelling_seconds), message)
        if self.running:
            self.running.cancel()
        self._end_cancelling(now)

    def usage(self, now: float) -> dict[str, int] | None:
        """milliDcuSeconds and shuffleStorageGbSeconds; None until `usage_delay_seconds` after the
        end, and for a batch that never ran.
        """
        held = [
            end - start
            for (state, _, start), end in zip(self.history, self._ends(), strict=True)
            if state in ("RUNNING", "CANCELLING")
        ]
        ran = any(state == "RUNNING" for state, _, _ in self.history)
        if not self.done or not ran or now < self.since + self._script.usage_delay_seconds:
            return None
        dcu, shuffle_gb = self._load
        billed = max(sum(held), MIN_BILLED_SECONDS)
        return {
            "milliDcuSeconds": round(dcu * 1000 * billed),
            "shuffleStorageGbSeconds": round(shuffle_gb * billed),
        }

    def present_use(self) -> dict[str, int] | None:
        """milliDcu and shuffleStorageGb while it runs."""
        if self.state != "RUNNING":
            return None
        dcu, shuffle_gb = self._load
        return {"milliDcu": round(dcu * 1000), "shuffleStorageGb": round(shuffle_gb)}

    def output(self) -> bytes:
        """What the driver wrote so far."""
        if self.running is None:
            return self._script.output if self.state != "PENDING" else b""
        written = self.running.output
        return (
            written
            if isinstance(written, bytes)
            else written.read_bytes()
            if written.is_file()
            else b""
        )

    def _begin(self, when: float) -> None:
        self._enter("RUNNING", "", when)
        if self._start is None:
            return
        try:
            self.running = self._start()
        except Exception as error:
            self._enter("FAILED", f"{type(error).__name__}: {error}", when)

    def _go_on(self, now: float) -> None:
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
        return [*starts[1:], starts[-1]]


def _seconds(duration: str | None) -> float:
    """A protobuf duration's JSON form, such as 600s or 0.5s; 0 for none."""
    return float(duration.removesuffix("s")) if duration else 0.0
