"""Tests that tflint and checkov find nothing in `terraform/` beyond the reviewed lists.

Both are installed once into the user's cache folder and are no packages of the product. Without Go
or access to the registries these tests skip.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emulator.terraform.google_provider import cache_folder, obstacle
from emulator.terraform.terraform_runs import Terraform, copy_configuration
from tests.support.processes import PROJECT
from tests.support.terraform_inventory import WHOLE_PROJECT

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(obstacle() is not None, reason=str(obstacle())),
]

TFLINT = "0.64.0"
CHECKOV = "3.3.30"
CACHE = cache_folder()


@pytest.fixture(scope="module")
def terraform(processes: None, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return copy_configuration(tmp_path_factory.mktemp("terraform"), print)


def _installed(program: Path, command: list[str], variables: dict[str, str]) -> Path:
    """The program, made by the command where it is not there; skips where that fails."""
    if not program.is_file():
        result = subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, check=False
        )
        if result.returncode:
            pytest.skip(f"{program.name} can't be had: {result.stderr.strip().splitlines()[-1]}")
    return program


def test_tflint_finds_nothing(terraform: Terraform) -> None:
    """Its first run builds it: some minutes."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    folder = CACHE / "tflint" / TFLINT
    source = f"github.com/terraform-linters/tflint@v{TFLINT}"
    program = _installed(folder / "tflint", ["go", "install", source], {"GOBIN": str(folder)})
    words = [str(program), "--format=compact", f"--chdir={terraform.folder}"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, ""), result.stdout + result.stderr
    unused = terraform.folder / "unused.tf"
    unused.write_text('variable "unused" {}\n', encoding="utf-8")
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    unused.unlink()
    actual = re.findall(r"\((terraform_\w+)\)", result.stdout)
    assert actual == [
        *("terraform_documented_variables", "terraform_typed_variables"),
        "terraform_unused_declarations",
    ]


def test_checkov_finds_nothing_beyond_the_reviewed_list(terraform: Terraform) -> None:
    """It reads the plan, in which every value is resolved. Its first run fetches 100 packages."""
    folder = CACHE / "checkov" / CHECKOV
    if not folder.is_dir():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(folder / "bin" / "pip"), "install", "--quiet", f"checkov=={CHECKOV}"]
    program = _installed(folder / "bin" / "checkov", install, {})
    plan = terraform.folder / "plan.json"
    plan.write_text(json.dumps(terraform.plan(*WHOLE_PROJECT)), encoding="utf-8")
    reviewed = _checked(program, plan, "--config-file", str(PROJECT / "terraform" / "checkov.yaml"))
    assert [entry["check_id"] for entry in reviewed["failed_checks"]] == []
    assert len(reviewed["passed_checks"]) > 80
    # a check that passes needs no reason to be skipped
    everything = _checked(program, plan)
    failed = {entry["check_id"] for entry in everything["failed_checks"]}
    lines = (PROJECT / "terraform" / "checkov.yaml").read_text(encoding="utf-8").splitlines()
    assert failed == {line.removeprefix("  - ") for line in lines if line.startswith("  - ")}


def _checked(program: Path, plan: Path, *options: str) -> dict[str, Any]:
    words = ["--file", str(plan), "--framework", "terraform_plan", "--skip-download"]
    result = subprocess.run(
        [str(program), *words, "--output", "json", *options],
        env=os.environ | {"HTTPS_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    results: dict[str, Any] = json.loads(result.stdout)["results"]
    return results
