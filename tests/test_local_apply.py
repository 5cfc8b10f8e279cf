"""`python -m workflows local apply` as a user starts it. What it does is tested step by step in
test_terraform_apply.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config_spark import Settings
from emulator.google_provider import obstacle
from tests.conftest import JARS
from tests.processes import PROJECT


def _apply(folder: Path, code: int, **variables: str) -> Any:
    """The document of the command, in a home of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "workflows", "local", "apply", "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "YIELDSPARK_HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_without_terraform_it_says_what_it_needs(tmp_path: Path) -> None:
    failed = _apply(tmp_path, 2, PATH=str(tmp_path))
    assert failed["error"].startswith("Terraform is not installed. `local apply` needs Terraform")
    assert "python -m workflows local run" in failed["error"]


def test_without_the_jars_it_fails_before_terraform_begins(tmp_path: Path) -> None:
    if reason := obstacle():
        pytest.skip(reason)
    failed = _apply(tmp_path, 2, JARS_DIR=str(tmp_path))
    assert "a release needs all jars" in failed["error"]
    assert not (tmp_path / "emulator").exists()


@pytest.mark.long
def test_the_whole_command(jvm: Path, server: Settings, tmp_path: Path) -> None:
    """Three minutes and more: the sample's pools through both jobs."""
    if reason := obstacle():
        pytest.skip(reason)
    document = _apply(tmp_path, 0, JARS_DIR=str(JARS))
    assert document["second_plan"] == []
    assert document["run"]["state"] == "SUCCEEDED"
    assert document["rows"]["forecasts"] > 0
    assert document["resources"]["google_sql_database_instance"] == 1
