"""Tests that the suite may run over midnight: no module of the tests reads the clock when it is
imported, and no test begins in the last minutes of a day.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.support.current_day import seconds_until_a_test_may_begin
from tests.support.processes import PROJECT

CLOCK = {"now", "today", "yesterday", "tomorrow", "utcnow", "days_ago"}
"""Names of functions that read the clock, without their module."""


def calls_at_import(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls of a module that are no part of a function's body."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in (*node.decorator_list, node.args):
                # in an expression, as a call that is the root would not be yielded
                root = ast.Expression(part) if isinstance(part, ast.Call) else part
                yield from calls_at_import(root)
        elif not isinstance(node, ast.Lambda):
            if isinstance(node, ast.Call):
                yield node
            yield from calls_at_import(node)


def clock_reads(source: str) -> list[int]:
    """Return the lines that read the clock when the module is imported."""
    return [
        call.lineno
        for call in calls_at_import(ast.parse(source))
        # `time(6, 30)` is a time of day
        if _name(call.func) in CLOCK or (_name(call.func) == "time" and not call.args)
    ]


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def test_no_module_of_the_tests_reads_the_clock_when_it_is_imported() -> None:
    found = {
        str(path.relative_to(PROJECT)): lines
        for path in (PROJECT / "tests").rglob("*.py")
        if (lines := clock_reads(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("NOW = datetime.now(UTC)", [1]),
        ("DAY = dt.date.today() - DAYS", [1]),
        ("class A:\n    day = today()", [2]),
        ("@parametrize('day', [days_ago(2)])\ndef test(day): ...", [1]),
        ("def late(day=today()): ...", [1]),
        ("def late():\n    return today()", []),
        ("late = lambda: today()", []),
        ("START = time(6, 30)", []),
        ("START = time.time()", [1]),
    ],
)
def test_a_read_of_the_clock_is_found(source: str, lines: list[int]) -> None:
    assert clock_reads(source) == lines


@pytest.mark.parametrize(
    ("at", "seconds"),
    [("23:54:59", 0.0), ("23:55:01", 299.0), ("23:59:59", 1.0), ("00:00:00", 0.0)],
)
def test_a_test_waits_for_the_next_day(at: str, seconds: float) -> None:
    now = datetime.fromisoformat(f"2026-12-31T{at}").replace(tzinfo=UTC)
    assert seconds_until_a_test_may_begin(now) == seconds
