"""What a plan of a whole project makes: tests/support/terraform_inventory.json. After a change that
is wanted: `python -m tests.support.terraform_inventory`, and look at the difference.

In: a plan. Out: the addresses of all resources, and every right as who, role and what on.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from emulator.terraform.terraform_runs import copy_configuration
from tests.support.plan_document import Plan
from tests.support.right_rules import grants

INVENTORY = Path(__file__).with_suffix(".json")

WHOLE_PROJECT = (
    "-var-file=example.tfvars",
    "-var",
    "repository=projects/acme-yields/locations/europe-west1/connections/github/repositories/yields",
)
"""The example, and with it everything that a variable can turn on."""

PLACES = ("service_account_id", "bucket", "secret_id", "repository", "name")
"""Attributes that say what a right is on; without any of them it is the project."""


def inventory(plan: Plan) -> dict[str, list[Any]]:
    """As the file has it."""
    rights = []
    for grant in grants(plan):
        where = next((grant.values[name] for name in PLACES if grant.values.get(name)), "project")
        member = grant.values["member"].removesuffix("@acme-yields.iam.gserviceaccount.com")
        conditions = [condition["title"] for condition in grant.blocks("condition")]
        rights.append([member, grant.values["role"], where, *conditions])
    return {
        "resources": sorted(one.address for one in plan.resources if one not in grants(plan)),
        "grants": sorted(rights),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        terraform = copy_configuration(Path(folder), print)
        made = inventory(Plan(terraform.plan(*WHOLE_PROJECT)))
    INVENTORY.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
