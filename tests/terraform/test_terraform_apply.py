"""Applies `terraform/` by the real provider to the fakes and tests the daily run on the result,
with the granted permissions.

All tests of the file share one apply. It takes 45 s, mostly waits of the provider: 10 s after
each new account, 3 s after each grant, one after the other for grants on one resource.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from database.connections.engine import make_engine
from database.embedded.server import EmbeddedServer
from emulator.control_plane.resource_store import PROJECT_NUMBER
from emulator.project import daily_run
from emulator.project.daily_run import RowCounts
from emulator.terraform import terraform_apply
from emulator.terraform.google_provider import obstacle
from tests.conftest import JARS
from tests.emulator.test_local_cloud import OWNERS_ROWS
from tests.support.emulated_project import (
    BILLING_ACCOUNT,
    OPERATOR,
    AppliedProject,
    applied_project,
)
from tests.support.granted_workflow import MEMBER, SCENARIOS, Rights, execution
from tests.support.metrics_store import execute


@pytest.fixture(scope="module")
def module_server(
    server_programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path_factory.mktemp("cloud-sql"))
    yield server
    server.reset()


@pytest.fixture(scope="module")
def applied(
    module_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AppliedProject]:
    if reason := obstacle():
        pytest.skip(reason)
    with applied_project(tmp_path_factory.mktemp("project"), module_server) as project:
        yield project


def test_the_second_plan_is_empty(applied: AppliedProject) -> None:
    assert applied.second_plan == []
    created = Counter(address.split(".")[0] for address in applied.addresses)
    assert created["google_sql_database_instance"] == 1, created


def test_the_budget_is_applied(applied: AppliedProject) -> None:
    (budget,) = applied.budgets
    assert budget["name"].startswith(f"billingAccounts/{BILLING_ACCOUNT}/budgets/")
    assert budget["budgetFilter"]["projects"] == [f"projects/{PROJECT_NUMBER}"]
    assert budget["amount"] == {"specifiedAmount": {"currencyCode": "USD", "units": "100"}}
    percents = [rule["thresholdPercent"] for rule in budget["thresholdRules"]]
    assert percents == [0.5, 0.9, 1]
    (channel,) = applied.channels
    assert budget["notificationsRule"]["monitoringNotificationChannels"] == [channel]


NOT_USED = {
    "dataproc.operations.get",
    "iam.serviceAccounts.get",
    "iam.serviceAccounts.list",
    "storage.objects.list",
}
"""The workflow has these and calls nothing that needs them: three are in Google's roles beside what
it needs, and an operation is looked at by whom cancels one by hand.
"""


def test_the_workflow_has_the_rights_that_it_uses_and_no_more(
    applied: AppliedProject, tmp_path: Path
) -> None:
    rights = Rights(applied)
    for scenario, (state, *_) in enumerate(SCENARIOS):
        outcome = execution(tmp_path, rights, scenario)
        assert outcome.state == state, outcome.error
    assert rights.refused == []
    assert rights.granted(MEMBER) - rights.used == NOT_USED


def test_a_run_fails_without_any_one_right_of_the_workflow(
    applied: AppliedProject, tmp_path: Path
) -> None:
    """Only in the scenarios that use the right: it makes no difference to the others."""
    users: dict[str, list[int]] = {}
    good: list[str] = []
    for scenario in range(len(SCENARIOS)):
        rights = Rights(applied)
        good.append(execution(tmp_path / "whole", rights, scenario).state)
        for permission in rights.used:
            users.setdefault(permission, []).append(scenario)
    for permission, scenarios in sorted(users.items()):
        rights = Rights(applied, without=permission)
        # up to the first scenario that ends in another way
        changed = any(
            execution(tmp_path / permission, rights, scenario).state != good[scenario]
            for scenario in scenarios
        )
        assert permission in {entry.permission for entry in rights.refused}
        assert changed or permission.endswith("cancel"), permission


WITHOUT_A_CALL = {
    ("build", "artifactregistry.writer"),
    ("build", "iam.serviceAccountUser"),
    ("build", "logging.logWriter"),
    ("build", "run.developer"),
    ("build", "yieldsparkWorkflowUpdater"),
    ("container", "storage.objectUser"),
    ("scheduler", "run.invoker"),
    ("user:operator", "monitoring.viewer"),
    ("user:operator", "storage.objectViewer"),
    ("workflow", "yieldsparkJobRunner"),
}
"""Accounts and roles of grants that a release, a migration, a nightly run on batches and the costs
do not need: those of a deployment, of a forecast in a container, and of the ingest.
"""


def test_forecast_rows_from_what_terraform_made(
    applied: AppliedProject, jvm: Path, tmp_path: Path
) -> None:
    """Over 20 s: a release, and three jobs as processes of their own, two with a Spark. 20 pools of
    40 days are just enough for a model.
    """
    cloud, outputs = applied.cloud, applied.outputs
    daily_run.publish_release(cloud, outputs, tmp_path, JARS, print)
    database = daily_run.migrate_database(cloud, outputs, OPERATOR, print)
    execute(make_engine(database), OWNERS_ROWS, pools=[f"pool-{number}" for number in range(20)])
    run = daily_run.scheduled_run(cloud, outputs, OPERATOR, print)
    steps = [(step["job"], step["state"]) for step in run.result["steps"]]
    assert steps == [("calculate_metrics", "SUCCEEDED"), ("forecast_pools", "SUCCEEDED")]
    assert daily_run.rows(database) == RowCounts(days=800, forecasts=20, pools=20)
    assert cloud.storage.store.objects_of(outputs["buckets"]["models"]), "no model was kept"
    costs = cloud.ended(cloud.dispatch("yieldspark-costs")["metadata"]["name"])
    assert costs.get("succeededCount") == 1, costs
    assert {refusal.permission for refusal in cloud.identities.refusals()} == {
        "storage.buckets.get"
    }
    unused = {
        (grant.member.partition("@")[0].rpartition("-")[2], grant.role.rpartition("/")[2])
        for grant in cloud.identities.unused_grants()
    }
    assert unused == WITHOUT_A_CALL
    refused = terraform_apply.destroy_error(applied.terraform)
    assert "failed to delete instance because deletion_protection is set to true" in refused
    assert "cannot destroy workflow without setting deletion_protection=false" in refused
    assert f"Error trying to delete bucket {outputs['buckets']['staging']}" in refused
    assert daily_run.rows(database).forecasts == 20
