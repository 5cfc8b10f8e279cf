"""Tests the licences of `make audit`: each is allowed or has a reason, and one that is not found is
a problem.
"""

from __future__ import annotations

import sys
import tomllib
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest

from docs.audit import LOCKS
from docs.licences import (
    NOT_STATED,
    RULES,
    Pin,
    installed_licences,
    is_allowed,
    licence_of,
    licence_problems,
    main,
    pins_of,
    read_pins,
)

ALLOWED = frozenset({"MIT", "BSD-3-Clause", "Apache-2.0"})
HERE = Path(sys.prefix)


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("AGPL-3.0-only", False),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT AND (GPL-2.0-only OR BSD-3-Clause)", True),
        ("(MIT AND GPL-2.0-only) OR (GPL-3.0-only AND MIT)", False),
        ("GPL-2.0-only WITH MIT", False),
        ("", False),
    ],
)
def test_an_expression_needs_all_parts_of_and_and_one_of_or(expression: str, allowed: bool) -> None:
    assert is_allowed(expression, ALLOWED) is allowed


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([("License-Expression", "MIT"), ("License", "GPL")], "MIT"),
        ([("Classifier", "License :: OSI Approved :: MIT License")], "MIT"),
        (
            [
                ("Classifier", "License :: OSI Approved"),
                ("Classifier", "License :: OSI Approved :: MIT License"),
                ("Classifier", "License :: OSI Approved :: GNU Affero General Public License v3"),
            ],
            "GNU Affero General Public License v3 AND MIT",
        ),
        ([("License", "Apache License 2.0")], "Apache-2.0"),
        ([("License", "BSD-3-Clause")], "BSD-3-Clause"),
        ([("Name", "made")], NOT_STATED),
    ],
)
def test_the_licence_of_a_package_is_an_expression(
    fields: list[tuple[str, str]], licence: str
) -> None:
    metadata = Message()
    for name, value in fields:
        metadata[name] = value
    assert licence_of(metadata) == licence


def test_pins_of_other_platforms_are_left_out() -> None:
    lock = (
        "a.b==1.0 \\\n    --hash=sha256:x\nc==2 ; sys_platform == 'win32' \\\n    --hash=x\n"
        "d==3 ; python_version >= '3.11'\n"
    )
    assert list(pins_of(lock)) == [Pin("a-b", "1.0"), Pin("d", "3")]


def _wheel(folder: Path, licence: str) -> None:
    with ZipFile(folder / "made-1.0-py3-none-any.whl", "w") as wheel:
        metadata = (
            f"Metadata-Version: 2.4\nName: made\nVersion: 1.0\nLicense-Expression: {licence}\n"
        )
        wheel.writestr("made.py", "")
        wheel.writestr("made-1.0.dist-info/METADATA", metadata)
        wheel.writestr(
            "made-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr("made-1.0.dist-info/RECORD", "")


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(
    ("licence", "accepted", "code", "sentence"),
    [
        ("AGPL-3.0-only", "", 1, "made 1.0 has the licence AGPL-3.0-only, which is not allowed"),
        ("AGPL-3.0-only", "AGPL-3.0-only", 0, "accepted: AGPL-3.0-only of made: because"),
        ("MIT", "", 0, "licences of 1 packages and 5 jars, 0 problems"),
        ("MIT", "AGPL-3.0-only", 1, "AGPL-3.0-only of made is accepted and no pinned package"),
        (None, "", 1, "the licence of made 1.0 was not found"),
    ],
)
def test_a_wheel_with_a_forbidden_licence_fails_the_audit(
    licence: str | None,
    accepted: str,
    code: int,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The real pip reads the wheel from a folder; None is a wheel that it does not find."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    if licence:
        _wheel(tmp_path, licence)
    lock, rules = tmp_path / "requirements.txt", tmp_path / "licences.toml"
    lock.write_text("made==1.0 \\\n    --hash=sha256:x\n")
    entry = f'[[package]]\nname = "made"\nlicence = "{accepted}"\nreason = "because"\n'
    allowed = 'allowed = ["MIT", "BSD-2-Clause", "Apache-2.0"]\n'
    rules.write_text(allowed + (entry if accepted else ""))
    assert main([HERE], [lock], rules) == code
    assert sentence in capsys.readouterr().out


def test_installed_packages_of_the_locks_have_allowed_licences() -> None:
    """Those of the other environments are compared by `make audit`."""
    rules = tomllib.loads(RULES.read_text(encoding="utf-8"))
    installed = installed_licences([HERE])
    licences = {pin: installed[pin] for pin in read_pins(LOCKS) & installed.keys()}
    assert len(licences) > 100
    problems = list(licence_problems(licences, rules))
    assert [problem for problem in problems if "take it out" not in problem] == []
    assert all(entry["reason"].strip() for entry in rules["package"])
