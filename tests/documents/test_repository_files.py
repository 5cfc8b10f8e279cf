"""Files that a code host reads: workflow, forms and hooks."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.processes import PROJECT

GITHUB = PROJECT / ".github"
SCHEMAS = {
    "vendor.github-workflows": GITHUB / "workflows" / "ci.yml",
    "custom.github-workflows-require-timeout": GITHUB / "workflows" / "ci.yml",
    "vendor.github-issue-forms": GITHUB / "ISSUE_TEMPLATE",
}


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_file_is_valid_by_the_schema_that_comes_with_the_checker(schema: str) -> None:
    path = SCHEMAS[schema]
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_calls_the_commands_that_people_type() -> None:
    workflow = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    commands = {
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step
    }
    assert commands == {"python run_spark_local.py test --fast", ".ci/run"}


def test_a_hook_runs_a_tool_of_the_environment() -> None:
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    programs = {shlex.split(hook["entry"])[0] for hook in hooks["repos"][0]["hooks"]}
    environment = Path(sys.executable).parent
    assert [repository["repo"] for repository in hooks["repos"]] == ["local"]
    assert [name for name in programs if not (environment / Path(name).name).exists()] == []
