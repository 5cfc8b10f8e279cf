"""The house rules that a machine can check: lint, format, types, and no host of a package registry anywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]

REGISTRIES = ("pypi", r"files\.pythonhosted", r"repo1?\.maven", r"repo\.maven\.apache", r"registry\.npmjs", r"proxy\.golang", "crates")
REGISTRY_HOST = re.compile(rf"({'|'.join(REGISTRIES)})\.(org|io|com)", re.IGNORECASE)


@pytest.mark.parametrize("tool", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy", "."]], ids=lambda tool: " ".join(tool))
def test_tools_find_nothing(tool: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *tool], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_registry_host_stands_in_the_repository() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split("\0")
    texts = {name: (PROJECT / name).read_text(encoding="utf-8", errors="ignore") for name in tracked if name and (PROJECT / name).is_file()}
    assert [name for name, text in texts.items() if REGISTRY_HOST.search(text)] == []
