"""The table of grants in docs/guides/cloud-bootstrap.md, from the map `grants` of
terraform/identities.tf as `terraform fmt` lays it out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from docs.generate.marked_table import markdown_table, replace_between

ROOT = Path(__file__).resolve().parents[2]
IDENTITIES = ROOT / "terraform" / "identities.tf"
RUN = ROOT / "terraform" / "run.tf"

GRANT = re.compile(r"^    (\w+) = \{\n((?:      .*\n)+)    \}$", re.MULTILINE)
ATTRIBUTE = re.compile(r"^      (\w+) +=\s(.+)$", re.MULTILINE)
QUOTED = re.compile(r'"([^"]*)"')
BATCH_JOBS = re.compile(r"^  batch_jobs = \[(.*)\]$", re.MULTILINE)

RESOURCES = {
    "account": "the account of {}",
    "bucket": "the bucket {}",
    "job": "the Cloud Run job {}",
    "project": "the project",
    "repository": "the repository of the images",
    "secret": "the secret with the database's password",
}

Grant = dict[str, str | list[str]]


def read_grants(text: str) -> dict[str, Grant]:
    """The map by its keys. Texts are without quotes, and `names` is a list.

    Raises: ValueError for a grant that lacks a part, and for a text without any.
    """
    inside = text.partition("  grants = {\n")[2].partition("\n  }\n")[0]
    grants = {name: _attributes(body) for name, body in GRANT.findall(inside + "\n")}
    for name, grant in grants.items():
        missing = {"to", "role", "on", "names", "reason"} - grant.keys()
        if missing:
            raise ValueError(f"the grant {name} has no {', '.join(sorted(missing))}")
    if not grants:
        raise ValueError("identities.tf has no map `grants`")
    return grants


def batch_jobs() -> list[str]:
    """Return the names in `local.batch_jobs` of terraform/run.tf.

    Raises: ValueError without that list.
    """
    match = BATCH_JOBS.search(RUN.read_text(encoding="utf-8"))
    if match is None:
        raise ValueError("run.tf has no list `batch_jobs`")
    return QUOTED.findall(match[1])


def _attributes(body: str) -> Grant:
    attributes: Grant = {}
    for name, value in ATTRIBUTE.findall(body):
        attributes[name] = _names(value) if name == "names" else "".join(QUOTED.findall(value))
    return attributes


def _names(value: str) -> list[str]:
    names = [*(batch_jobs() if "local.batch_jobs" in value else []), *QUOTED.findall(value)]
    return sorted(names) if value.startswith("sort(") else names


def page_with_grants(page: str) -> str:
    """The page with today's table. Raises: ValueError where it lacks a mark."""
    grants = read_grants(IDENTITIES.read_text(encoding="utf-8"))
    return replace_between(page, "grants", table(grants))


def table(grants: Mapping[str, Grant]) -> str:
    """A row for each grant, as Markdown."""
    rows = [
        (str(grant["to"]), f"`{grant['role']}`", _place(grant), str(grant["reason"]))
        for grant in grants.values()
    ]
    return markdown_table(("who", "role", "on", "why"), rows)


def _place(grant: Grant) -> str:
    place = RESOURCES[str(grant["on"])].format(", ".join(grant["names"]))
    return f"{place}, the object {grant['only']} alone" if "only" in grant else place
