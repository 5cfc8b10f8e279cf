"""Tests of `undo` on random histories: runs of every mode, each of which may be undone.

A hypothesis state machine drives the real job without a JVM. An undone run leaves every table as it
was before that run, and a run after it equals a full recomputation by the oracle. Raw rows change
between a run and its undo. A failing example is printed as the calls that repeat it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.planning.run_request import Request
from database.undo.undo import undo_run
from tests.data_processing.test_incremental_histories import LENIENT
from tests.support import metrics_oracle
from tests.support.changing_sources import ChangingWorld, RunState
from tests.support.metrics_changes import Change, Snapshots, beginnings, changes
from tests.support.metrics_oracle import RawRow, differences_of_tables
from tests.support.metrics_store import job_rows, settings_of
from tests.support.undone_runs import contents

later = st.none() | changes()


@dataclass(frozen=True)
class Before:
    """What was known before a run: the tables, and the oracle's state of the runs before."""

    run_id: str
    tables: dict[str, list[str]]
    last_run: RunState | None
    stored: dict[Any, RawRow]
    reached: Any
    lost_rows: bool


class UndoneHistories(RuleBasedStateMachine):
    """Each rule is one run, or the undo of the last runs."""

    engine: ClassVar[Engine]
    database: ClassVar[Settings]
    undone: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.changing = ChangingWorld(self.engine)
        self.runs: list[Before] = []
        self.sound = True

    @initialize(rows=beginnings())
    def begin(self, rows: list[Snapshots]) -> None:
        with self._step():
            self.changing.apply(rows)

    @rule(changed=changes(), full_refresh=st.booleans(), today=st.booleans(), since=later)
    def run_of_all_pools(
        self, changed: list[Change], full_refresh: bool, today: bool, since: list[Change] | None
    ) -> None:
        with self._step():
            self.changing.apply(changed)
            state = self.changing.state_after_run_now()
            self._run(Request(full_refresh=full_refresh), today=today)
            self.changing.learn(state)
            # rows of today are provisional, and the oracle has none
            if not today:
                self._compare()
            self._undo(1, since)

    @rule(changed=changes(), back=st.integers(0, 30), days=st.integers(1, 30), since=later)
    def backfill(
        self, changed: list[Change], back: int, days: int, since: list[Change] | None
    ) -> None:
        with self._step():
            self.changing.apply(changed)
            end = self.changing.today - timedelta(days=back)
            self._run(Request(start=end - timedelta(days=days), end=end))
            self.changing.partly_computed(job_rows(self.engine))
            self._undo(1, since)

    @rule(changed=changes(), since=later)
    def run_that_removes_days(self, changed: list[Change], since: list[Change] | None) -> None:
        with self._step():
            self.changing.apply(changed)
            self.changing.retire()
            state = self.changing.state_after_run_now()
            self._run(Request(retire_missing=True))
            if state.end:
                self.changing.learn(state)
            self._compare()
            self._undo(1, since)

    @rule(changed=changes(), number=st.integers(2, 3))
    def undo_of_several_runs(self, changed: list[Change], number: int) -> None:
        with self._step():
            self._undo(number, changed)

    def _undo(self, number: int, since: list[Change] | None) -> None:
        """Undo the last runs after changes since them; None undoes nothing."""
        if since is None or not self.runs:
            return
        self.changing.apply(since)
        runs = self.runs[-number:]
        del self.runs[-number:]
        undo_run(self.engine, runs[0].run_id, by="tester@host", cascade=True)
        assert contents(self.engine) == runs[0].tables
        type(self).undone += len(runs)
        self.changing.last_run, self.changing.lost_rows = runs[0].last_run, runs[0].lost_rows
        self.changing.world.stored = runs[0].stored
        self.changing.world.reached = runs[0].reached

    def teardown(self) -> None:
        """End all transactions and run once more; a full run then changes no row."""
        try:
            if self.sound:
                self.changing.close(commit=True)
                self._run(Request())
                full = self._run(Request(full_refresh=True))["rows"]
                expected = metrics_oracle.metrics(self.changing.world)
                assert (full["inserted"], full["updated"]) == (0, 0)
                assert full["unchanged"] == len(expected)
        finally:
            self.changing.close(commit=False)

    @contextmanager
    def _step(self) -> Iterator[None]:
        self.sound = False
        yield
        self.sound = True

    def _run(self, request: Request, *, today: bool = False) -> dict[str, Any]:
        world, tables = self.changing.world, contents(self.engine)
        options = {
            "check_severities": ",".join(f"{name}={level}" for name, level in LENIENT.items()),
            "executor": "inprocess",
            "include_today": today,
        }
        settings = settings_of(self.database, world).model_copy(update=options)
        row = run_metrics(settings, request, now=world.now)
        self.runs.append(
            Before(
                row["run_id"],
                tables,
                self.changing.last_run,
                dict(world.stored),
                world.reached,
                self.changing.lost_rows,
            )
        )
        return row

    def _compare(self) -> None:
        expected = metrics_oracle.metrics(self.changing.days_before(None))
        assert differences_of_tables(job_rows(self.engine), expected) == []


def _run_machine(settings: Settings, connected: Engine, *, examples: int, steps: int) -> int:
    """Return how many runs were undone."""

    class Machine(UndoneHistories):
        engine, database = connected, settings

    run_state_machine_as_test(
        Machine,
        settings=hypothesis_settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
    return Machine.undone


def test_undone_runs_leave_no_trace(database: Settings, engine: Engine) -> None:
    """Takes about 20 s: four histories of seven steps, most of which are runs of the job."""
    assert _run_machine(database, engine, examples=4, steps=7) > 0


@pytest.mark.long
def test_many_undone_runs_leave_no_trace(database: Settings, engine: Engine) -> None:
    assert _run_machine(database, engine, examples=150, steps=10) > 100
