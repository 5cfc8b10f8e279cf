"""Writes the table of grants into docs/guides/cloud-bootstrap.md: `python -m docs.grants_table`. A
test compares the page with what this makes.

In: the map `grants` of terraform/identities.tf, as `terraform fmt` lays it out. Out: a row for each
grant: who, what, on what, why. A grant that lacks a part is an error here, and not a gap in the
table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IDENTITIES = ROOT / "terraform" / "identities.tf"
PAGE = ROOT / "docs" / "guides" / "cloud-bootstrap.md"

BEGIN, END = "<!-- grants -->", "<!-- end of grants -->"

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


def table(grants: Mapping[str, Grant]) -> str:
    """The rows, as Markdown."""
    rows = ["| who | role | on | why |", "|---|---|---|---|"]
    for grant in grants.values():
        where = RESOURCES[str(grant["on"])].format(", ".join(grant["names"]))
        if "only" in grant:
            where += f", the object {grant['only']} alone"
        rows.append(f"| {grant['to']} | `{grant['role']}` | {where} | {grant['reason']} |")
    return "\n".join(rows)


def page_with_table(page: str, rows: str) -> str:
    """The page with the rows between its two marks. Raises: ValueError where it has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{rows}\n{END}{after}"


if __name__ == "__main__":
    written = page_with_table(
        PAGE.read_text(encoding="utf-8"), table(read_grants(IDENTITIES.read_text(encoding="utf-8")))
    )
    PAGE.write_text(written, encoding="utf-8")
