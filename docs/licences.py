"""Licences of all pinned packages and jars, compared with the allowed ones.

In: the requirements files; the metadata of packages that are installed in the environments of the
arguments, and of the wheels that pip downloads of the others; the jars' licences in
`advisories.toml`; `licences.toml`. Out: lines on standard output. Exit code 0 where each licence is
allowed or has its reason, 1 for one without, and for a package whose licence was not found. Run by
`make audit`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from docs.audit import ACCEPTED, LOCKS

RULES = Path(__file__).with_name("licences.toml")
NOT_STATED = "not stated"

CLASSIFIERS: Mapping[str, str] = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""SPDX names, or of a family, by the classifiers of PyPI. Others stay as they are."""

OLD_NAMES: Mapping[str, str] = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "mit license": "MIT",
}
"""SPDX names by texts in the old field `License`, in lower case. Others stay as they are."""

_PIN = re.compile(r"^([\w.-]+)==([^\s;\\]+)(?:\s*;\s*([^\\\n]+))?", re.MULTILINE)


@dataclass(frozen=True, order=True)
class Pin:
    """A pinned package that this platform installs."""

    name: str
    version: str


def main(environments: Sequence[Path], locks: Sequence[Path] = LOCKS, rules: Path = RULES) -> int:
    """Print licences and problems; returns the exit code.

    Args:
        environments: virtual environments. The last one has pip.
        locks: requirements files.
        rules: the allowed licences.
    """
    pins = sorted(read_pins(locks))
    stated = installed_licences(environments)
    missing = [pin for pin in pins if pin not in stated]
    stated |= downloaded_licences(environments[-1] / "bin" / "python", missing)
    by_hand = tomllib.loads(ACCEPTED.read_text(encoding="utf-8"))["by_hand"]
    jars = {
        Pin(entry["name"], entry["version"]): entry["licence"]
        for entry in by_hand
        if "licence" in entry
    }
    licences = {pin: stated.get(pin, NOT_STATED) for pin in pins} | jars
    document = tomllib.loads(rules.read_text(encoding="utf-8"))
    for entry in document.get("package", []):
        print(f"accepted: {entry['licence']} of {entry['name']}: {entry['reason']}")
    problems = list(licence_problems(licences, document))
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print(f"licences of {len(pins)} packages and {len(jars)} jars, {len(problems)} problems")
    return 1 if problems else 0


def read_pins(locks: Iterable[Path]) -> set[Pin]:
    """Return the pins of requirements files that this platform installs."""
    pins: set[Pin] = set()
    for lock in locks:
        pins.update(pins_of(lock.read_text(encoding="utf-8")))
    return pins


def pins_of(lock: str) -> Iterator[Pin]:
    """Yield the pins of a requirements file that this platform installs."""
    for name, version, marker in _PIN.findall(lock):
        if not marker or Marker(marker).evaluate():
            yield Pin(canonicalize_name(name), version)


def installed_licences(environments: Iterable[Path]) -> dict[Pin, str]:
    """Return the licences of the packages in virtual environments."""
    paths: list[str] = []
    for root in environments:
        paths += map(str, root.glob("lib/python*/site-packages"))
    return {
        Pin(canonicalize_name(package.metadata["Name"]), package.version): licence_of(
            _parsed(package.read_text("METADATA") or "")
        )
        for package in distributions(path=paths)
    }


def downloaded_licences(python: Path, pins: Sequence[Pin]) -> dict[Pin, str]:
    """Return the licences of packages from the wheels that pip downloads.

    Args:
        python: a Python with pip.
        pins: the packages; those that cannot be downloaded are left out.
    """
    licences = {}
    with tempfile.TemporaryDirectory() as folder:
        for pin in pins:
            command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
            command += ["download", "--no-deps", "--only-binary", ":all:", "--dest", folder]
            done = subprocess.run(
                [*command, f"{pin.name}=={pin.version}"], capture_output=True, check=False
            )
            for wheel in Path(folder).glob("*.whl"):
                if not done.returncode:
                    licences[pin] = licence_of(wheel_metadata(wheel))
                wheel.unlink()
    return licences


def wheel_metadata(wheel: Path) -> Message:
    """Return the metadata of a wheel."""
    with ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return _parsed(archive.read(name).decode())


def _parsed(text: str) -> Message:
    return Parser().parsestr(text, headersonly=True)


def licence_of(metadata: Message) -> str:
    """Return the licence that a package states: an SPDX expression if it has one, else its
    classifiers, else the old field `License`.
    """
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [
        str(value).rpartition(" :: ")[2]
        for value in metadata.get_all("Classifier", [])
        if str(value).startswith("License :: ")
    ]
    names = [name for name in classifiers if name != "OSI Approved"]
    if names:
        return " AND ".join(sorted({CLASSIFIERS.get(name, name) for name in names}))
    lines = str(metadata.get("License") or "").strip().splitlines() or [NOT_STATED]
    return OLD_NAMES.get(lines[0].lower(), lines[0])


def licence_problems(licences: Mapping[Pin, str], rules: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each licence that is neither allowed nor accepted, and for each accepted
    one that no package has.

    Args:
        licences: licence by package or jar.
        rules: as in `licences.toml`.
    """
    allowed = frozenset(rules["allowed"])
    entries = rules.get("package", [])
    accepted = {(entry["name"], entry["licence"]) for entry in entries if entry["reason"].strip()}
    for pin, licence in licences.items():
        if licence == NOT_STATED:
            yield (
                f"the licence of {pin.name} {pin.version} was not found: it is not installed, and"
                " pip could not download it, or it states none. Run it where packages can be"
                " downloaded, or look the licence up"
            )
        elif not is_allowed(licence, allowed) and (pin.name, licence) not in accepted:
            yield (
                f"{pin.name} {pin.version} has the licence {licence}, which is not allowed: take"
                " another package, or accept it with a reason in docs/licences.toml"
            )
    stated = {(pin.name, licence) for pin, licence in licences.items()}
    for name, licence in sorted(accepted - stated):
        yield f"{licence} of {name} is accepted and no pinned package has it: take it out"


def is_allowed(expression: str, allowed: frozenset[str]) -> bool:
    """Return whether an SPDX expression can be fulfilled with allowed licences: all parts of AND,
    one of OR.
    """
    if expression in allowed:
        return True
    for operator, combine in ((" OR ", any), (" AND ", all)):
        parts = _split(expression, operator)
        if len(parts) > 1:
            return combine(is_allowed(part, allowed) for part in parts)
    inner = expression.strip()
    if inner.startswith("(") and inner.endswith(")"):
        return is_allowed(inner[1:-1].strip(), allowed)
    return False


def _split(expression: str, operator: str) -> list[str]:
    """Split an expression at an operator outside of brackets."""
    parts, depth, begin = [], 0, 0
    for position, sign in enumerate(expression):
        depth += (sign == "(") - (sign == ")")
        if not depth and expression.startswith(operator, position):
            parts.append(expression[begin:position].strip())
            begin = position + len(operator)
    return [*parts, expression[begin:].strip()]


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
