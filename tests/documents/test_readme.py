"""The README is true: its commands run as written in a new home, its layout names every folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from config_spark import Settings, load_settings
from database.db_utils_spark import execute_sql
from database.embedded.resolve import resolve_database
from database.embedded.server import EmbeddedServer
from tests.conftest import JARS
from tests.support.forecast_panels import FEW_DAYS, SHORT
from tests.support.mapped_classes import QUICK_COMPILER
from tests.support.processes import PROJECT, CommandLineHere, environment_of

README = (PROJECT / "README.md").read_text(encoding="utf-8")
DEMO, SUITE, COMMANDS, OWN_DATABASE, CLOUD = (
    block.splitlines() for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
)


@pytest.fixture(scope="module")
def newcomer(processes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of someone who has just cloned: an empty home, no settings; only the jars are
    there, so that each run need not fetch them.

    Nor is there an archive of Spark's classes: the first run makes it.
    """
    home = tmp_path_factory.mktemp("newcomer")
    data = home / ".local" / "share" / "yieldspark"
    shutil.copytree(JARS, data / "jars")
    reports = home / "reports"
    (home / "sample_data").symlink_to(PROJECT / "sample_data")
    bare = {name: value for name, value in os.environ.items() if name != "SPARK_SUBMIT_OPTS"}
    # a model of few days, and the quick compiler: minutes less
    yield bare | {
        "JAVA_TOOL_OPTIONS": QUICK_COMPILER,
        "HOME": str(home),
        "XDG_DATA_HOME": "",
        "REPORT_DIR": str(reports),
        **FEW_DAYS,
    }
    EmbeddedServer(data).reset()


def _runs_well(command: str, environment: dict[str, str]) -> None:
    """In the newcomer's folder, where no `.env` of a developer lies."""
    shell = re.sub(
        r"^python (run_spark_local.py)?",
        lambda found: f"{sys.executable} {PROJECT / found[1] if found[1] else ''}",
        command,
    )
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=environment["HOME"],
        env=environment | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


class Here(CommandLineHere):
    """The same in this process. A command that needs Spark works in the shared session."""

    def __init__(self, environment: dict[str, str], spark: SparkSession | None) -> None:
        self.folder = Path(environment["HOME"])
        self.environment = environment
        self._spark = spark

    def runs_well(self, command: str) -> str:
        """What the command prints."""
        done = self.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        python, program, *arguments = shlex.split(command)
        assert (python, program) == ("python", self.program)
        return self(*arguments, **environment)


CLOUD_DATABASE = "yieldspark_cloud"
ROWS = {
    "metrics": "SELECT * FROM pool_daily_metrics ORDER BY pool_id, date",
    "calendars": "SELECT * FROM yieldspark.pool_coverage ORDER BY pool_id",
    "ages": "SELECT * FROM yieldspark.value_staleness ORDER BY pool_id, date",
    "forecasts": (
        "SELECT pool_id, target_date, apy, apy_low, apy_high, tvl, tvl_low, tvl_high, "
        " apy_fallback_reason, tvl_fallback_reason FROM yieldspark.forecasts ORDER BY 1"
    ),
    "evaluation": (
        "SELECT pool_id, target, target_date, forecast, low, high, actual FROM"
        " yieldspark.forecast_evaluation WHERE engine = 'lightgbm' ORDER BY 1, 2, 3"
    ),
}
BATCHES = (
    "SELECT job, batch_id, status FROM yieldspark.run_ledger WHERE batch_id <> '' ORDER BY"
    " started_at"
)


def _compare_databases(home: Path) -> None:
    """What the batches of the local cloud wrote, released and submitted by its workflow, is row for
    row what the commands wrote.
    """
    demo = resolve_database(
        load_settings(_env_file=None, yieldspark_home=home / ".local" / "share" / "yieldspark")
    )
    cloud = demo.model_copy(update={"db_name": CLOUD_DATABASE})
    for name, query in ROWS.items():
        assert execute_sql(cloud, query) == execute_sql(demo, query), name
    assert len(execute_sql(cloud, ROWS["forecasts"])) == 72
    ran = execute_sql(cloud, BATCHES)
    assert [(row["job"], row["status"]) for row in ran] == [
        ("calculate_metrics", "succeeded"),
        ("forecast_pools", "succeeded"),
        ("validate", "succeeded"),
    ]
    kinds = ("metrics-", "forecast-", "cloud-run-validate-")
    assert all(row["batch_id"].startswith(kind) for row, kind in zip(ran, kinds, strict=True))
    assert execute_sql(demo, BATCHES) == []


PSQL = "python run_spark_local.py db psql"
"""psql takes the place of the process."""


def test_every_command_of_the_readme_runs(newcomer: dict[str, str], spark: SparkSession) -> None:
    """In the README's order, which begins with the demo.

    Over 20 s: the demo and the local cloud are whole processes, three JVMs and two fits, that the
    rest of the suite relies on. Interrupted jobs of other tests are whole processes of the single
    commands, so these run here, and fit a third time.
    """
    here = Here(newcomer, spark)
    assert SUITE == ["python run_spark_local.py test"], "that would run this test again"
    # the demo's forecasts are made again below, by the model of the usual size that the cloud's is
    # compared with
    for command in DEMO:
        _runs_well(
            command, newcomer | {"MODEL_PARAMETERS_FILE": str(SHORT["model_parameters_file"])}
        )
    assert (
        len(
            list(
                Path(newcomer["HOME"]).glob(".local/share/yieldspark/class_archive/*/classes-*.jsa")
            )
        )
        == 1
    )
    for command in COMMANDS:
        if command.startswith(PSQL):
            _runs_well(command, newcomer)
        else:
            here.runs_well(command)
    # the engine of the last forecast above; the demo has run the other one. Batches record no
    # archive: theirs is that of the other tests
    in_cloud = {"ENGINE": "lightgbm", "SPARK_SUBMIT_OPTS": os.environ["SPARK_SUBMIT_OPTS"]}
    for command in CLOUD:
        _runs_well(command, newcomer | in_cloud)
    _compare_databases(Path(newcomer["HOME"]))
    assert (Path(newcomer["REPORT_DIR"]) / "yieldspark-report.html").stat().st_size > 100_000
    status = json.loads(here.runs_well("python run_spark_local.py status --json"))
    assert status["data"]["pools"] == status["data"]["forecasts_next_day"] == 72
    assert {row["status"] for row in status["jobs"].values()} <= {"succeeded", "nothing_to_do"}


def test_your_own_database_needs_no_embedded_server(database: Settings, tmp_path: Path) -> None:
    """The commands under the variables they come with. There is no data yet, which is no error but
    for a forecast.
    """
    export, *commands = OWN_DATABASE
    named = set(re.findall("DB_[A-Z]+", export))
    given = {
        name: value
        for name, value in environment_of(database).items()
        if name in named | {"DB_PORT"}
    }
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("DB_")
    } | given
    environment |= {"HOME": str(tmp_path), "XDG_DATA_HOME": ""}
    here = Here(environment, None)
    *before, forecast = commands
    for command in before:
        here.runs_well(command)
    assert "calculate_metrics" in here.run(forecast, ENGINE="lightgbm").stderr
    assert not (tmp_path / ".local" / "share" / "yieldspark" / "server").exists()


@pytest.mark.usefixtures("processes")
def test_the_layout_names_every_folder() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    folders = {name.split("/")[0] for name in tracked if "/" in name and not name.startswith(".")}
    assert {
        folder: README.count(f"\n| `{folder}/`") + README.count(f"`, `{folder}/`")
        for folder in folders
    } == dict.fromkeys(folders, 1)
