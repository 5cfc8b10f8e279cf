"""Applies `terraform/` to the fakes, once for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from database.embedded.server import EmbeddedServer
from emulator.project.cloud import EmulatedCloud, emulated_cloud
from emulator.project.database_server import DatabaseServer
from emulator.terraform import terraform_apply
from emulator.terraform.terraform_runs import Terraform

PROJECT, REGION = "yieldspark-tests", "europe-west1"
SECRET = "yieldspark-database-password"
OPERATOR = "user:operator@example.com"
BILLING_ACCOUNT = "012345-6789AB-CDEF01"
VARIABLES = {
    "project_id": PROJECT,
    "region": REGION,
    "operators": [OPERATOR],
    "alert_emails": ["data@example.com"],
    "repository": (
        f"projects/{PROJECT}/locations/{REGION}/connections/github/repositories/yieldspark"
    ),
    "ingest_schedule": "30 1 * * *",
    "schedule_paused": False,
    "billing_account": BILLING_ACCOUNT,
    # batches are sized for it
    "expected_rows": 1000,
    "max_executors": 2,
    # few judged days leave enough of a short history to fit a model
    "more_settings": {"BACKTEST_DAYS": "5", "VALIDATION_DAYS": "20"},
}


@dataclass(frozen=True)
class AppliedProject:
    """State after the first apply."""

    cloud: EmulatedCloud
    terraform: Terraform
    outputs: dict[str, Any]
    addresses: list[str]
    second_plan: list[str]
    grants: list[dict[str, str]]
    custom_roles: dict[str, frozenset[str]]
    budgets: list[dict[str, Any]]
    channels: list[str]


@contextmanager
def applied_project(folder: Path, server: EmbeddedServer) -> Iterator[AppliedProject]:
    """Apply the configuration in a folder and plan again."""
    with emulated_cloud(folder, PROJECT, SECRET, DatabaseServer(server)) as cloud:
        terraform = terraform_apply.prepare_configuration(
            folder / "configuration", cloud.url, VARIABLES, print, token=cloud.token
        )
        terraform_apply.apply(terraform)
        yield AppliedProject(
            cloud,
            terraform,
            terraform_apply.outputs(terraform),
            terraform_apply.addresses(terraform),
            terraform_apply.changes(terraform),
            [grant.payload() for grant in cloud.plane.policies.grants()],
            {
                role["name"]: frozenset(role["includedPermissions"])
                for role in cloud.plane.store.of_type("iam.roles")
            },
            list(cloud.plane.store.of_type("billingbudgets.budgets")),
            [
                channel["name"]
                for channel in cloud.plane.store.of_type("monitoring.notificationChannels")
            ],
        )
