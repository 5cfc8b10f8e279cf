"""Tests `python -m workflows local apply` as a user starts it. test_terraform_apply.py tests its
steps.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config_spark import Settings
from database.embedded.server import EmbeddedServer
from emulator.terraform.google_provider import obstacle
from tests.conftest import JARS
from tests.support.processes import PROJECT

pytestmark = pytest.mark.usefixtures("processes")


def _started(folder: Path, **variables: str) -> subprocess.Popen[str]:
    """Start the command in a home of its own."""
    home = {"PYTHONPATH": str(PROJECT), "YIELDSPARK_HOME": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-m", "workflows", "local", "apply", "--json"],
        cwd=folder,
        env={**os.environ, **home, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _apply(folder: Path, code: int, **variables: str) -> Any:
    """Return the document of the command."""
    with _started(folder, **variables) as process:
        output, errors = process.communicate()
    assert process.returncode == code, errors
    return json.loads(output)


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


def test_an_interrupt_ends_all_processes(server_programs: Path, tmp_path: Path) -> None:
    """The interrupted program prints the document, once."""
    if reason := obstacle():
        pytest.skip(reason)
    with _started(tmp_path, JARS_DIR=str(JARS)) as process:
        assert process.stderr is not None
        while "3/6" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert json.loads(output)["error"].startswith("interrupted")
    assert EmbeddedServer(tmp_path / "emulator").status()["running"] is False


@pytest.mark.long
def test_the_whole_command(jvm: Path, server: Settings, tmp_path: Path) -> None:
    """Takes over three minutes: both jobs compute the sample's pools."""
    if reason := obstacle():
        pytest.skip(reason)
    document = _apply(tmp_path, 0, JARS_DIR=str(JARS))
    assert document["second_plan"] == []
    assert document["run"]["state"] == "SUCCEEDED"
    assert document["rows"]["forecasts"] > 0
    assert document["resources"]["google_sql_database_instance"] == 1
