"""Import rules that import-linter (`pyproject.toml`) cannot check: what a process loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.processes import PROJECT


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("folder", ["workflows", "data_processing/planning", "reporting"])
def test_a_folder_that_runs_without_spark_imports_none(folder: str) -> None:
    """The cloud's commands, a plan and a report start in a second, and need no Java."""
    modules = sorted(
        ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        for path in (PROJECT / folder).rglob("*.py")
    )
    imports = "; ".join(f"import {name}" for name in modules if not name.endswith("__main__"))
    heavy = "{'pyspark', 'py4j', 'lightgbm'}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {imports}; print(sorted({heavy} & set(sys.modules)))"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr
