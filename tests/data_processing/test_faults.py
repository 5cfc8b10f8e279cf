"""Tests real runs of the metrics job under faults, and the tables afterwards.

The tables are unchanged or equal those after an undisturbed run, never in between, and the next run
repairs them. `-m long` runs the whole matrix with both transports; other runs have one case of each
kind.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from common.errors import DatabaseError
from config_spark import Settings
from database.connections.engine import make_engine
from emulator.services.cut_proxy import Direction
from tests.support.fault_cases import (
    ALREADY_RUNNING,
    Case,
    ProcessedDatabase,
    at,
    case_of,
    processed_database,
)
from tests.support.fault_cluster import EAGER_SPECULATION, cluster_of_two_hosts
from tests.support.fault_database import (
    DISK_IS_FULL,
    SLEEP,
    WAIT_AT_GATE,
    backends,
    closed_gate,
    fault_merged_row,
    fault_second_loader,
    full_tablespace,
    gate_raw_reads,
    ledger,
    loaders,
    lock_holders,
    move_staging_to,
    terminate,
    wait_for_backend_at_gate,
)
from tests.support.fault_runs import JobProcess, until
from tests.support.metrics_store import execute
from tests.support.processes import PROJECT

long = pytest.mark.long
both = pytest.mark.parametrize("case", ["adbc", "jdbc"], indirect=True)
always_with_adbc = pytest.mark.parametrize(
    "case", ["adbc", pytest.param("jdbc", marks=long)], indirect=True
)
always_with_jdbc = pytest.mark.parametrize(
    "case", [pytest.param("adbc", marks=long), "jdbc"], indirect=True
)


@pytest.fixture(scope="module")
def processed(server: Settings, spark: SparkSession) -> Iterator[ProcessedDatabase]:
    if not Path("/proc/self/environ").exists():
        pytest.skip("needs Linux's /proc to see which processes outlive a driver")
    with processed_database(server, spark) as faulted_database:
        yield faulted_database


@pytest.fixture
def case(
    request: pytest.FixtureRequest,
    processes: None,
    server: Settings,
    processed: ProcessedDatabase,
    tmp_path: Path,
) -> Iterator[Case]:
    with case_of(server, processed, tmp_path, request.param) as case_of_test:
        yield case_of_test


# Kills of the driver

BEFORE_THE_COMMIT = {
    "plan begins": at("plan", "before"),
    "plan made": at("plan", "after", r"CREATE .*TABLE yieldspark\.staging"),
    "plan committed": at("session", "before"),
    "session started": at("session", "after"),
    "frames built": at("compute_and_load", "before"),
    "staging made": at("compute_and_load", "after", r"CREATE .*TABLE yieldspark\.staging"),
    "staging loaded": at("merge", "before"),
    "rows merged": at("merge", "after", "INSERT INTO .*pool_daily_metrics"),
    "ledger written": at("merge", "after", r"UPDATE yieldspark\.run_ledger"),
    "commit begins": at("merge", "before", "^COMMIT$"),
}


@long
@both
@pytest.mark.parametrize("point", BEFORE_THE_COMMIT)
def test_driver_killed_before_commit_changes_nothing(case: Case, point: str) -> None:
    case.assert_killed(case.start(BEFORE_THE_COMMIT[point]))
    case.assert_unchanged()
    assert ledger(case.engine)[-1] == ("running", None)
    case.assert_next_run_repairs()


@long
@both
def test_driver_killed_after_commit_has_committed(case: Case) -> None:
    case.assert_killed(case.start(at("merge", "after")))
    assert ledger(case.engine)[-1] == ("succeeded", None)
    assert case.next_run()["status"] == "nothing_to_do"
    case.assert_complete()


@long
@both
def test_driver_killed_after_any_merge_statement_changes_nothing(case: Case) -> None:
    """Each run repairs the previous one and is killed one statement later, until none is left."""
    for nth in count(1):
        run = case.start(at("merge", "after", ".") | {"nth": nth})
        if run.wait() == 0:
            break
        case.assert_killed(run)
        case.assert_unchanged()
    assert nth > 8, "the merge had next to no statement to be killed at"
    case.assert_full_counts(run.result())
    case.assert_complete()
    assert [status for status, _ in ledger(case.engine)] == [
        "succeeded",
        *["failed"] * (nth - 1),
        "succeeded",
    ]


@long
@both
def test_driver_killed_with_half_of_rows_loaded(case: Case) -> None:
    case.kill_half_loaded()
    case.assert_unchanged()
    case.assert_next_run_repairs()


@long
@both
def test_driver_killed_during_merge_blocks_next_run_until_server_notices(
    case: Case,
) -> None:
    fault_merged_row(case.engine, WAIT_AT_GATE)
    with closed_gate(case.engine):
        run = case.start()
        wait_for_backend_at_gate(case.engine)
        run.process.kill()
        case.assert_killed(run)
        too_early = case.start()
        assert too_early.wait() == 1
        assert ALREADY_RUNNING in too_early.errors
        case.assert_unchanged()
    case.assert_next_run_repairs()


# Failures of what a run depends on


@long
@pytest.mark.parametrize(
    ("case", "program"),
    [
        ("adbc", "org.apache.spark.deploy.SparkSubmit"),
        ("jdbc", "org.apache.spark.deploy.SparkSubmit"),
        ("adbc", "pyspark.daemon"),
    ],
    indirect=["case"],
    ids=["adbc-JVM", "jdbc-JVM", "adbc-Python workers"],
)
def test_killed_spark_process_fails_run_only(case: Case, program: str) -> None:
    """With jdbc, the few rows of this history have left the Python workers when the second loader
    begins.
    """
    fault_second_loader(case.engine, WAIT_AT_GATE)
    with closed_gate(case.engine):
        run = case.start()
        wait_for_backend_at_gate(case.engine)
        run.kill(program)
    case.assert_failed(
        run,
        "Spark's JVM ended during the work" if program.endswith("SparkSubmit") else "",
    )
    case.assert_next_run_repairs(error=None)


# Cut connections


@long
@both
@pytest.mark.parametrize("whose", ["reader", "snapshot"])
def test_connection_terminated_during_read(case: Case, whose: str) -> None:
    gate_raw_reads(case.engine)
    run = case.start(at("compute_and_load", "before", do="pause"))
    run.wait_for_fault()
    with closed_gate(case.engine):
        if whose == "snapshot":
            terminate(
                case.engine,
                backends(
                    case.engine, "state = 'idle in transaction' AND query ~ 'pg_export_snapshot'"
                ),
            )
        run.resume()
        if whose == "reader":
            terminate(case.engine, [wait_for_backend_at_gate(case.engine)])
        else:
            until(lambda: run.process.poll() is not None, "the run has ended")
    case.assert_failed(run)
    case.assert_next_run_repairs(error=None)


@long
@both
@pytest.mark.parametrize("whose", ["loader", "run"])
def test_connection_terminated_during_load(case: Case, whose: str) -> None:
    fault_second_loader(case.engine, WAIT_AT_GATE)
    with closed_gate(case.engine):
        run = case.start()
        loader = wait_for_backend_at_gate(case.engine)
        terminate(case.engine, [loader] if whose == "loader" else lock_holders(case.engine))
    case.assert_failed(run)
    case.assert_next_run_repairs(error=None)


@always_with_adbc
def test_connection_terminated_during_merge(case: Case, spark: SparkSession) -> None:
    fault_merged_row(case.engine, WAIT_AT_GATE)

    def terminate_at_the_gate() -> None:
        terminate(case.engine, [wait_for_backend_at_gate(case.engine)])

    with closed_gate(case.engine), ThreadPoolExecutor(1) as other:
        terminated = other.submit(terminate_at_the_gate)
        with pytest.raises(DatabaseError):
            case.run_here(spark)
        terminated.result()
    case.assert_only_ledger_changed()
    case.assert_next_run_repairs(error=None, spark=spark)


CUTS: dict[str, tuple[dict[str, Any], int, Direction]] = {
    # point, bytes that pass after it, direction
    "read": (at("compute_and_load", "before", do="pause"), 20_000, "to_client"),
    "load": (at("compute_and_load", "before", do="pause"), 20_000, "to_server"),
    "merge": (at("merge", "before", do="pause"), 4_000, "to_server"),
    "commit": (at("merge", "before", "^COMMIT$", do="pause"), 1, "to_server"),
}


@long
@both
@pytest.mark.parametrize("stays_down", [False, True], ids=["", "for good"])
@pytest.mark.parametrize("stage", CUTS)
def test_network_cut_in_mid_stream(case: Case, stage: str, stays_down: bool) -> None:
    point, bytes_passed, direction = CUTS[stage]
    run = case.start_and_cut(point, bytes_passed, direction, stays_down=stays_down)
    assert run.wait() == 1, run.errors
    run.assert_all_ended()
    case.assert_unchanged()
    assert ledger(case.engine)[-1][0] == ("running" if stays_down else "failed")
    case.assert_next_run_repairs(error=None)


@long
@both
def test_commit_whose_answer_is_lost_is_a_commit(case: Case) -> None:
    point, _, _ = CUTS["commit"]
    run = case.start_and_cut(point, 1, "to_client")
    run.wait()
    assert ledger(case.engine)[-1] == ("succeeded", None), run.errors
    assert case.next_run()["status"] == "nothing_to_do"
    case.assert_complete()


# Full disks


@long
@both
def test_full_disk_stops_one_loader(case: Case) -> None:
    fault_second_loader(case.engine, DISK_IS_FULL)
    case.assert_failed(case.start(), "No space left on device")
    case.assert_next_run_repairs(error=None)


@always_with_adbc
def test_full_disk_during_merge(case: Case, spark: SparkSession) -> None:
    fault_merged_row(case.engine, DISK_IS_FULL)
    with pytest.raises(DatabaseError, match="Free disk space"):
        case.run_here(spark)
    case.assert_only_ledger_changed()
    case.assert_next_run_repairs(error=None, spark=spark)


@pytest.fixture
def tiny_tablespace(server: Settings) -> Iterator[str]:
    with full_tablespace(make_engine(server)) as name:
        yield name


@long
@both
def test_full_disk_for_real(tiny_tablespace: str, case: Case) -> None:
    move_staging_to(case.engine, tiny_tablespace)
    case.assert_failed(case.start(), "No space left on device")
    case.assert_next_run_repairs(error=None)


# Repeated tasks of Spark


@always_with_jdbc
def test_failed_task_is_repeated(case: Case) -> None:
    fault_second_loader(case.engine, WAIT_AT_GATE)
    with closed_gate(case.engine):
        run = case.start(spark_master="local[2,3]")
        terminate(case.engine, [wait_for_backend_at_gate(case.engine)])
    case.assert_full_counts(run.succeeded())
    assert loaders(case.engine) == 3, "two loaders, and the one that did the work of the second"
    case.assert_complete()


@long
@both
def test_executors_that_are_lost_read_the_same_rows_again(case: Case) -> None:
    """Raw rows that arrive meanwhile are not in the run's snapshot, however often Spark
    reads it.
    """
    fault_second_loader(case.engine, WAIT_AT_GATE)
    with closed_gate(case.engine):
        run = case.start(spark_master="local-cluster[2,1,1024]")
        wait_for_backend_at_gate(case.engine)
        execute(case.engine, CORRECT_EVERY_ROW)
        run.kill("CoarseGrainedExecutorBackend")
    case.assert_full_counts(run.succeeded())
    execute(case.engine, "DELETE FROM raw_defillama_pool_history WHERE id > 1000000")
    case.assert_complete()


CORRECT_EVERY_ROW = """
INSERT INTO raw_defillama_pool_history (id, pool_id, timestamp, raw_json_data)
    OVERRIDING SYSTEM VALUE
SELECT id + 1000000, pool_id, timestamp + interval '1 second',
    '{"apy": 77.7, "tvlUsd": 777}'
FROM raw_defillama_pool_history
"""


@long
@both
def test_speculative_task_stages_no_row_twice(case: Case, tmp_path: Path) -> None:
    fault_second_loader(case.engine, SLEEP)
    with cluster_of_two_hosts(tmp_path) as master:
        run = case.start(spark_master=master, spark_conf=EAGER_SPECULATION)
        case.assert_full_counts(run.succeeded())
    assert loaders(case.engine) > 2, "Spark did not speculate"
    case.assert_complete()


# Two runs at once


def assert_one_of_two_works(case: Case, *runs: JobProcess) -> None:
    """One of the runs works, and the other one reports that."""
    worker, other = sorted(runs, key=lambda run: run.wait())
    case.assert_full_counts(worker.succeeded())
    assert other.wait() == 1, other.errors
    assert ALREADY_RUNNING in other.errors
    assert other.result()["status"] == "failed"
    case.assert_complete()
    assert [status for status, _ in ledger(case.engine)] == ["succeeded", "succeeded"]


@long
def test_twenty_pairs_of_runs_started_together(
    server: Settings, processed: ProcessedDatabase, tmp_path: Path
) -> None:
    for pair in range(20):
        with case_of(server, processed, tmp_path, ["adbc", "jdbc"][pair % 2]) as case:
            assert_one_of_two_works(case, case.start(), case.start())


def test_two_runs_started_together(
    server: Settings, processed: ProcessedDatabase, tmp_path: Path
) -> None:
    """Without a JVM, because the lock is taken before any executor starts."""
    with case_of(server, processed, tmp_path, "adbc") as case:
        fault_merged_row(case.engine, WAIT_AT_GATE)
        with closed_gate(case.engine):
            runs = [case.start(executor="inprocess") for _ in range(2)]
            until(
                lambda: any(run.process.poll() is not None for run in runs),
                "one run has ended while the other one works",
            )
        assert_one_of_two_works(case, *runs)


@long
@both
def test_run_that_lost_its_lock_does_not_disturb_next_run(case: Case) -> None:
    """Its rows are staged when its connection is cut.

    Another run takes over, and the first one ends while the rows of the second are in staging.
    """
    first = case.start(at("merge", "before", do="pause"))
    first.wait_for_fault()
    terminate(case.engine, lock_holders(case.engine))
    second = case.start(at("merge", "before", do="pause"))
    second.wait_for_fault()
    first.resume()
    assert first.wait() == 1, first.errors
    case.assert_unchanged()
    second.resume()
    case.assert_full_counts(second.succeeded())
    case.assert_complete()
    assert [status for status, _ in ledger(case.engine)] == ["succeeded", "failed", "succeeded"]


# Reports of a run


HIDDEN = """
import sys
sys.modules["adbc_driver_postgresql"] = None
import data_processing.calculate_pool_metrics_spark, forecasting.run.execution
"""


@pytest.mark.parametrize("case", ["adbc"], indirect=True)
def test_jdbc_is_used_without_adbc_driver(
    case: Case,
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The job would run in this process, which has imported ADBC; a new process imports the
    jobs.
    """
    subprocess.run([sys.executable, "-c", HIDDEN], cwd=PROJECT, check=True)
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    monkeypatch.delitem(sys.modules, "database.connections.adbc_session", raising=False)
    monkeypatch.delitem(sys.modules, "database.transport.adbc", raising=False)
    case.assert_full_counts(case.run_here(spark))
    assert "transport adbc has no driver here: going on with jdbc" in caplog.text
    case.assert_complete()


def test_counts_of_a_run_add_up(processed: ProcessedDatabase) -> None:
    """Compared with counts from the database; `did_all_the_work` checks the same counts of every
    other run.
    """
    full, later, facts = processed.first_row["rows"], processed.row["rows"], processed.facts
    nothing = {"updated": 0, "unchanged": 0, "removed": 0}
    assert (
        full
        == {
            "read": facts["raw"],
            "quarantined": facts["first_quarantined"],
            "inserted": facts["metrics"],
        }
        | nothing
    )
    assert (later["inserted"], later["updated"], later["removed"]) == (
        facts["new"],
        facts["changed"],
        facts["gone"],
    )
    assert (
        later["inserted"] + later["updated"] + later["unchanged"] + later["quarantined"]
        == facts["loaded"]
    ), "days and rejected rows are staged"
    assert facts["gone"] > 0, "no day is retired in this history"
    for row in (processed.first_row, processed.row):
        stopping = [
            check
            for check in row["checks"]
            if check["severity"] == "fail" and check["level"] != "row"
        ]
        assert stopping
        assert all(check["passed"] for check in stopping), stopping


# A small part of the matrix, for every change


@pytest.mark.parametrize("case", ["jdbc"], indirect=True)
def test_driver_killed_during_load_and_next_one_during_merge(
    case: Case, spark: SparkSession
) -> None:
    case.kill_half_loaded()
    case.assert_unchanged()
    # the merge is the same for both executors, and only Spark reads and writes by JDBC
    adbc: dict[str, Any] = {
        "read_transport": "adbc",
        "write_transport": "adbc",
        "executor": "inprocess",
    }
    during_merge = at("merge", "after", "INSERT INTO .*pool_daily_metrics")
    case.assert_killed(case.start(during_merge, **adbc))
    case.assert_unchanged()
    case.assert_next_run_repairs(failed=2, spark=spark)
