"""Rules of the source tree: the order of the rooms, and no host of a package registry anywhere.

Linter, formatter and type checker run beside the tests: cli/suite_commands.py.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

REGISTRIES = (
    "pypi",
    r"files\.pythonhosted",
    r"repo1?\.maven",
    r"repo\.maven\.apache",
    r"registry\.npmjs",
    r"proxy\.golang",
    "crates",
)
REGISTRY_HOST = re.compile(rf"({'|'.join(REGISTRIES)})\.(org|io|com)", re.IGNORECASE)


@pytest.mark.usefixtures("processes")
def test_no_registry_host_stands_in_the_repository() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    texts = {
        name: (PROJECT / name).read_text(encoding="utf-8", errors="ignore")
        for name in tracked
        if name and (PROJECT / name).is_file()
    }
    assert [name for name, text in texts.items() if REGISTRY_HOST.search(text)] == []


ROOMS = (
    "workflows",
    "cli",
    "reporting",
    "forecasting data_processing",
    "database",
    "local_runtime",
    "spark",
    "config_spark",
    "common",
)
"""From left to right, as in CONTRIBUTING.md."""


def test_a_room_imports_only_what_is_to_the_right_of_it() -> None:
    place = {room: number for number, rooms in enumerate(ROOMS) for room in rooms.split()}
    wrong = []
    for room in place:
        for path in sorted((PROJECT / room).rglob("*.py")) or [PROJECT / f"{room}.py"]:
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            named = [
                alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
            ]
            named += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
            others = {name.split(".")[0] for name in named} & place.keys() - {room}
            wrong += [
                f"{path.relative_to(PROJECT)} imports {other}"
                for other in others
                if place[other] <= place[room]
            ]
    assert wrong == []


def test_the_product_never_imports_the_emulator() -> None:
    rooms = [room for rooms in ROOMS for room in rooms.split()]
    sources = [
        path
        for room in [*rooms, "container"]
        for path in sorted((PROJECT / room).rglob("*.py")) or [PROJECT / f"{room}.py"]
    ]
    importing = re.compile(r"^\s*(?:from|import) emulator\b", re.MULTILINE)
    importers = [path for path in sources if importing.search(path.read_text(encoding="utf-8"))]
    assert len(sources) > 100
    # the one place where the command line of the cloud takes `local` in
    assert importers == [PROJECT / "workflows" / "entry.py"]


@pytest.mark.usefixtures("processes")
def test_the_cloud_room_imports_no_spark() -> None:
    """`python -m workflows` runs on machines that have none, and starts in a second."""
    modules = sorted(
        ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        for path in (PROJECT / "workflows").rglob("*.py")
    )
    imports = "; ".join(f"import {name}" for name in modules if not name.endswith("__main__"))
    question = (
        f"import sys; {imports}; print(sorted({{'pyspark', 'py4j', 'lightgbm'}} &"
        " set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", question], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr
