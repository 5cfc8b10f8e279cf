"""pytest plugin of `benchmarks.suite`: writes seconds by test and by fixture as JSON to
`SUITE_TIMES_DIR`, one file for each pytest process. The controller has the tests, each worker its
fixtures. A fixture's seconds exclude those of fixtures that it requests by name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

_fixtures: dict[str, list[float]] = {}
_tests: dict[str, dict[str, float]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    started = perf_counter()
    try:
        return (yield)
    finally:
        entry = _fixtures.setdefault(fixturedef.argname, [0, 0.0])
        entry[0] += 1
        entry[1] += perf_counter() - started


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _tests.setdefault(report.nodeid, {})[report.when] = report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    name = os.environ.get("PYTEST_XDIST_WORKER", "main")
    tests = {} if hasattr(session.config, "workerinput") else _tests
    path = Path(os.environ["SUITE_TIMES_DIR"]) / f"{name}.json"
    path.write_text(json.dumps({"fixtures": _fixtures, "tests": tests}), encoding="utf-8")
