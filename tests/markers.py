"""pytest plugin: what a test needs, as markers that follow from its fixtures, and are true.

`spark` needs a JVM, `postgres` a database server, `process` starts the product as a process of its
own; `unit` needs none of them. `python run_spark_local.py test --fast` runs what needs neither JVM
nor server. A test that starts a program which its markers do not name fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FIXTURES = {
    "spark": {"spark", "jvm", "newcomer", "recorded", "case", "repository"},
    "postgres": {"server", "own_server", "server_programs", "server_address", "newcomer"},
    "process": {"run", "clone", "newcomer", "recorded", "case", "emulator", "jvm", "twice"},
}
"""Fixtures by the marker that they bring."""

PROGRAMS = {
    "spark": {"java", "spark-submit", "spark-class"},
    "postgres": {"initdb", "pg_ctl", "postgres"},
}
"""Programs that only a test with the marker starts."""

_markers: set[str] | None = None
"""Of the test that runs; None between tests."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        markers = [marker for marker, names in FIXTURES.items() if names & fixtures]
        for marker in markers or ["unit"]:
            item.add_marker(marker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with _watched(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _watched(item):
        return (yield)


@contextmanager
def _watched(item: pytest.Item) -> Iterator[None]:
    """Not at the end of a test: there the fixtures of a whole module may end too."""
    global _markers
    _markers = {marker.name for marker in item.iter_markers()}
    try:
        yield
    finally:
        _markers = None


def _watch_programs(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "subprocess.Popen" or _markers is None:
        return
    executable, command = arguments[:2]
    program = Path(os.fsdecode(executable or command[0])).name
    for marker, programs in PROGRAMS.items():
        if program in programs and marker not in _markers:
            fixtures = ", ".join(sorted(FIXTURES[marker]))
            raise AssertionError(
                f"{program} is started by a test that is not marked `{marker}`:"
                f" take one of its fixtures ({fixtures})"
            )


sys.addaudithook(_watch_programs)
