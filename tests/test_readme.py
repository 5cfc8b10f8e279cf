"""The README is true: its commands run as written in a new home, its tables name every setting and command, its map every folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line.app import app
from command_line.commands import demo
from config_spark import Settings
from database.embedded_server import EmbeddedServer
from tests.conftest import JARS

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line.startswith("python ")]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of someone who has just cloned: an empty home, no settings; only the jars are there, so that each run need not fetch them."""
    home = tmp_path_factory.mktemp("newcomer")
    data = home / ".local" / "share" / "yieldspark"
    shutil.copytree(JARS, data / "jars")
    reports = home / "reports"
    (home / "sample_data").symlink_to(PROJECT / "sample_data")
    yield {**os.environ, "HOME": str(home), "XDG_DATA_HOME": "", "REPORT_DIR": str(reports)}
    EmbeddedServer(data).reset()


def _run(command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """In the newcomer's folder, where no `.env` of a developer lies."""
    shell = re.sub(r"^python run_spark_local.py", f"{sys.executable} {PROJECT}/run_spark_local.py", command)
    return subprocess.run(["bash", "-c", shell], cwd=environment["HOME"], env=environment, capture_output=True, text=True, check=False)


def test_every_command_of_the_readme_runs(newcomer: dict[str, str]) -> None:
    """In the README's order, which begins with the demo; `test` would run this test again."""
    for command in COMMANDS:
        if command.endswith(" test"):
            continue
        done = _run(command, newcomer)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (Path(newcomer["REPORT_DIR"]) / "yieldspark-report.html").stat().st_size > 100_000
    status = json.loads(_run("python run_spark_local.py status --json", newcomer).stdout)
    assert status["data"]["pools"] == status["data"]["forecasts_next_day"] == 72
    assert {row["status"] for row in status["jobs"].values()} <= {"succeeded", "nothing_to_do"}


def test_every_setting_is_in_the_readme() -> None:
    named = set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE))
    assert named == {name.upper() for name in Settings.model_fields}


def test_every_command_is_in_the_readme() -> None:
    assert demo.__name__ == "demo"
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names <= set(re.findall(r"^\| `(\w+)", README, re.MULTILINE))


def test_the_map_names_every_folder() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()
    folders = {name.split("/")[0] for name in tracked if "/" in name and not name.startswith(".")}
    assert {folder for folder in folders if f"`{folder}/`" not in README} == set()


def test_where_no_jar_can_be_had_the_demo_goes_on(tmp_path: Path) -> None:
    """Reads and writes by ADBC, forecasts by native LightGBM, and it says so."""
    blocked = "http://127.0.0.1:9"
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": "",
        "REPORT_DIR": str(tmp_path),
        "HTTPS_PROXY": blocked,
        "HTTP_PROXY": blocked,
    }
    try:
        done = _run("python run_spark_local.py demo --json", environment)
    finally:
        EmbeddedServer(tmp_path / ".local" / "share" / "yieldspark").reset()
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["metrics"]["status"], summary["forecast"]["status"], summary["forecast"]["engine"]) == ("succeeded", "succeeded", "lightgbm")
    assert "--engine lightgbm" in done.stderr
    assert "going on with adbc" in done.stderr
