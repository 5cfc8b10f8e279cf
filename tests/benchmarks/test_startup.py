"""The benchmark of starts: its commands and its lines. No figure of speed is asserted."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

import cli.main  # noqa: F401 - registers the commands
from benchmarks.startup import GOALS, Start, environment_of_home, result_text
from cli.app import app


def test_each_measured_command_exists() -> None:
    commands = {name for name in GOALS if not name.startswith("-")}
    assert commands <= set(typer.main.get_group(app).commands)


def test_a_line_names_both_times_and_the_goal() -> None:
    lines = result_text([Start("status", 1.5, 1.21, 1.5), Start("report", 2.25, 2.0, 1.5)])
    hit, missed = lines.splitlines()
    assert hit.split() == [
        "status",
        "1.50",
        "s",
        "1.21",
        "s",
        "processor",
        "goal",
        "1.5",
        "s:",
        "hit",
    ]
    assert missed.endswith("2.00 s processor   goal  1.5 s: missed by 0.75 s")


def test_the_home_is_no_database_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_HOST", "db.example.com")
    monkeypatch.setenv("DB_PASSWORD", "secret")
    variables = environment_of_home(tmp_path)
    assert not [name for name in variables if name.startswith("DB_")]
    assert (variables["YIELDSPARK_HOME"], variables["REPORT_DIR"]) == (
        str(tmp_path),
        str(tmp_path / "reports"),
    )
