"""pytest plugin: sets markers from the fixtures of a test, and enforces them.

`spark` needs a JVM, `postgres` a database server, `process` starts another program or process,
`unit` none of them; `test --fast` runs the `unit` tests. A test that starts a process without the
marker fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

FIXTURES = {
    "spark": {"spark", "jvm", "newcomer", "recorded", "case", "repository"},
    "postgres": {"server", "own_server", "server_programs", "server_address", "newcomer"},
    "process": {"processes"},
}
"""Fixtures of each marker, also if another fixture uses them."""

PROGRAMS = {
    "spark": {"java", "spark-submit", "spark-class"},
    "postgres": {"initdb", "pg_ctl", "postgres"},
}
"""Programs that only tests with the marker may start."""

STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}
"""Python's audit events for the start of a process; multiprocessing's `spawn` and `forkserver`
raise none.
"""

_markers: set[str] | None = None
"""Markers of the running test; None between tests."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        markers = [marker for marker, names in FIXTURES.items() if names & fixtures]
        for marker in markers or ["unit"]:
            item.add_marker(marker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with _record_markers(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _record_markers(item):
        return (yield)


@contextmanager
def _record_markers(item: pytest.Item) -> Iterator[None]:
    """Set the markers for the block. Not at teardown, which may also end fixtures of the module."""
    global _markers
    _markers = {marker.name for marker in item.iter_markers()}
    try:
        yield
    finally:
        _markers = None


def _watch_starts(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in STARTS or _markers is None:
        return
    program = event
    if event == "subprocess.Popen":
        executable, command = arguments[:2]
        program = Path(os.fsdecode(executable or command[0])).name
    for marker, programs in PROGRAMS.items():
        if program in programs and marker not in _markers:
            _refuse(program, marker)
    if not _markers & FIXTURES.keys():
        _refuse(program, "process")


def _refuse(program: str, marker: str) -> NoReturn:
    fixtures = ", ".join(sorted(FIXTURES[marker]))
    raise AssertionError(
        f"{program} is started by a test that is not marked `{marker}`: take one of the fixtures"
        f" that bring the marker ({fixtures})"
    )


sys.addaudithook(_watch_starts)
