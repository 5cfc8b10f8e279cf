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

GRANT = re.compile(r"^    (\w+) = \{\n((?:      .*\n)+)    \}$", re.MULTILINE)
ATTRIBUTE = re.compile(r"^      (\w+) +=\s(.+)$", re.MULTILINE)
QUOTED = re.compile(r'"([^"]*)"')

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


def _attributes(body: str) -> Grant:
    found: Grant = {}
    for name, value in ATTRIBUTE.findall(body):
        quoted = QUOTED.findall(value)
        found[name] = quoted if name == "names" else "".join(quoted)
    return found


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
