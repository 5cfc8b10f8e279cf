"""The database of a fault test, and its three assertions: unchanged, as after an undisturbed run,
repaired by the next run.

The input is a generated, dirty history: a first run has processed most of it; late rows, new days
and pools, corrected prices and inactive pools came later. `after` is the result of an undisturbed
run in another database.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

from pyspark.sql import SparkSession
from sqlalchemy import Engine

from common.errors import RunInProgress
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from database.connections.engine import make_engine
from database.schema.owner_tables import METRIC_COLUMNS
from emulator.services.cut_proxy import Direction, cut_proxy
from tests.support.databases import fresh_database
from tests.support.fault_database import (
    WAIT_AT_GATE,
    closed_gate,
    computed_contents,
    count_loaded_rows,
    exact_contents,
    fault_second_loader,
    ledger,
    loaded_rows,
    remove_faults,
    staged_rows,
    staging_tables,
    wait_for_backend_at_gate,
)
from tests.support.fault_runs import JobProcess, until
from tests.support.metrics_histories import START, world
from tests.support.metrics_oracle import World
from tests.support.metrics_store import job_rows, put, put_market, put_rows, rows_of, settings_of

Rows = Mapping[tuple[str, date], Mapping[str, Any]]

POOLS, DAYS = 30, 60
PROCESSED_DAYS = 54
ALREADY_RUNNING = "is already running"
SHORT_WAIT_SECONDS = 30
UNCLOSED_ERROR = "the driver ended without closing the run"


def at(stage: str, edge: str, statement: str | None = None, *, do: str = "kill") -> dict[str, Any]:
    """Return a fault at a point of a run, as `fault_process` reads it."""
    return {"stage": stage, "edge": edge, "do": do} | (
        {"statement": statement} if statement else {}
    )


def generated() -> World:
    return world(61, pools=POOLS, days=DAYS)


def put_first_part(engine: Engine) -> None:
    """Insert the first days: a tenth of the rows missing, some other prices, every pool active."""
    complete, random = generated(), Random(1)
    days = START + timedelta(days=PROCESSED_DAYS)
    rows = [row for row in complete.rows if row.timestamp.date() < days and random.random() < 0.9]
    prices = {
        key: 1234.5 if random.random() < 0.05 else value
        for key, value in complete.prices.items()
        if key[0].date() < days
    }
    put(engine, replace(complete, rows=rows, prices=prices, inactive=set()))


def put_second_part(engine: Engine) -> None:
    """Insert the rest in one transaction that starts now."""
    complete, random = generated(), Random(1)
    days = START + timedelta(days=PROCESSED_DAYS)
    put_rows(
        engine,
        [
            row
            for row in complete.rows
            if not (row.timestamp.date() < days and random.random() < 0.9)
        ],
    )
    put_market(engine, complete)


@dataclass(frozen=True)
class ProcessedDatabase:
    """The database that every case copies, its contents, and the result of an undisturbed run."""

    database: Settings
    before: Mapping[str, str]
    after: Mapping[str, str]
    first_row: Mapping[str, Any]
    row: Mapping[str, Any]
    facts: Mapping[str, int]
    """Counts from the database for the two runs of `first_row` and `row`."""


@contextmanager
def processed_database(server: Settings, spark: SparkSession) -> Iterator[ProcessedDatabase]:
    with fresh_database(server) as empty:
        database = settings_of(empty, generated())
        engine = make_engine(database)
        put_first_part(engine)
        first_row = run_metrics(database, session=lambda _: spark)
        counts = {
            name: int(rows_of(engine, f"SELECT count(*) AS n FROM {source}")[0]["n"])
            for name, source in FIRST_FACTS.items()
        }
        old = job_rows(engine)
        put_second_part(engine)
        with fresh_database(server, database.db_name) as copy:
            copied = make_engine(copy)
            count_loaded_rows(copied)
            row = run_metrics(
                database.model_copy(update={"db_name": copy.db_name}), session=lambda _: spark
            )
            counts |= {"loaded": loaded_rows(copied)} | differences(old, job_rows(copied))
            after = computed_contents(copied)
        yield ProcessedDatabase(database, exact_contents(engine), after, first_row, row, counts)


FIRST_FACTS = {
    "raw": "raw_defillama_pool_history",
    "first_quarantined": "yieldspark.quarantine WHERE source_table = 'raw_defillama_pool_history'",
    "metrics": "pool_daily_metrics",
}


def differences(old: Rows, new: Rows) -> dict[str, int]:
    """Return the numbers of new, changed and removed keys of `pool_daily_metrics`."""
    stayed = old.keys() & new.keys()
    changed = [key for key in stayed if not _equal_metrics(old[key], new[key])]
    return {
        "new": len(new.keys() - old.keys()),
        "changed": len(changed),
        "gone": len(old.keys() - new.keys()),
    }


def _equal_metrics(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return all(old[name] == new[name] for name in METRIC_COLUMNS)


@dataclass
class Case:
    """The database of one test, and the runs on it."""

    database: Settings
    engine: Engine
    folder: Path
    processed: ProcessedDatabase
    runs: list[JobProcess] = field(default_factory=list)

    def start(
        self,
        fault: Mapping[str, Any] | None = None,
        *,
        spark_conf: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> JobProcess:
        """Start the job; `settings` are fields of `Settings` for this run only."""
        run = JobProcess(
            self.database.model_copy(update=settings),
            self.folder,
            fault=fault,
            spark_conf=spark_conf,
        )
        self.runs.append(run)
        return run

    def run_here(self, spark: SparkSession) -> dict[str, Any]:
        """Run the job in this process, repeated as in `next_run`; returns its ledger row."""
        deadline = time.monotonic() + SHORT_WAIT_SECONDS
        while True:
            try:
                return run_metrics(self.database, session=lambda _: spark)
            except RunInProgress:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def assert_unchanged(self) -> None:
        assert exact_contents(self.engine) == self.processed.before

    def assert_complete(self) -> None:
        """The tables equal those of an undisturbed run, and staging is empty."""
        assert computed_contents(self.engine) == self.processed.after
        assert staging_tables(self.engine) == []

    def assert_full_counts(self, row: Mapping[str, Any]) -> None:
        """The ledger row has the counts of the undisturbed run."""
        assert (row["status"], row["rows"]) == ("succeeded", self.processed.row["rows"]), row

    def assert_killed(self, run: JobProcess) -> None:
        """The driver was killed, and all its processes have ended."""
        assert run.wait() == -signal.SIGKILL, run.errors
        run.assert_all_ended()

    def assert_failed(self, run: JobProcess, message: str = "") -> None:
        """The run failed with a message and a ledger row, and nothing else has changed."""
        assert run.wait() == 1, run.errors
        assert message in run.errors, run.errors
        assert "Traceback" not in run.errors, run.errors
        run.assert_all_ended()
        self.assert_only_ledger_changed()

    def assert_only_ledger_changed(self) -> None:
        """Only the ledger row of the failed run is new."""
        remove_faults(self.engine)
        self.assert_unchanged()
        assert ledger(self.engine)[-1][0] == "failed"
        assert staging_tables(self.engine) == []

    def kill_half_loaded(self) -> None:
        """Kill the driver when the rows of one partition are committed and the load of the other
        has started.
        """
        fault_second_loader(self.engine, WAIT_AT_GATE)
        with closed_gate(self.engine):
            run = self.start()
            wait_for_backend_at_gate(self.engine)
            until(lambda: staged_rows(self.engine) > 0, "the first partition is in staging")
            run.process.kill()
            self.assert_killed(run)

    def start_and_cut(
        self,
        point: Mapping[str, Any],
        bytes_passed: int,
        direction: Direction,
        *,
        stays_down: bool = False,
    ) -> JobProcess:
        """Start the job and cut all its connections a number of bytes after `point`; returns when
        it has ended.
        """
        assert self.database.db_host is not None
        with cut_proxy(self.database.db_host, self.database.db_port) as proxy:
            run = self.start(point, db_host="127.0.0.1", db_port=proxy.port)
            run.wait_for_fault()
            proxy.cut_after(bytes_passed, direction, stays_down=stays_down)
            run.resume()
            run.wait()
            assert proxy.was_cut.is_set()
        return run

    def next_run(self) -> dict[str, Any]:
        """Run the job, repeated for a short time while the backend of a killed driver has the lock;
        returns the ledger row.
        """
        deadline = time.monotonic() + SHORT_WAIT_SECONDS
        while True:
            run = self.start()
            if run.wait() == 0:
                return run.result()
            assert ALREADY_RUNNING in run.errors, run.errors
            assert time.monotonic() < deadline, (
                f"{SHORT_WAIT_SECONDS} s after the fault: {run.errors}"
            )

    def assert_next_run_repairs(
        self,
        *,
        failed: int = 1,
        error: str | None = UNCLOSED_ERROR,
        spark: SparkSession | None = None,
    ) -> None:
        """The next run gives the tables of an undisturbed run, and the ledger has the failed runs.

        Args:
            failed: number of failed runs.
            error: their error; None accepts any.
            spark: session of the next run in this process; None starts a process.
        """
        remove_faults(self.engine)
        self.assert_full_counts(self.run_here(spark) if spark else self.next_run())
        self.assert_complete()
        rows = ledger(self.engine)
        assert [status for status, _ in rows] == [
            "succeeded",
            *["failed"] * failed,
            "succeeded",
        ], rows
        if error:
            assert {message for status, message in rows if status == "failed"} == {error}


@contextmanager
def case_of(
    server: Settings, processed: ProcessedDatabase, folder: Path, transport: str
) -> Iterator[Case]:
    """Yield a copy of the processed database whose runs use `transport`; its processes end with the
    block.
    """
    with fresh_database(server, processed.database.db_name) as copy:
        database = processed.database.model_copy(
            update={
                "db_name": copy.db_name,
                "read_transport": transport,
                "write_transport": transport,
            }
        )
        case = Case(database, make_engine(database), folder, processed)
        try:
            yield case
        finally:
            for run in case.runs:
                run.end()
