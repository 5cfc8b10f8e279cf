"""Writing without loss: real runs of the metrics job that meet a fault, and what the tables hold afterwards.

The tables are as they were before, or as an undisturbed run leaves them, never between; the next run repairs by itself. `-m long` runs the matrix,
each case with both transports; what is not marked is a small part of it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config_spark import Settings
from tests.fault_cases import Case, Worked, case_of, worked_database
from tests.fault_database import ledger

long = pytest.mark.long
both = pytest.mark.parametrize("case", ["adbc", "jdbc"], indirect=True)


@pytest.fixture(scope="module")
def worked(server: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worked]:
    if not Path("/proc/self/environ").exists():
        pytest.skip("needs Linux's /proc to see which processes outlive a driver")
    with worked_database(server, tmp_path_factory.mktemp("undisturbed")) as made:
        yield made


@pytest.fixture
def case(request: pytest.FixtureRequest, server: Settings, worked: Worked, tmp_path: Path) -> Iterator[Case]:
    with case_of(server, worked, tmp_path, request.param) as made:
        yield made


def at(stage: str, edge: str, statement: str | None = None) -> dict[str, Any]:
    """A point of a run, as `fault_process` takes it."""
    return {"stage": stage, "edge": edge} | ({"statement": statement} if statement else {})


BEFORE_THE_COMMIT = {
    "plan begins": at("plan", "before"),
    "plan made": at("plan", "after", r"CREATE .*TABLE yieldspark\.staging"),
    "plan committed": at("session", "before"),
    "session started": at("read", "before"),
    "rows read": at("transform", "before"),
    "transformed": at("load", "before"),
    "staging made": at("load", "after", r"CREATE .*TABLE yieldspark\.staging"),
    "staging loaded": at("merge", "before"),
    "merge begins": at("merge", "after", "LOCK TABLE"),
    "rows merged": at("merge", "after", "INSERT INTO .*pool_daily_metrics"),
    "ledger written": at("merge", "after", r"UPDATE yieldspark\.run_ledger"),
    "commit begins": at("merge", "before", "^COMMIT$"),
}


def killed_before_the_commit(case: Case, point: dict[str, Any]) -> None:
    run = case.start(point | {"do": "kill"})
    assert run.wait() == -signal.SIGKILL, run.errors
    run.all_have_ended()
    case.is_as_before()
    assert ledger(case.engine)[-1] == ("running", None)
    case.repairs_itself()


@long
@both
@pytest.mark.parametrize("point", BEFORE_THE_COMMIT)
def test_a_driver_killed_before_the_commit_has_changed_nothing(case: Case, point: str) -> None:
    killed_before_the_commit(case, BEFORE_THE_COMMIT[point])
