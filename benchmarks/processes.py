"""Runs a process and measures it from outside: wall and processor seconds, and peak memory of its
family (driver, JVM, Python workers) and of the PostgreSQL server. Reads /proc five times a second;
without /proc the figures are 0. MB are 2^20 bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import monotonic, sleep
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]

POLL_SECONDS = 0.2

SERVER_EVERY = 5
"""The server's memory is read at every fifth poll, because a proportional size walks the
page tables.
"""

MEGABYTE = 2**20

PASSIVE_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""For a process with LightGBM: otherwise its threads spin for minutes on busy cores."""


@dataclass(frozen=True)
class Timing:
    """One run of a case.

    Attributes:
        case: Name of the case.
        seconds: Wall time.
        cpu_seconds: Of family and server; depends less on other processes than wall time.
        peak_mb: Peak memory of the family.
        server_mb: Peak memory of the server.
        status: Status in the ledger.
        ledger_seconds: Seconds in the ledger; None for a peer.
        stages: Seconds by stage of the ledger.
        rows: Rows of the ledger.
        error: End of the output of a failed process.
    """

    case: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    server_mb: float
    status: str | None
    ledger_seconds: float | None
    stages: Mapping[str, float]
    rows: Mapping[str, int]
    error: str | None = None


def measure(
    case: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path,
    server: int | None = None,
) -> Timing:
    """Run one process to its end; a failed one is a `Timing` with an error.

    Args:
        case: Name of the case.
        command: Command line.
        environment: Its variables.
        folder: Working folder; not the checkout, whose `.env` is the developer's.
        server: Process id of PostgreSQL's postmaster.
    """
    started = monotonic()
    process = subprocess.Popen(
        command,
        env=dict(environment),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    monitor = _Monitor(process, server)
    monitor.start()
    try:
        out, err = process.communicate()
    finally:
        # no effect on an ended process; after an interrupt it must not disturb the next run
        process.kill()
    seconds = monotonic() - started
    monitor.join()
    ledger: dict[str, Any] = json.loads(out) if out.startswith("{") else {}
    return Timing(
        case,
        round(seconds, 2),
        round(monitor.cpu_seconds, 1),
        round(monitor.family_bytes / MEGABYTE),
        round(monitor.server_bytes / MEGABYTE),
        ledger.get("status"),
        ledger.get("seconds"),
        ledger.get("stages", {}),
        ledger.get("rows", {}),
        f"exit code {process.returncode}: {err[-2000:].strip()}" if process.returncode else None,
    )


class _Monitor(threading.Thread):
    """Polls the process while it runs; keeps the largest sizes, and the last processor time of each
    process.
    """

    def __init__(self, process: subprocess.Popen[str], server: int | None) -> None:
        super().__init__(daemon=True)
        self.process, self.server = process, server
        self.family_bytes = self.server_bytes = 0
        self._before = {pid: processor_seconds(pid) for pid in self._server_family()}
        self._seen: dict[int, float] = {}

    @property
    def cpu_seconds(self) -> float:
        return sum(seconds - self._before.get(pid, 0.0) for pid, seconds in self._seen.items())

    def run(self) -> None:
        polls = 0
        while self.process.poll() is None:
            members, server = family(self.process.pid), self._server_family()
            self.family_bytes = max(self.family_bytes, sum(resident_bytes(pid) for pid in members))
            if polls % SERVER_EVERY == 0:
                self.server_bytes = max(
                    self.server_bytes, sum(proportional_bytes(pid) for pid in server)
                )
            for pid in (*members, *server):
                self._seen[pid] = max(self._seen.get(pid, 0.0), processor_seconds(pid))
            polls += 1
            sleep(POLL_SECONDS)

    def _server_family(self) -> list[int]:
        return [] if self.server is None else family(self.server)


def family(root: int) -> list[int]:
    """Return the process and all its descendants."""
    try:
        files = list(Path(f"/proc/{root}/task").glob("*/children"))
        children = " ".join(path.read_text() for path in files).split()
    except OSError:
        # it ended between two polls
        return []
    return [root, *chain.from_iterable(family(int(child)) for child in children)]


def resident_bytes(pid: int) -> int:
    """Return resident memory with shared pages: an upper bound for a family, and cheap to read."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def proportional_bytes(pid: int) -> int:
    """Return resident memory with shared pages by their share, because PostgreSQL's processes map
    the same buffers.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def processor_seconds(pid: int) -> float:
    """Return user and system time of the process without its children (proc(5), fields 14 and 15 of
    stat).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
