"""Tests the command line as scripts see it: real processes, one home, stdout and stderr apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from config_spark import Settings
from database.connections.parameters import connection_parameters
from database.db_utils_spark import execute_sql
from database.embedded.server import EmbeddedServer
from tests.support.forecast_panels import FEW_DAYS, SHORT, panel_rows, store
from tests.support.processes import PROJECT, CommandLine
from tests.support.report_store import EMPTY_STATUS


def test_status_of_an_empty_database(run_here: CommandLine) -> None:
    assert run_here.json("status") == EMPTY_STATUS


def test_a_wrong_setting_exits_with_2_and_one_json_document(run_here: CommandLine) -> None:
    document = run_here.json("status", code=2, DB_PORT="many")
    assert "DB_PORT='many' is wrong" in document["error"]


def test_an_unknown_option_exits_with_2_and_nothing_on_stdout(run_here: CommandLine) -> None:
    finished = run_here("calculate_metrics", "--everything")
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert "--everything" in finished.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--start", "2025-08-01"],
        ["--start", "2025-08-02", "--end", "2025-08-01"],
        ["--start", "2025-08-01", "--end", "2199-01-01"],
        ["--start", "yesterday"],
    ],
)
def test_an_impossible_interval_exits_with_2(run_here: CommandLine, arguments: list[str]) -> None:
    finished = run_here("calculate_metrics", *arguments)
    assert finished.returncode == 2, finished.stderr


def test_an_unreachable_database_exits_with_1_and_says_what_to_check(run_here: CommandLine) -> None:
    document = run_here.json("status", code=1, DB_PORT="1")
    assert "DB_HOST, DB_PORT" in document["error"]


def test_an_empty_database_is_nothing_to_do_without_a_jvm(run_here: CommandLine) -> None:
    row = run_here.json("calculate_metrics")
    assert (row["status"], row["jvm_started"]) == ("nothing_to_do", False)


def test_db_url_is_a_working_url_and_nothing_else(
    run_here: CommandLine, database: Settings
) -> None:
    finished = run_here("db", "url")
    url = connection_parameters(database).sqlalchemy_url()
    assert finished.stdout.strip() == url.render_as_string(hide_password=False)
    with create_engine(finished.stdout.strip()).connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_db_psql_passes_its_arguments_on(run: CommandLine) -> None:
    finished = run("db", "psql", "-At", "-c", "SELECT 40 + 2")
    assert finished.stdout.strip() == "42"


def test_db_psql_is_the_wheels_where_the_machine_has_none(run: CommandLine) -> None:
    finished = run("db", "psql", "-At", "-c", "SELECT 40 + 2", PATH=str(run.folder))
    assert finished.stdout.strip() == "42", finished.stderr


def test_commands_for_the_embedded_server_refuse_another_database(run_here: CommandLine) -> None:
    for command in (["db", "start"], ["db", "stop"], ["db", "reset", "--yes"]):
        finished = run_here(*command)
        assert finished.returncode == 2
        assert "DB_HOST is set" in finished.stderr


def test_the_password_appears_nowhere(run_here: CommandLine, database: Settings) -> None:
    assert database.db_password is not None
    secret = database.db_password.get_secret_value()
    commands = [run_here("status"), run_here("doctor"), run_here("status", "--json", DB_PORT="1")]
    logs = [path.read_text() for path in run_here.folder.rglob("*.log")]
    outputs = [finished.stdout + finished.stderr for finished in commands]
    assert all(secret not in text for text in [*logs, *outputs])


def test_help_and_wrong_use_load_no_spark_no_sqlalchemy_and_no_settings(run: CommandLine) -> None:
    loaded = "print({'pyspark', 'sqlalchemy', 'numpy', 'pydantic_settings'} & set(sys.modules))"
    ask = (
        f"import sys, atexit; from cli.main import main; atexit.register(lambda: {loaded}); main()"
    )
    for arguments, code in (["db", "--help"], 0), (["calculate_metrics", "--everything"], 2):
        finished = subprocess.run(
            [sys.executable, "-c", ask, *arguments],
            cwd=PROJECT,
            env=run.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (finished.returncode, finished.stdout.splitlines()[-1]) == (code, "set()"), (
            finished.stderr
        )


def test_status_loads_no_spark_no_numpy_and_no_alembic(run: CommandLine) -> None:
    loaded = "print({'pyspark', 'pandas', 'numpy', 'alembic'} & set(sys.modules))"
    ask = (
        f"import sys, atexit; from cli.main import main; atexit.register(lambda: {loaded}); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask, "status"],
        cwd=PROJECT,
        env=run.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "set()"), done.stderr


@pytest.mark.usefixtures("jvm")
def test_an_interrupted_job_exits_with_130_and_leaves_nothing_behind(
    run: CommandLine, database: Settings, engine: Engine
) -> None:
    """Tests the forecast; test_interrupts.py and test_metrics_script.py interrupt the metrics.

    Takes over 20 s on two busy cores: the JVM of a whole run, and a fit.
    """
    store(engine, panel_rows(12, 110))
    del run.environment["SPARK_SUBMIT_OPTS"]
    command = ["forecast_pools", "--engine", "lightgbm", "--json"]
    job = subprocess.Popen(
        [sys.executable, str(PROJECT / "run_spark_local.py"), *command],
        cwd=run.folder,
        env=run.environment
        | {
            "BACKTEST_DAYS": "5",
            "EXECUTOR": "spark",
            "MODEL_PARAMETERS_FILE": str(SHORT["model_parameters_file"]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert job.stderr is not None
    for line in job.stderr:
        if "load ..." in line:
            break
    os.killpg(job.pid, signal.SIGINT)
    stdout, stderr = job.communicate(timeout=120)
    assert job.returncode == 130, stderr
    document = json.loads(stdout)
    assert document["status"] == "cancelled"
    assert execute_sql(
        database,
        "SELECT status FROM yieldspark.run_ledger WHERE run_id = :id",
        {"id": document["run_id"]},
    ) == [{"status": "cancelled"}]
    assert (
        execute_sql(database, "SELECT tablename FROM pg_tables WHERE tablename LIKE 'staging%'")
        == []
    )
    # an interrupted run drops Spark's classes, which it would have recorded
    (archive,) = run.folder.glob("home/class_archive/*")
    assert [path.name for path in archive.iterdir() if not path.name.startswith("base-")] == []
    assert execute_sql(database, "SELECT count(*) AS n FROM yieldspark.forecasts") == [{"n": 0}]


@pytest.mark.usefixtures("jvm")
def test_synapseml_without_its_jars_names_the_next_step(run_here: CommandLine) -> None:
    blocked = {
        "JARS_DIR": str(run_here.folder / "no_jars"),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    document = run_here.json("forecast_pools", "--engine", "synapseml", code=2, **blocked)
    assert "--engine lightgbm" in document["error"]


def test_a_forecast_without_metrics_names_the_command_that_makes_them(
    run_here: CommandLine,
) -> None:
    assert (
        "calculate_metrics"
        in run_here.json("forecast_pools", "--engine", "lightgbm", code=1)["error"]
    )


def test_two_sources_of_pools_are_one_too_many(run_here: CommandLine) -> None:
    (run_here.folder / "pools.txt").write_text("a\n")
    assert (
        "--pools"
        in run_here.json("ingest", "--pools", "pools.txt", "--min-tvl", "1", code=2)["error"]
    )
    assert "--min-tvl" in run_here.json("ingest", code=2)["error"]


def test_wrong_use_is_one_json_document_too(run_here: CommandLine) -> None:
    finished = run_here("calculate_metrics", "--everything", "--json")
    document = json.loads(finished.stdout)
    assert (finished.returncode, document["job"], document["status"]) == (
        2,
        "calculate_metrics",
        "failed",
    )
    assert "--everything" in document["error"]


def test_what_only_looks_makes_no_table_in_your_database(
    run_here: CommandLine, database: Settings
) -> None:
    execute_sql(database, "DROP SCHEMA yieldspark CASCADE")
    for command in (
        ["calculate_metrics", "--dry-run"],
        ["forecast_pools", "--dry-run"],
        ["status"],
        ["report"],
    ):
        assert "db migrate" in run_here.json(*command, code=1)["error"]
    assert execute_sql(database, "SELECT to_regnamespace('yieldspark') IS NULL AS gone") == [
        {"gone": True}
    ]
    assert run_here.json("db", "migrate") == {"changed": True}
    assert run_here.json("db", "migrate") == {"changed": False}


def test_the_demo_stays_out_of_your_database(run_here: CommandLine, database: Settings) -> None:
    assert "DB_HOST is set" in run_here.json("demo", code=2)["error"]
    assert execute_sql(database, "SELECT count(*) AS n FROM pools") == [{"n": 0}]


def test_the_demo_runs_without_any_jar(
    run_on_spark: CommandLine, own_server: EmbeddedServer
) -> None:
    """Reads and writes by ADBC, forecasts by native LightGBM, and reports that."""
    blocked = "http://127.0.0.1:9"
    variables = {
        "DB_HOST": "",
        "HTTPS_PROXY": blocked,
        "HTTP_PROXY": blocked,
        "JARS_DIR": str(own_server.home / "no_jars"),
        "YIELDSPARK_HOME": str(own_server.home),
        # a small model of few days, because the accuracy on the sample is not tested here
        **FEW_DAYS,
        "MODEL_PARAMETERS_FILE": str(SHORT["model_parameters_file"]),
    }
    finished = run_on_spark("demo", "--json", **variables)
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    assert (
        summary["metrics"]["status"],
        summary["forecast"]["status"],
        summary["forecast"]["engine"],
    ) == ("succeeded", "succeeded", "lightgbm")
    assert "--engine lightgbm" in finished.stderr
    assert "going on with adbc" in finished.stderr
    assert (run_on_spark.folder / "reports" / "yieldspark-report.html").exists()


def test_reset_without_a_yes_deletes_nothing(run_here: CommandLine) -> None:
    finished = run_here("db", "reset", "--json", DB_HOST="")
    assert finished.returncode == 2
    assert "--yes" in json.loads(finished.stdout)["error"]


def test_a_home_that_cannot_be_written_is_named(run_here: CommandLine) -> None:
    document = run_here.json("status", code=2, YIELDSPARK_HOME="/dev/null/home")
    assert "YIELDSPARK_HOME" in document["error"]


BROKEN_STATUS = """
import sys
from reporting.figures import forecasts as figures
figures.status = None
sys.argv = ["run_spark_local.py", "status"]
from cli.main import main
main()
"""


def test_character_that_the_encoding_lacks_ends_no_command(run: CommandLine) -> None:
    finished = run("load", "prices-ü.csv", PYTHONIOENCODING="ascii")
    assert finished.returncode == 2
    assert r"prices-\xfc.csv" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_deleted_current_folder_is_named(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = 'cd gone; rmdir ../gone; exec "$@"'
    command = [sys.executable, str(PROJECT / "run_spark_local.py"), "status"]
    finished = subprocess.run(
        ["sh", "-c", script, "sh", *command],
        cwd=tmp_path,
        env=run.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stderr.startswith("error: the current folder does not exist any more")
    assert finished.returncode == 2


def test_in_production_a_product_fault_prints_its_traceback_and_writes_no_file(
    run: CommandLine,
) -> None:
    """A container's files end with it, but its output is kept."""
    finished = subprocess.run(
        [sys.executable, "-c", BROKEN_STATUS],
        cwd=run.folder,
        env=run.environment | {"ENVIRONMENT": "production", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert finished.stderr.startswith("Traceback")
    assert finished.stderr.endswith("error: TypeError: 'NoneType' object is not callable\n")
    assert not (run.folder / "home" / "logs").exists()


def test_markup_in_the_data_is_shown_as_it_is(run_here: CommandLine, database: Settings) -> None:
    execute_sql(
        database,
        "INSERT INTO yieldspark.run_ledger (run_id, job, status, code_version, rows, stages,"
        " checks, error) VALUES ('r', 'ingest', 'failed', '1', '{}', '{}', '[]', 'a [lend] b"
        " [/foo]')",
    )
    assert "a [lend] b [/foo]" in run_here("status").stdout
