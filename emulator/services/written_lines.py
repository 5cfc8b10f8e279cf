"""The lines that a container wrote, with the time each was first seen.

Input: the state of a `BatchLifecycle` and the files of its process, read repeatedly. Output: lines
in the order of those reads, from standard output or standard error. A line is complete when its end
is written or its process has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emulator.services.batch_lifecycle import BatchLifecycle

STREAMS = ("stdout", "stderr")


@dataclass(frozen=True)
class WrittenLine:
    """A line without its end; seen is in seconds since the epoch."""

    stream: str
    number: int
    text: str
    seen: float


class WrittenLines:
    """Those of one execution."""

    def __init__(self) -> None:
        self.lines: list[WrittenLine] = []
        self._read = dict.fromkeys(STREAMS, 0)
        self._is_whole = False

    def look(self, life: BatchLifecycle, now: float) -> None:
        """Take in what was written since the last look."""
        if self._is_whole:
            return
        self._is_whole = life.done
        errors: Path | None = getattr(life.running, "errors", None)
        contents = {
            "stdout": life.output(),
            "stderr": errors.read_bytes() if errors and errors.is_file() else b"",
        }
        for stream, content in contents.items():
            # a process that has ended writes no more: its last line may have no end
            end = len(content) if life.done else content.rfind(b"\n") + 1
            new = content[self._read[stream] : end]
            self._read[stream] = max(end, self._read[stream])
            for line in new.decode(errors="replace").splitlines():
                self.lines.append(WrittenLine(stream, len(self.lines), line, now))
