"""One process to its end, measured from outside: wall and processor seconds and peak memory, its
family's and the PostgreSQL server's.

In: a command and its environment. Out: a `Timing`; a job's ledger row is taken from its standard
output. Memory is in MB (2^20 bytes). Processor seconds and memory are read from /proc, five times a
second, and are 0 where there is none. A family is the process and all its descendants: driver, JVM
and Python workers together.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]

WATCH_SECONDS = 0.2

SERVER_EVERY = 5
"""The server's memory is looked at every fifth time: a proportional size costs a walk through the
page tables.
"""

MEGABYTE = 2**20

PASSIVE_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""For a process with LightGBM, which reads it when it is loaded: on busy cores its threads spin for
minutes otherwise.
"""


@dataclass(frozen=True)
class Timing:
    """One run of a case.

    cpu_seconds are the family's and the server's together: less at the mercy of what else the
    machine does than wall seconds. stages, rows and ledger_seconds are the ledger's and empty for a
    peer; error is the last words of a process that failed.
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
    """Run one process to its end; a failing one is a `Timing` with an error.

    Args: folder is where it runs: not the checkout, whose `.env` is the developer's. server is the
    process id of PostgreSQL's postmaster.
    """
    began = monotonic()
    process = subprocess.Popen(
        command,
        env=dict(environment),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = _Watch(process, server)
    watch.start()
    try:
        out, err = process.communicate()
    finally:
        # one that ended is not touched; one that is left by an interrupt must not go on beside what
        # comes next
        process.kill()
    seconds = monotonic() - began
    watch.join()
    ledger: dict[str, Any] = json.loads(out) if out.startswith("{") else {}
    return Timing(
        case,
        round(seconds, 2),
        round(watch.cpu_seconds, 1),
        round(watch.family_bytes / MEGABYTE),
        round(watch.server_bytes / MEGABYTE),
        ledger.get("status"),
        ledger.get("seconds"),
        ledger.get("stages", {}),
        ledger.get("rows", {}),
        f"exit code {process.returncode}: {err[-2000:].strip()}" if process.returncode else None,
    )


class _Watch(threading.Thread):
    """Looks at the process while it runs and keeps the largest sizes seen, and each process's
    processor time as last seen.
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
        looks = 0
        while self.process.poll() is None:
            own, server = family(self.process.pid), self._server_family()
            self.family_bytes = max(self.family_bytes, sum(resident_bytes(pid) for pid in own))
            if looks % SERVER_EVERY == 0:
                self.server_bytes = max(
                    self.server_bytes, sum(proportional_bytes(pid) for pid in server)
                )
            for pid in (*own, *server):
                self._seen[pid] = max(self._seen.get(pid, 0.0), processor_seconds(pid))
            looks += 1
            sleep(WATCH_SECONDS)

    def _server_family(self) -> list[int]:
        return [] if self.server is None else family(self.server)


def family(root: int) -> list[int]:
    """The process and all its descendants."""
    try:
        children = [
            int(child)
            for path in Path(f"/proc/{root}/task").glob("*/children")
            for child in path.read_text().split()
        ]
    except OSError:
        return []  # it ended between two looks
    return [root, *(descendant for child in children for descendant in family(child))]


def resident_bytes(pid: int) -> int:
    """What the process has in memory, shared pages included: an upper bound for a family, and cheap
    to read.
    """
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def proportional_bytes(pid: int) -> int:
    """As `resident_bytes`, but a shared page counts by its share: PostgreSQL's processes all map
    the same buffers.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def processor_seconds(pid: int) -> float:
    """User and system time of the process itself, without its children (proc(5), fields 14 and 15
    of stat).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
