"""The software bill of materials of a release: Python packages and jars with their licences.

Reads the packages of `.venv` through cyclonedx-py, whose program is the first argument, and the
jars' lock; writes CycloneDX 1.6 to the second argument and prints a table of licences. Packages
outside `requirements-spark.txt`, those of the tests, are left out. Run by `make sbom`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from packaging.utils import canonicalize_name

from local_runtime.jars import SOURCES, read_checksums

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements-spark.txt"
BY_HAND = Path(__file__).with_name("advisories.toml")
UNKNOWN = "not stated by the package"

Component = dict[str, Any]


def main(cyclonedx: str, output: Path) -> int:
    """Write the bill to `output` and print the licences; returns the exit code."""
    command = [cyclonedx, "environment", "--pyproject", "pyproject.toml", sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"cyclonedx-py failed: {done.stderr.strip()[-400:]}")
        return 2
    bill = json.loads(done.stdout)
    names = locked_names(LOCK.read_text(encoding="utf-8"))
    packages = [part for part in bill["components"] if canonicalize_name(part["name"]) in names]
    bill["components"] = [*packages, *jar_components()]
    references = {part["bom-ref"] for part in bill["components"]} | {"root-component"}
    bill["dependencies"] = reachable(bill.get("dependencies", []), references)
    output.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
    for part in sorted(bill["components"], key=lambda part: str(part["name"]).lower()):
        print(f"{part['name']:40} {part['version']:12} {licence_of(part)}")
    print(f"{len(packages)} packages and {len(bill['components']) - len(packages)} jars: {output}")
    return 0


def locked_names(lock: str) -> set[str]:
    """Returns the normalized names of the packages that a requirements file pins."""
    return {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}


def jar_components() -> list[Component]:
    """Returns a component for each jar of the lock, with its SHA-256 and licence."""
    checksums = read_checksums()
    entries = tomllib.loads(BY_HAND.read_text(encoding="utf-8"))["by_hand"]
    licences = {entry["name"]: entry["licence"] for entry in entries if "licence" in entry}
    components = []
    for jar in ElementTree.parse(SOURCES / "ivy.xml").iter("dependency"):
        group, name, version = jar.attrib["org"], jar.attrib["name"], jar.attrib["rev"]
        purl = f"pkg:maven/{group}/{name}@{version}"
        components.append(
            {
                "bom-ref": purl,
                "type": "library",
                "group": group,
                "name": name,
                "version": version,
                "purl": purl,
                "hashes": [{"alg": "SHA-256", "content": checksums[f"{name}-{version}.jar"]}],
                "licenses": [{"license": {"id": licences[name]}}],
            }
        )
    return components


def reachable(dependencies: list[Component], references: set[str]) -> list[Component]:
    """Returns the dependency entries between the given references only."""
    kept = []
    for entry in dependencies:
        if entry["ref"] in references:
            uses = [
                reference for reference in entry.get("dependsOn", []) if reference in references
            ]
            kept.append({"ref": entry["ref"], **({"dependsOn": uses} if uses else {})})
    return kept


def licence_of(component: Component) -> str:
    """Returns the licences that a component states, as SPDX names where it has them."""
    names = []
    for entry in component.get("licenses", []):
        licence = entry.get("license", {})
        name = entry.get("expression") or licence.get("id") or licence.get("name", "")
        # old packages put the whole text of their licence into its name
        names.append(" ".join(name.split())[:60])
    return ", ".join(dict.fromkeys(names)) or UNKNOWN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
