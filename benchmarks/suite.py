"""The test suite, measured from outside: seconds by file, test and fixture, processes, memory.

    python -m benchmarks.suite                     the whole suite, as CI runs it
    python -m benchmarks.suite --fast              the fast lane
    python -m benchmarks.suite --top 20            the 20 slowest files and fixtures
    python -m benchmarks.suite --json FILE         the figures as JSON, too

Other options go to pytest. Seconds of a file are the sum of its tests' phases: with two workers
they add up to twice the wall time. Requires Linux, because it reads /proc.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from benchmarks.processes import MEGABYTE, PROJECT, proportional_bytes

POLL_SECONDS = 0.3
MEMORY_EVERY = 40
"""Polls between two reads of memory, because a proportional size walks the page tables."""

SLOW_SECONDS = 20.0
"""A test that takes longer gives the reason in its docstring."""

PR_SET_CHILD_SUBREAPER = 36
"""Linux: a daemon whose parent has ended becomes a child of this process, so that it is still
measured.
"""

STARTS = {"java": "JVM", "postgres": "PostgreSQL", "python": "Python"}
"""Programs whose starts are counted; only postmasters for PostgreSQL."""


@dataclass
class Watch:
    """Starts and resources of this process's descendants, read from /proc until `stop` is set."""

    stop: threading.Event = field(default_factory=threading.Event)
    starts: Counter[str] = field(default_factory=Counter)
    peak_bytes: int = 0
    cpu_seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        programs: dict[tuple[int, str], str] = {}
        seconds: dict[tuple[int, str], tuple[str, float]] = {}
        rounds = 0
        while not self.stop.is_set():
            members = _descendants(os.getpid())
            for process in members.values():
                kind = next(
                    (kind for prefix, kind in STARTS.items() if process.name.startswith(prefix)),
                    None,
                )
                parent = members.get(process.parent)
                if kind and not (kind == "PostgreSQL" and parent and parent.name == process.name):
                    programs[process.pid, process.started] = kind
                used = (kind or "other", process.cpu_seconds)
                seconds[process.pid, process.started] = used
            if rounds % MEMORY_EVERY == 0:
                self.peak_bytes = max(self.peak_bytes, sum(map(proportional_bytes, members)))
            rounds += 1
            sleep(POLL_SECONDS)
        self.starts = Counter(programs.values())
        for kind, cpu_seconds in seconds.values():
            self.cpu_seconds[kind] = self.cpu_seconds.get(kind, 0.0) + cpu_seconds


@dataclass(frozen=True)
class Process:
    """A row of /proc/PID/stat (proc(5)): fields 1, 2, 4, 14 + 15 and 22."""

    pid: int
    name: str
    parent: int
    cpu_seconds: float
    started: str


def _descendants(root: int) -> dict[int, Process]:
    """Return descendants by process id, from one read of each process and none of its threads."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    processes = {pid: process for pid in numbers if (process := _process(pid))}
    members: dict[int, Process] = {}
    new = {root}
    while new:
        new = {pid for pid, process in processes.items() if process.parent in new} - members.keys()
        members |= {pid: processes[pid] for pid in new}
    return members


def _process(pid: int) -> Process | None:
    """Return a process; None if it has ended."""
    try:
        head, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
    except OSError:
        return None
    fields = rest.split()
    ticks = int(fields[11]) + int(fields[12])
    name = head.partition(" (")[2]
    return Process(pid, name, int(fields[1]), ticks / os.sysconf("SC_CLK_TCK"), fields[19])


def run_suite(arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run the command `test` to its end.

    Args:
        arguments: Further arguments.
        folder: Receives the reports of the plugin.

    Returns:
        Exit code, wall seconds, processor seconds and starts by program, peak memory in MB, seconds
        by file (`files`), by test (`tests`) and by fixture (`fixtures`, each with its number of
        set-ups).
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    environment = os.environ | {"SUITE_TIMES_DIR": str(folder)}
    command = [sys.executable, str(PROJECT / "run_spark_local.py"), "test"]
    watch = Watch()
    watcher = threading.Thread(target=watch.run)
    watcher.start()
    started = monotonic()
    try:
        code = subprocess.run(
            [*command, *arguments, "-p", "benchmarks.suite_times"], env=environment, check=False
        ).returncode
    finally:
        seconds = monotonic() - started
        watch.stop.set()
        watcher.join()
    reports = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    return {
        "exit_code": code,
        "seconds": seconds,
        "cpu_seconds": watch.cpu_seconds,
        "starts": dict(watch.starts),
        "peak_mb": watch.peak_bytes / MEGABYTE,
        "files": _by_file(reports),
        "tests": _by_test(reports),
        "fixtures": _by_fixture(reports),
    }


def _by_file(reports: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    files: dict[str, dict[str, float]] = {}
    for node, seconds in _by_test(reports).items():
        entry = files.setdefault(node.partition("::")[0], {"tests": 0, "seconds": 0.0})
        entry["tests"] += 1
        entry["seconds"] += seconds
        entry["slowest"] = max(entry.get("slowest", 0.0), seconds)
    return files


def _by_test(reports: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    tests: dict[str, float] = {}
    for report in reports:
        tests |= {node: sum(phases.values()) for node, phases in report["tests"].items()}
    return tests


def _by_fixture(reports: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    fixtures: dict[str, dict[str, float]] = {}
    for report in reports:
        for name, (times, seconds) in report["fixtures"].items():
            entry = fixtures.setdefault(name, {"set_ups": 0, "seconds": 0.0})
            entry["set_ups"] += times
            entry["seconds"] += seconds
    return fixtures


def print_table(figures: Mapping[str, Any], top: int) -> None:
    """Print the slowest files, tests and fixtures, then the totals."""
    print(f"\n{'file':50}{'tests':>8}{'seconds':>10}{'slowest':>10}")
    for name, row in _slowest(figures["files"], top):
        print(f"{name:50}{row['tests']:>8.0f}{row['seconds']:>10.1f}{row['slowest']:>10.1f}")
    print(f"\n{'test':90}{'seconds':>10}")
    for name, seconds in sorted(figures["tests"].items(), key=lambda item: -item[1])[:top]:
        if seconds > SLOW_SECONDS:
            print(f"{name:90}{seconds:>10.1f}")
    print(f"\n{'fixture':50}{'set-ups':>8}{'seconds':>10}")
    for name, row in _slowest(figures["fixtures"], top):
        print(f"{name:50}{row['set_ups']:>8.0f}{row['seconds']:>10.1f}")
    starts = ", ".join(f"{n:.0f} {name}" for name, n in sorted(figures["starts"].items()))
    processor = sorted(figures["cpu_seconds"].items())
    used = ", ".join(f"{number:.0f} {name}" for name, number in processor)
    print(
        f"\nwall {figures['seconds']:.0f} s, peak memory {figures['peak_mb'] / 1024:.1f} GB\n"
        f"started: {starts}\nprocessor seconds: {used}"
    )


def _slowest(rows: Mapping[str, Mapping[str, float]], top: int) -> list[tuple[str, Any]]:
    return sorted(rows.items(), key=lambda item: -item[1]["seconds"])[:top]


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.suite", description="Measure the test suite.")
    parser.add_argument("--top", type=int, default=200, help="rows of each table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options, arguments = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = run_suite(arguments, Path(folder))
    print_table(figures, options.top)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return int(figures["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
