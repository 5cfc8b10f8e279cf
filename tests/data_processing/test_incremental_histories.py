"""Tests that incremental runs equal full ones: random histories of many pools, each run compared
with a full recomputation by the oracle.

A hypothesis state machine drives the real job (real Spark, real PostgreSQL). One example is an
empty database with up to 14 pools, each with its own history, and a few runs. Raw rows are pruned
and inserted again with new ids in between. A failing example is printed as the calls that repeat
it.

Every test prints its seed: `HISTORIES_SEED=n pytest
tests/data_processing/test_incremental_histories.py` runs the same examples again (and overrules
`--hypothesis-seed`). The long form is `python run_spark_local.py test -m long -k histories -s`;
HISTORIES=n changes the number of examples from 1,000.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from common.errors import CheckFailed, DatabaseError
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.checks.catalogue import CATALOGUE
from data_processing.planning.run_request import Request
from database.connections.engine import make_engine
from database.schema.owner_tables import METRIC_COLUMNS
from tests.support import metrics_oracle
from tests.support.changing_sources import ChangingWorld, Table, fingerprints, pool_name
from tests.support.metrics_changes import (
    POOLS,
    Change,
    Deleted,
    Snapshots,
    beginnings,
    changes,
    deletions,
    rows_meanwhile,
)
from tests.support.metrics_oracle import differences_of_tables
from tests.support.metrics_store import execute, job_rows, rows_of, settings_of

STEPS = 7

some_pools = st.sets(st.integers(0, POOLS - 1), min_size=1, max_size=6)

LENIENT = {
    check.name: "warn"
    for check in CATALOGUE.values()
    if check.level != "row" and check.severity == "fail"
}
STRICT = LENIENT | {"unknown_pool": "fail"}
"""Severities: a dozen pools at random are what the checks of a daily run would block; the strict
ones block while a pool has no row in `pools`.
"""

REFUSE = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'refused"
    " by the test'; END$$"
)

TRIGGERS = {
    "merge": (
        "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON pool_daily_metrics FOR EACH STATEMENT"
        " EXECUTE FUNCTION refuse()"
    ),
    "commit": (
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE OR DELETE ON pool_daily_metrics"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
    ),
}
"""The first and the last moment at which the database can refuse what a run writes."""


@dataclass
class Ground:
    """Shared objects of one test's examples, and counts of their work."""

    spark: SparkSession
    database: Settings
    engine: Engine
    examples: int = 0
    histories: int = 0
    steps: int = 0
    runs: int = 0
    pruned: int = 0


class Histories(RuleBasedStateMachine):
    """Each rule is one daily run: changes since the last run, then a run."""

    ground: ClassVar[Ground]

    def __init__(self) -> None:
        super().__init__()
        self.changing = ChangingWorld(self.ground.engine)
        self.sound = True

    @initialize(rows=beginnings())
    def begin(self, rows: list[Snapshots]) -> None:
        with self._step():
            self.changing.apply(rows)

    @rule(changed=changes())
    def daily_run(self, changed: list[Change]) -> None:
        """An incremental run, and a second one without work."""
        with self._step():
            self.changing.apply(changed)
            self._run_and_compare()
            if not self.changing.has_open_transactions:
                self._nothing_to_do()

    @rule(changed=changes(), meanwhile=rows_meanwhile())
    def full_day(self, changed: list[Change], meanwhile: list[Snapshots]) -> None:
        """Rows are committed between plan and read: the run may use them, and the next one must."""
        with self._step():
            self.changing.apply(changed)
            state, bound, before = (
                self.changing.state_after_run_now(),
                self.changing.most_rows(self._table()),
                self._table(),
            )
            raw_rows = len(self.changing.world.rows)

            def session() -> SparkSession:
                self.changing.apply(meanwhile)
                return self.ground.spark

            result = self._run(session=session)
            self.changing.learn(state)
            self._check_counts(
                result, before, bound, inserted_meanwhile=len(self.changing.world.rows) - raw_rows
            )

    @rule(
        changed=changes(),
        how=st.sampled_from(("session", "interrupt", "check", *TRIGGERS)),
        later=st.none() | changes(),
    )
    def broken_day(self, changed: list[Change], how: str, later: list[Change] | None) -> None:
        """A failed run leaves every table unchanged.

        With `later`, its retry also uses the changes since then.
        """
        with self._step():
            self.changing.apply(changed)
            state, before = self.changing.state_after_run_now(), fingerprints(self.ground.engine)
            try:
                with self._broken(how) as session:
                    self._run(session=session, severities=STRICT if how == "check" else None)
            except (ZeroDivisionError, KeyboardInterrupt, DatabaseError, CheckFailed):
                assert fingerprints(self.ground.engine) == before
                failed = self._last_run()
                assert failed["status"] == {"interrupt": "cancelled", "check": "blocked"}.get(
                    how, "failed"
                )
                if later is not None:
                    self.changing.apply(later)
                    self._retry("last", failed["end"])
            else:
                self.changing.learn(state)
                self._compare()

    @rule(changed=changes(), which=st.integers(0, 9))
    def late_retry(self, changed: list[Change], which: int) -> None:
        """An earlier failed run is retried; later successful runs may have computed its days, or it
        was retried before.
        """
        failures = (
            "SELECT run_id, \"end\" FROM yieldspark.run_ledger WHERE status IN ('failed',"
            " 'blocked', 'cancelled') ORDER BY started_at"
        )
        failed = rows_of(self.ground.engine, failures)
        if failed:
            with self._step():
                self.changing.apply(changed)
                self._retry(**failed[which % len(failed)])

    @rule(changed=changes(), gone=deletions())
    def deletion(self, changed: list[Change], gone: list[Deleted]) -> None:
        """Raw rows are deleted, and the run removes their days."""
        with self._step():
            self.changing.apply([*changed, *gone])
            self.changing.retire()
            before, state = self._table(), self.changing.state_after_run_now()
            result = self._run(Request(retire_missing=True))
            if state.end:
                self.changing.learn(state)
            self._compare()
            self._check_counts(result, before, None)

    @rule(
        changed=changes(),
        back=st.integers(0, 60),
        days=st.integers(1, 40),
        some=st.none() | some_pools,
    )
    def backfill(self, changed: list[Change], back: int, days: int, some: set[int] | None) -> None:
        """Days of the interval equal those of a full run now.

        Other days stay, except those that fill a gap of a calendar.
        """
        with self._step():
            self.changing.apply(changed)
            end = self.changing.today - timedelta(days=back)
            start = end - timedelta(days=days)
            pools = self._existing_pools(some)
            if pools != ():
                self._run_a_part(
                    Request(start=start, end=end, pools=pools),
                    lambda pool, day: start <= day < end and (pools is None or pool in pools),
                )

    @rule(changed=changes(), some=some_pools, full_refresh=st.booleans())
    def run_of_some_pools(self, changed: list[Change], some: set[int], full_refresh: bool) -> None:
        """The requested pools equal those of a full run, the others stay."""
        with self._step():
            self.changing.apply(changed)
            if pools := self._existing_pools(some):
                self._run_a_part(
                    Request(full_refresh=full_refresh, pools=pools), lambda pool, _: pool in pools
                )

    def teardown(self) -> None:
        """End all transactions and run once more; a full run then changes no row."""
        try:
            if self.sound:
                self.changing.close(commit=True)
                self._run_and_compare()
                self._nothing_to_do()
                full = self._run(Request(full_refresh=True))["rows"]
                expected = metrics_oracle.metrics(self.changing.world)
                assert (full["inserted"], full["updated"], full["unchanged"]) == (
                    0,
                    0,
                    len(expected),
                )
                self.ground.examples += 1
                self.ground.histories += len({row.pool_id for row in self.changing.never_pruned})
        finally:
            self.changing.close(commit=False)

    @contextmanager
    def _step(self) -> Iterator[None]:
        """A failure leaves the machine unsound, because its teardown would hide the failure."""
        self.sound = False
        yield
        self.sound = True
        self.ground.steps += 1

    def _run(
        self,
        request: Request | None = None,
        *,
        session: Callable[[], SparkSession] | None = None,
        severities: Mapping[str, str] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        limits, now = (
            settings_of(self.ground.database, self.changing.world),
            self.changing.world.now,
        )
        severe = ",".join(
            f"{name}={severity}" for name, severity in (severities or LENIENT).items()
        )
        # both executors continue each other's tables, in an order that an example repeats
        is_fourth = len(self.changing.world.rows) % 4 == 1
        executor = "spark" if session or is_fourth else "inprocess"
        self.ground.runs += 1
        try:
            return run_metrics(
                limits.model_copy(update={"check_severities": severe, "executor": executor}),
                request,
                session=lambda rows: session() if session else self.ground.spark,
                now=now,
                **options,
            )
        finally:
            assert (
                rows_of(
                    self.ground.engine,
                    "SELECT tablename FROM pg_tables WHERE tablename LIKE 'staging%'",
                )
                == []
            )

    def _run_a_part(self, request: Request, is_requested: Callable[[str, date], bool]) -> None:
        before = self._table()
        if self._run(request)["status"] == "succeeded":
            self.changing.partly_computed(self._table())
        after, expected = self._table(), metrics_oracle.metrics(self.changing.world)
        requested = {key: row for key, row in after.items() if is_requested(*key)}
        expected = {key: row for key, row in expected.items() if is_requested(*key)}
        assert differences_of_tables(requested, expected) == []
        # a backfill also removes days of an inactive pool after its interval that are no longer in
        # the calendar
        others = {
            key: row
            for key, row in before.items()
            if not is_requested(*key) and key[0] not in self.changing.world.inactive
        }
        assert others.items() <= after.items()

    def _retry(self, run_id: str, end: date) -> None:
        """The retry computes the failed run's days, and those that another run has written
        since.
        """
        written = [day + timedelta(days=1) for _, day in self._table()]
        if self.changing.last_run and self.changing.last_run.end:
            written.append(self.changing.last_run.end)
        end = max([end, *written])
        state = self.changing.state_after_run_now(end)
        self._run(retry=run_id)
        self.changing.learn(state)
        self._compare(end)

    def _existing_pools(self, some: set[int] | None) -> tuple[str, ...] | None:
        existing = {row.pool_id for row in self.changing.world.rows}
        return (
            None if some is None else tuple(sorted(existing & {pool_name(pool) for pool in some}))
        )

    def _run_and_compare(self) -> None:
        before, state = self._table(), self.changing.state_after_run_now()
        bound = self.changing.most_rows(before)
        foreseen = self._run(dry_run=True)["plan"]
        result = self._run()
        self.changing.learn(state)
        self._compare()
        plan = self._check_counts(result, before, bound)
        assert {name: plan[name] for name in plan.keys() - ONLY_IN_THE_RUN} == {
            name: foreseen[name] for name in foreseen.keys() - ONLY_IN_THE_RUN
        }
        if result["status"] == "succeeded":
            assert result["rows"]["quarantined"] == foreseen["rows_to_quarantine"]

    def _compare(self, end: date | None = None) -> None:
        if end is None and (pools := self.changing.pruned_pools()):
            actual = {key: row for key, row in self._table().items() if key[0] in pools}
            expected = metrics_oracle.metrics(self.changing.unpruned())
            assert differences_of_tables(actual, expected) == []
            self.ground.pruned += 1
        assert (
            differences_of_tables(
                self._table(), metrics_oracle.metrics(self.changing.days_before(end))
            )
            == []
        )

    def _nothing_to_do(self) -> None:
        result = self._run(session=_no_session)
        assert (result["status"], result["jvm_started"]) == ("nothing_to_do", False)
        assert set(result["rows"].values()) == {0}

    def _check_counts(
        self, result: dict[str, Any], before: Table, bound: int | None, inserted_meanwhile: int = 0
    ) -> dict[str, Any]:
        """Compare the ledger's counts with the plan, with the table before and after, and with the
        bound.

        Returns the plan.
        """
        rows, ledger, after = result["rows"], self._last_run(), self._table()
        plan: dict[str, Any] = ledger["plan"]
        assert plan["rows_to_read"] <= rows["read"] <= plan["rows_to_read"] + inserted_meanwhile
        assert plan["mode"] == ("incremental" if bound is not None else "full_refresh")
        assert bound is None or plan["rows_to_read"] <= bound
        assert rows["inserted"] == len(after.keys() - before.keys())
        assert rows["updated"] == sum(
            _metrics(after[key]) != _metrics(before[key]) for key in after.keys() & before.keys()
        )
        staged = [
            int(check["found"].split()[0])
            for check in ledger["checks"]
            if check["name"] == "pool_daily_metrics.staged_rows"
        ]
        written = rows["inserted"] + rows["updated"] + rows["unchanged"]
        # copies of a rejected row share one entry
        rejected = range(min(1, rows["quarantined"]), rows["quarantined"] + 1)
        assert staged in [[written + number] for number in rejected] or (
            result["status"],
            written,
            staged,
        ) == ("nothing_to_do", 0, [])
        assert all(
            check["passed"]
            for check in ledger["checks"]
            if check["level"] != "row" and check["severity"] == "fail"
        )
        assert written <= plan["days"]
        return plan

    @contextmanager
    def _broken(self, how: str) -> Iterator[Callable[[], SparkSession]]:
        if how in TRIGGERS:
            execute(self.ground.engine, TRIGGERS[how])
            try:
                yield lambda: self.ground.spark
            finally:
                execute(self.ground.engine, "DROP TRIGGER refuse ON pool_daily_metrics")
        else:
            yield {"session": _fail, "interrupt": _interrupt, "check": lambda: self.ground.spark}[
                how
            ]

    def _table(self) -> Table:
        return job_rows(self.ground.engine)

    def _last_run(self) -> dict[str, Any]:
        return rows_of(
            self.ground.engine,
            'SELECT status, "end", plan, checks FROM yieldspark.run_ledger ORDER BY started_at DESC'
            " LIMIT 1",
        )[0]


ONLY_IN_THE_RUN = {
    "watermark",
    "seen",
    "rows_to_quarantine",
    "rows_unread",
    "estimated_seconds",
    "estimated_cost_usd",
}
"""Of a plan: what differs between a dry run and the run after it."""


def _metrics(row: Any) -> list[Any]:
    return [row[name] for name in METRIC_COLUMNS]


def _no_session() -> SparkSession:
    raise AssertionError("a Spark session was asked for")


def _fail() -> SparkSession:
    raise ZeroDivisionError


def _interrupt() -> SparkSession:
    raise KeyboardInterrupt


def _run_machine(spark: SparkSession, database: Settings, *, examples: int) -> Ground:
    """Run the machine on examples of a new seed, without changing hypothesis' settings."""
    engine = make_engine(database)
    execute(engine, REFUSE)
    number = int(os.environ.get("HISTORIES_SEED") or secrets.randbits(32))

    class Machine(Histories):
        ground = Ground(spark, database, engine)

    print(f"HISTORIES_SEED={number}")
    try:
        run_state_machine_as_test(
            seed(number)(Machine),
            settings=hypothesis_settings(
                max_examples=examples,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                print_blob=False,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    except BaseException as error:
        error.add_note(f"HISTORIES_SEED={number}, after {Machine.ground.examples} good examples")
        raise
    return Machine.ground


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Hide the warnings of thousands of runs, which a failure would print."""
    caplog.set_level(logging.ERROR)


def test_incremental_runs_equal_a_full_one(spark: SparkSession, database: Settings) -> None:
    """Takes half a minute: four examples are about sixty runs of the job."""
    assert _run_machine(spark, database, examples=4).examples == 4


@pytest.mark.long
def test_thousand_histories(spark: SparkSession, database: Settings) -> None:
    histories = int(os.environ.get("HISTORIES") or 1000)
    ground = _run_machine(spark, database, examples=-(-histories // 11))
    print(
        f"{ground.examples} examples, {ground.histories} histories, {ground.steps} steps,"
        f" {ground.runs} runs, {ground.pruned} of them compared with what was never pruned"
    )
    assert ground.histories >= histories
