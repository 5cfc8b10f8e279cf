"""Inventory of a plan of a whole project: all resource addresses and all grants
(tests/support/terraform_inventory.json). After an intended change run `python -m
tests.support.terraform_inventory` and review the difference.
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
"""The example, with everything that a variable can enable."""

PLACES = ("service_account_id", "bucket", "secret_id", "repository", "name")
"""Attributes with the resource of a grant; without them it is the project."""


def inventory(plan: Plan) -> dict[str, list[Any]]:
    """Return the content of the file."""
    rights = []
    for grant in grants(plan):
        target = next((grant.values[name] for name in PLACES if grant.values.get(name)), "project")
        member = grant.values["member"].removesuffix("@acme-yields.iam.gserviceaccount.com")
        conditions = [condition["title"] for condition in grant.blocks("condition")]
        rights.append([member, grant.values["role"], target, *conditions])
    return {
        "resources": sorted(
            resource.address for resource in plan.resources if resource not in grants(plan)
        ),
        "grants": sorted(rights),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        terraform = copy_configuration(Path(folder), print)
        content = inventory(Plan(terraform.plan(*WHOLE_PROJECT)))
    INVENTORY.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
