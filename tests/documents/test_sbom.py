"""Tests `make sbom`: the bill lists what a release installs, with a licence for each component."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.sbom import UNKNOWN, jar_components, licence_of, locked_names, reachable
from tests.support.processes import PROJECT

BILL = {
    "bomFormat": "CycloneDX",
    "components": [
        {"bom-ref": "typer", "name": "typer", "version": "1", "licenses": []},
        {"bom-ref": "pytest", "name": "pytest", "version": "1", "licenses": []},
    ],
    "dependencies": [{"ref": "typer", "dependsOn": ["pytest"]}, {"ref": "pytest"}],
}


def test_every_jar_of_the_lock_has_its_checksum_and_licence() -> None:
    lock = (PROJECT / "local_runtime" / "spark_jars" / "jars.sha256").read_text(encoding="utf-8")
    jars = {f"{jar['name']}-{jar['version']}.jar": jar for jar in jar_components()}
    assert {name: jar["hashes"][0]["content"] for name, jar in jars.items()} == {
        name: digest for digest, name in re.findall(r"^(\w+)\s+(\S+)$", lock, re.MULTILINE)
    }
    assert all(licence_of(jar) != UNKNOWN for jar in jars.values())


@pytest.mark.parametrize(
    ("licenses", "text"),
    [
        ([{"license": {"id": "MIT"}}, {"license": {"id": "MIT"}}], "MIT"),
        ([{"expression": "MPL-2.0 AND MIT"}], "MPL-2.0 AND MIT"),
        ([{"license": {"name": "BSD 3-Clause\n\nCopyright"}}], "BSD 3-Clause Copyright"),
        ([], UNKNOWN),
    ],
)
def test_a_licence_is_one_short_text(licenses: list[dict[str, object]], text: str) -> None:
    assert licence_of({"licenses": licenses}) == text


def test_names_of_a_lock_compare_as_pep_503_says() -> None:
    assert locked_names("Typing_Extensions==4 \\\n    --hash=x\nruamel.yaml==1\n") == {
        "typing-extensions",
        "ruamel-yaml",
    }


def test_dependencies_name_no_component_that_was_left_out() -> None:
    dependencies = [{"ref": "a", "dependsOn": ["b", "c"]}, {"ref": "c", "dependsOn": ["a"]}]
    assert reachable(dependencies, {"a", "b"}) == [{"ref": "a", "dependsOn": ["b"]}]


@pytest.mark.usefixtures("processes")
def test_the_bill_leaves_the_packages_of_the_tests_out(tmp_path: Path) -> None:
    program = tmp_path / "cyclonedx-py"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(BILL)}\nEND\n", encoding="utf-8")
    program.chmod(0o755)
    output = tmp_path / "bill.json"
    command = [sys.executable, "-m", "docs.sbom", str(program), str(output)]
    finished = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout.splitlines()[-1]) == (
        0,
        f"1 packages and 5 jars: {output}",
    )
    names = [part["name"] for part in json.loads(output.read_text(encoding="utf-8"))["components"]]
    assert "typer" in names
    assert "pytest" not in names
