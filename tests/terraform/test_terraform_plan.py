"""Tests one offline plan of `terraform/` by the real provider: its resources, the rules it follows,
and that the rules find each known fault.
"""

from __future__ import annotations

import json

import pytest
import yaml

from docs.generate.grants import IDENTITIES, read_grants
from emulator.terraform.google_provider import obstacle
from emulator.terraform.terraform_runs import Terraform, copy_configuration
from tests.support.faults_of_alerts import ALERT_FAULTS
from tests.support.faults_of_resources import RESOURCE_FAULTS
from tests.support.faults_of_runs import RUN_FAULTS
from tests.support.plan_document import Plan
from tests.support.plan_rules import findings
from tests.support.processes import PROJECT
from tests.support.terraform_faults import put_back
from tests.support.terraform_inventory import INVENTORY, WHOLE_PROJECT, inventory

pytestmark = pytest.mark.skipif(obstacle() is not None, reason=str(obstacle()))

FAULTS = RESOURCE_FAULTS | RUN_FAULTS | ALERT_FAULTS


@pytest.fixture(scope="module")
def terraform(processes: None, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return copy_configuration(tmp_path_factory.mktemp("terraform"), print)


@pytest.fixture(scope="module")
def plan(terraform: Terraform) -> Plan:
    return Plan(terraform.plan(*WHOLE_PROJECT))


@pytest.fixture(scope="module")
def faulty_findings(terraform: Terraform, plan: Plan) -> list[str]:
    """What the rules say of one configuration with every fault of `FAULTS` in it; the good plan is
    made before.
    """
    put_back(FAULTS, terraform.folder.parent)
    return findings(Plan(terraform.plan(*WHOLE_PROJECT)))


def test_the_rules_find_nothing(plan: Plan) -> None:
    assert findings(plan) == []


@pytest.mark.parametrize("name", FAULTS)
def test_finds_each_known_fault(name: str, faulty_findings: list[str]) -> None:
    assert [entry for entry in faulty_findings if FAULTS[name].finding in entry]


def test_the_plan_makes_what_the_inventory_lists(plan: Plan) -> None:
    assert inventory(plan) == json.loads(INVENTORY.read_text(encoding="utf-8"))


def test_the_workflow_is_the_repositorys_own_to_the_byte(plan: Plan) -> None:
    """Terraform's templates and the workflow's expressions are both written ${..}."""
    workflow = plan.resource("google_workflows_workflow", "pipeline")
    source = (PROJECT / "workflows" / "pipeline.yaml").read_text(encoding="utf-8")
    assert workflow.values["source_contents"] == source


def test_the_trigger_sets_what_the_build_takes(plan: Plan) -> None:
    trigger = plan.of_type("google_cloudbuild_trigger")[0]
    build = yaml.safe_load((PROJECT / trigger.values["filename"]).read_text(encoding="utf-8"))
    values = trigger.values["substitutions"]
    assert values.keys() == build["substitutions"].keys()
    assert values["_IMAGE_REPOSITORY"] == "europe-west1-docker.pkg.dev/acme-yields/yieldspark"
    assert values["_CLOUD_RUN_JOBS"].split() == sorted(plan.outputs["jobs"].values())


def test_no_secret_is_in_the_plan(plan: Plan) -> None:
    user = plan.resource("google_sql_user", "yieldspark")
    assert user.values.get("password_wo") is None
    assert "secret_data" not in json.dumps(plan.document["planned_values"])


def test_the_grants_of_the_page_are_those_of_terraform(plan: Plan) -> None:
    """The script that makes the page's table reads the file without Terraform."""
    grants = read_grants(IDENTITIES.read_text(encoding="utf-8"))
    for name in ("batch_logs_in", "container_logs_in"):
        # given with database_iam_login, which this plan does not set
        assert grants[name] | {"names": []} == plan.outputs["grants"][name]
        grants[name]["names"] = []
    assert grants == plan.outputs["grants"]
