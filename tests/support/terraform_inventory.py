"""Inventory of a plan of a whole project: all resource addresses, all grants, and the conditions of
the alerts (tests/support/terraform_inventory.json). After an intended change run `python -m
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
    "-var",
    "billing_account=012345-6789AB-CDEF01",
)
"""The example, with everything that a variable can enable."""

PLACES = ("service_account_id", "bucket", "secret_id", "repository", "name")
"""Attributes with the resource of a grant; without them it is the project."""


def inventory(plan: Plan) -> dict[str, Any]:
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
        "alerts": {
            str(policy.index): _without_unset(policy.blocks("conditions"))
            for policy in plan.of_type("google_monitoring_alert_policy")
        },
        "log_metrics": {
            metric.values["name"]: metric.values["filter"]
            for metric in plan.of_type("google_logging_metric")
        },
    }


def _without_unset(value: Any) -> Any:
    """Return a value of the plan without nulls and empty blocks."""
    if isinstance(value, dict):
        inner = {name: _without_unset(entry) for name, entry in value.items()}
        return {name: entry for name, entry in inner.items() if entry not in (None, [], {})}
    return [_without_unset(entry) for entry in value] if isinstance(value, list) else value


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        terraform = copy_configuration(Path(folder), print)
        content = inventory(Plan(terraform.plan(*WHOLE_PROJECT)))
    INVENTORY.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
