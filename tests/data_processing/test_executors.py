"""Tests that Spark and processes without a JVM give the same tables, counts and checks, that the
plan chooses between them, and that a run without a JVM ends cleanly when it is disturbed.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine, text

from common.errors import DatabaseError, ProcessLost, RunInProgress
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.executors import in_process, partition_processes
from data_processing.planning.run_request import Request
from database.connections.engine import make_engine
from spark.executor_choice import IN_PROCESS_RAW_ROWS, choose_executor
from tests.support import metrics_oracle
from tests.support.fault_database import (
    DISK_IS_FULL,
    WAIT_AT_GATE,
    closed_gate,
    computed_contents,
    exact_contents,
    fault_every_loader,
    fault_second_loader,
    ledger,
    remove_faults,
    staging_tables,
    wait_for_backend_at_gate,
)
from tests.support.fault_runs import TOKEN, processes_with, until
from tests.support.metrics_histories import START, world
from tests.support.metrics_oracle import RawRow, World
from tests.support.metrics_store import (
    job_rows,
    put,
    put_into_quarantine,
    put_market,
    put_rows,
    rows_of,
    settings_of,
    without_jvm,
)
from tests.support.processes import PROJECT, CommandLine, environment_of


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch, processes: None) -> str:
    """Two partitions for few rows; returns the token of the second process's environment."""
    monkeypatch.setattr(in_process, "process_count", lambda _: 2)
    token = secrets.token_hex(8)
    monkeypatch.setenv(TOKEN, token)
    return token


def changed(of: World, engines: list[Engine], random: Random) -> World:
    """Insert late rows, copies, new days and pools; change a price, prune rows, retire a pool."""
    last = max(row.id for row in of.rows)
    later = world(random.randrange(1000), pools=12, days=80, max_fill_days=of.max_fill_days)
    names = sorted({row.pool_id for row in of.rows})
    new = [
        RawRow(last + number, random.choice(names), row.timestamp, row.document)
        for number, row in enumerate(random.sample(later.rows, 60), start=1)
    ]
    copies = [
        replace(row, id=last + 1000 + number)
        for number, row in enumerate(random.sample(of.rows, 20))
    ]
    # equal moments of one pool with other contents, and values that only differ by their sign
    moments = [
        RawRow(
            last + 2000 + number,
            row.pool_id,
            row.timestamp,
            {"apy": random.choice(["-0.0", "0", 7]), "tvlUsd": 5},
        )
        for number, row in enumerate(random.sample(of.rows, 20))
    ]
    extreme = [
        RawRow(last + 3000 + number, "extreme", START_OF_EXTREME + timedelta(days=number), document)
        for number, document in enumerate(EXTREME)
    ]
    rows = [*new, *copies, *moments, *extreme]
    gone = random.sample(of.rows, 30)
    after = replace(of, rows=[*of.rows, *rows], inactive=of.inactive ^ {names[0]})
    for engine in engines:
        put_rows(engine, rows)
        put_market(engine, after)
        with engine.begin() as connection:
            connection.execute(
                text("DELETE FROM raw_defillama_pool_history WHERE id = ANY (:ids)"),
                {"ids": [row.id for row in gone]},
            )
    return after


START_OF_EXTREME = world(0, pools=1, days=1).now - timedelta(days=1)
EXTREME = [
    {"apy": "1e-310", "tvlUsd": "1e-320"},
    {"apy": "-1e-400", "tvlUsd": "-0"},
    {"apy": "1e400", "tvlUsd": 1},
    {"apy": "Infinity", "tvlUsd": "1e308"},
    {"apy": "NaN", "tvlUsd": "-1e-400"},
    {"apy": 0.1, "tvlUsd": "0.30000000000000004"},
]


VOLATILE_IN_PLAN = {
    "executor",
    "executor_reason",
    "estimated_seconds",
    "watermark",
    "since",
    "unused_since",
    "seen",
}
"""Entries of a plan that name the executor, or depend on moments of insertion."""


def comparable(row: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a ledger row and its plan that do not name the run or its executor."""
    names = ("status", "mode", "start", "end", "rows", "checks")
    planned = {name: value for name, value in plan.items() if name not in VOLATILE_IN_PLAN}
    return {name: row[name] for name in names} | {f"plan {name}": planned[name] for name in planned}


def contents(engine: Engine) -> dict[str, Any]:
    """Return the contents of all tables without run ids and the moments of runs."""
    quarantine = rows_of(
        engine,
        "SELECT source_table, source_id, pool_id, timestamp, reason, raw_json_data, resolution"
        " FROM yieldspark.quarantine ORDER BY source_table, source_id, reason",
    )
    return {**computed_contents(engine), "yieldspark.quarantine": quarantine}


def assert_equal_histories(
    spark: SparkSession, first: Settings, second: Settings, seed: int
) -> None:
    """Run each executor over the same history and changes, and compare after every run."""
    random, of = Random(seed), world(seed, pools=40, days=70)
    lenient = "apy_infinite=warn,tvl_not_a_number=off"
    severities = {"check_severities": lenient if seed % 2 else ""}
    databases = [
        settings_of(first, of).model_copy(update=severities | {"executor": "spark"}),
        settings_of(second, of).model_copy(update=severities | {"executor": "inprocess"}),
    ]
    engines = [make_engine(settings) for settings in databases]
    for engine in engines:
        put(engine, of)
    rejected, now = of.rows[3].id, of.now
    for request in (Request(), Request(), Request(full_refresh=True), Request(retire_missing=True)):
        results = [
            run_metrics(settings, request, session=lambda _: spark, now=now)
            for settings in databases
        ]
        plans = [
            rows_of(engine, "SELECT plan FROM yieldspark.run_ledger ORDER BY started_at")[-1]
            for engine in engines
        ]
        on_spark, without = (
            comparable(result, plan["plan"]) for result, plan in zip(results, plans, strict=True)
        )
        assert [result["jvm_started"] for result in results] == [True, False]
        assert {k: v for k, v in without.items() if on_spark[k] != v} == {}
        assert contents(engines[1]) == contents(engines[0])
        of = changed(of, engines, random)
        for engine in engines:
            put_into_quarantine(engine, rejected, "seen", "dropped", now)
        rejected += 1


def test_executors_give_equal_tables(
    spark: SparkSession, database: Settings, second_database: Settings, two_processes: str
) -> None:
    assert_equal_histories(spark, database, second_database, 71)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 120))
def test_executors_give_equal_tables_for_many_histories(
    spark: SparkSession,
    database: Settings,
    second_database: Settings,
    two_processes: str,
    seed: int,
) -> None:
    assert_equal_histories(spark, database, second_database, seed)


def test_run_in_process_equals_the_oracle(database: Settings, engine: Engine) -> None:
    of = world(11, pools=40, days=70)
    put(engine, of)
    settings = without_jvm(settings_of(database, of))
    first = run_metrics(settings, session=no_session, now=of.now)
    assert metrics_oracle.differences_of_tables(job_rows(engine), metrics_oracle.metrics(of)) == []
    assert (first["status"], first["jvm_started"]) == ("succeeded", False)
    assert first["rows"]["quarantined"] == len(metrics_oracle.quarantine(of))
    assert run_metrics(settings, now=of.now)["status"] == "nothing_to_do"
    again = run_metrics(settings, Request(full_refresh=True), now=of.now)
    assert again["rows"]["unchanged"] == first["rows"]["inserted"] == len(job_rows(engine))


def no_session(_: int) -> SparkSession:
    raise AssertionError("a Spark session was asked for")


LIMIT = 1_000

CONTAINER = {"environment": "production", "spark_master": "local[*]"}


@pytest.mark.parametrize(
    ("values", "rows", "prefers_spark", "expected"),
    [
        ({}, 1, False, "inprocess"),
        ({}, LIMIT, False, "inprocess"),
        ({}, LIMIT + 1, False, "spark"),
        ({}, 1, True, "spark"),
        ({"environment": "production"}, 1, False, "spark"),
        (CONTAINER, LIMIT, True, "inprocess"),
        (CONTAINER, LIMIT + 1, True, "spark"),
        ({**CONTAINER, "executor": "spark"}, 1, True, "spark"),
        ({"executor": "inprocess"}, 10**9, True, "inprocess"),
        ({"executor": "spark"}, 1, False, "spark"),
        ({"read_transport": "jdbc"}, 1, False, "spark"),
        ({"write_transport": "jdbc", "executor": "inprocess"}, 1, False, "spark"),
        ({"read_transport": "adbc"}, 1, False, "inprocess"),
    ],
)
def test_choice(values: dict[str, Any], rows: int, prefers_spark: bool, expected: str) -> None:
    settings = Settings(_env_file=None, db_host="nowhere", **values)
    choice = choose_executor(settings, rows, limit=LIMIT, prefers_spark=prefers_spark)
    assert choice.name == expected
    assert choice.reason


def test_plan_names_the_executor(database: Settings, engine: Engine) -> None:
    of = world(12, pools=3, days=20)
    put(engine, of)
    settings = settings_of(database, of).model_copy(update={"executor": "auto"})
    plan = run_metrics(settings, dry_run=True, now=of.now)["plan"]
    assert (plan["executor"], plan["executor_reason"]) == (
        "inprocess",
        f"at most {IN_PROCESS_RAW_ROWS:,} rows to read",
    )
    run_metrics(settings, now=of.now)
    stored = rows_of(engine, "SELECT plan ->> 'executor' AS name FROM yieldspark.run_ledger")
    assert stored == [{"name": "inprocess"}]


MODULES = """
import json, sys
from cli.main import main
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.mark.usefixtures("processes")
def test_command_without_a_jvm_imports_neither_pyspark_nor_pandas(
    database: Settings, engine: Engine
) -> None:
    put(engine, world(13, pools=5, days=40))
    done = subprocess.run(
        [sys.executable, "-c", MODULES, "calculate_metrics"],
        cwd=PROJECT,
        env=environment_of(database),
        capture_output=True,
        text=True,
        check=False,
    )
    code, modules = done.stdout.splitlines()[-1], done.stderr
    assert code.startswith("[0, "), modules
    assert {"pyspark", "py4j", "pandas"}.isdisjoint(code.replace('"', "").strip("]").split(", "))
    assert ledger(engine) == [("succeeded", None)]


class Disturbed:
    """A run with two processes on a second part of a history, and the tables before it."""

    def __init__(self, database: Settings) -> None:
        complete = world(14, pools=20, days=50)
        self.settings, self.now = without_jvm(settings_of(database, complete)), complete.now
        self.engine = make_engine(database)
        days = START + timedelta(days=40)
        early = [row for row in complete.rows if row.timestamp.date() < days]
        put(self.engine, replace(complete, rows=early))
        run_metrics(self.settings, now=self.now)
        put_rows(self.engine, [row for row in complete.rows if row.timestamp.date() >= days])
        self.before = exact_contents(self.engine)
        self.complete = complete

    def run(self) -> dict[str, Any]:
        return run_metrics(self.settings, now=self.now)

    def _run_if_free(self) -> dict[str, Any] | None:
        with suppress(RunInProgress):
            return self.run()
        return None

    def assert_unchanged(self, status: str) -> None:
        remove_faults(self.engine)
        assert exact_contents(self.engine) == self.before
        assert ledger(self.engine)[-1][0] == status
        assert staging_tables(self.engine) == []

    def assert_next_run_completes(self) -> None:
        assert until(self._run_if_free, "the lock is free")["status"] == "succeeded"
        differences = metrics_oracle.differences_of_tables(
            job_rows(self.engine), metrics_oracle.metrics(self.complete)
        )
        assert differences == []


@pytest.fixture
def disturbed(database: Settings, two_processes: str) -> Disturbed:
    return Disturbed(database)


def test_killed_process_fails_the_run(disturbed: Disturbed, two_processes: str) -> None:
    """Ten seconds: the server's interval of checks for its client."""
    fault_every_loader(disturbed.engine, WAIT_AT_GATE)

    def kill() -> None:
        wait_for_backend_at_gate(disturbed.engine)
        for pid in until(lambda: processes_with(two_processes), "the process has begun"):
            os.kill(pid, signal.SIGKILL)

    with closed_gate(disturbed.engine):
        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(ProcessLost, match="exit code -9: it was killed, or ran out of memory"):
            disturbed.run()
        killer.join()
    disturbed.assert_unchanged("failed")
    disturbed.assert_next_run_completes()


@pytest.fixture
def _handled_interrupt() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also if a shell started the tests in the background."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("_handled_interrupt")
def test_interrupt_ends_all_processes(disturbed: Disturbed, two_processes: str) -> None:
    fault_every_loader(disturbed.engine, WAIT_AT_GATE)

    def interrupt() -> None:
        wait_for_backend_at_gate(disturbed.engine)
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)

    with closed_gate(disturbed.engine):
        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            disturbed.run()
        interrupter.join()
        assert processes_with(two_processes) == []
    disturbed.assert_unchanged("cancelled")
    disturbed.assert_next_run_completes()


def test_error_of_the_server_fails_the_run(disturbed: Disturbed, two_processes: str) -> None:
    """One of two loads fails; either may be that of the other process."""
    fault_second_loader(disturbed.engine, DISK_IS_FULL)
    with pytest.raises(DatabaseError, match="No space left on device") as failed:
        disturbed.run()
    assert failed.value.sqlstate == "53100"
    assert processes_with(two_processes) == []
    disturbed.assert_unchanged("failed")
    disturbed.assert_next_run_completes()


KILLED_PARENT = """
import sys
from config_spark import load_settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.executors import in_process

in_process.process_count = lambda _: 2
run_metrics(load_settings())
"""


def test_killed_driver_leaves_no_process(
    disturbed: Disturbed, database: Settings, two_processes: str
) -> None:
    fault_every_loader(disturbed.engine, WAIT_AT_GATE)
    with closed_gate(disturbed.engine):
        driver = subprocess.Popen(
            [sys.executable, "-c", KILLED_PARENT],
            cwd=PROJECT,
            env=environment_of(disturbed.settings, "executor", "max_tvl_usd", "max_apy_percent"),
        )
        wait_for_backend_at_gate(disturbed.engine)
        until(lambda: len(processes_with(two_processes)) == 2, "both processes work")
        driver.kill()
        driver.wait()
        until(lambda: not processes_with(two_processes), "the other process has ended")
    remove_faults(disturbed.engine)
    assert exact_contents(disturbed.engine) == disturbed.before
    disturbed.assert_next_run_completes()


def test_broken_process_is_reported(disturbed: Disturbed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_processes, "MODULE", "no.such.module")
    with pytest.raises(ProcessLost, match="exit code 1"):
        disturbed.run()
    disturbed.assert_unchanged("failed")


def test_command_line_runs_in_process(run: CommandLine, engine: Engine) -> None:
    put(engine, world(15, pools=5, days=40))
    assert run.json("calculate_metrics")["jvm_started"] is False
