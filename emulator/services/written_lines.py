"""Lines that a container wrote, with the time each was first read. Reads the output files of its
process repeatedly. A line is complete when its end is written or the process has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emulator.services.batch_lifecycle import BatchLifecycle

STREAMS = ("stdout", "stderr")


@dataclass(frozen=True)
class WrittenLine:
    """A line without its end; `seen` is seconds since the epoch."""

    stream: str
    number: int
    text: str
    seen: float


class WrittenLines:
    """Lines of one execution."""

    def __init__(self) -> None:
        self.lines: list[WrittenLine] = []
        self._read = dict.fromkeys(STREAMS, 0)
        self._is_complete = False

    def read_new(self, lifecycle: BatchLifecycle, now: float) -> None:
        """Read the lines since the last call."""
        if self._is_complete:
            return
        self._is_complete = lifecycle.done
        errors: Path | None = getattr(lifecycle.running, "errors", None)
        contents = {
            "stdout": lifecycle.output(),
            "stderr": errors.read_bytes() if errors and errors.is_file() else b"",
        }
        for stream, content in contents.items():
            # the last line of an ended process may have no end
            end = len(content) if lifecycle.done else content.rfind(b"\n") + 1
            new = content[self._read[stream] : end]
            self._read[stream] = max(end, self._read[stream])
            for line in new.decode(errors="replace").splitlines():
                self.lines.append(WrittenLine(stream, len(self.lines), line, now))
