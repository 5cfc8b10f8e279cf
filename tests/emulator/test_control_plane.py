"""Tests that the fake of Google's control plane rejects what the services reject.
test_terraform_apply.py runs Terraform on it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from emulator.control_plane.control_plane import ControlPlane
from emulator.control_plane.other_methods import add_other_methods
from emulator.control_plane.resource_types import RESOURCE_TYPES
from emulator.services.http_service import Request

PROJECT = "acme-yields"
PLACE = f"/v1/projects/{PROJECT}/locations/europe-west1"
EVERY_API = tuple({type_.host for type_ in RESOURCE_TYPES} | {"servicenetworking.googleapis.com"})
ACCOUNT = f"yieldspark-batch@{PROJECT}.iam.gserviceaccount.com"
CUSTOM_ROLE = f"projects/{PROJECT}/roles/yieldsparkWorkflow"


class Calls:
    """Requests to a control plane, without HTTP."""

    def __init__(self, *apis: str) -> None:
        self.plane = ControlPlane(PROJECT, ("cloudresourcemanager.googleapis.com", *apis))
        add_other_methods(self.plane)

    def __call__(
        self, method: str, path: str, body: Any = None, **query: str
    ) -> tuple[int, dict[str, Any]]:
        """Status and document of the answer."""
        content = json.dumps(body).encode() if body is not None else b""
        answer = self.plane.answer(Request(method, path, query, {}, content))
        assert answer is not None, f"{method} {path} has no route"
        return answer.status, answer.body

    def created(self, path: str, body: Mapping[str, Any], **query: str) -> dict[str, Any]:
        status, document = self("POST", path, body, **query)
        assert status == 200, document
        return document

    def account(self) -> None:
        path = f"/v1/projects/{PROJECT}/serviceAccounts"
        self.created(
            path, {"accountId": "yieldspark-batch", "serviceAccount": {"displayName": "x"}}
        )


@pytest.fixture
def calls() -> Calls:
    return Calls(*EVERY_API)


def _message(document: Mapping[str, Any]) -> str:
    return str(document["error"]["message"])


def test_a_resource_exists_once_and_is_gone_after_its_deletion(calls: Calls) -> None:
    path = f"{PLACE}/repositories"
    operation = calls.created(path, {"format": "DOCKER"}, repository_id="images")
    assert operation["done"]
    assert calls("POST", path, {"format": "DOCKER"}, repository_id="images")[0] == 409
    assert calls("GET", f"{path}/images")[1]["name"] == f"{path[4:]}/images"
    assert calls("GET", f"/{operation['name']}".replace("/projects", "/v1/projects"))[0] == 200
    assert calls("DELETE", f"{path}/images")[0] == 200
    assert calls("GET", f"{path}/images")[0] == 404


def test_an_api_that_is_not_enabled_answers_403() -> None:
    calls = Calls()
    path = f"/compute.googleapis.com/compute/v1/projects/{PROJECT}/global/networks"
    status, document = calls("POST", path, {"name": "main", "autoCreateSubnetworks": False})
    assert status == 403
    assert document["error"]["details"][0]["reason"] == "SERVICE_DISABLED"
    services = {"serviceIds": ["compute.googleapis.com"]}
    calls.created(f"/v1/projects/{PROJECT}/services:batchEnable", services)
    assert calls("POST", path, {"name": "main", "autoCreateSubnetworks": False})[0] == 200


def test_a_field_that_can_not_change_is_refused(calls: Calls) -> None:
    path = f"{PLACE}/repositories"
    calls.created(path, {"format": "DOCKER"}, repository_id="images")
    status, document = calls("PATCH", f"{path}/images", {"format": "NPM"}, updateMask="format")
    assert (status, _message(document)) == (
        400,
        "Field format of artifactregistry.repositories can not be changed",
    )


def test_a_mask_changes_the_named_fields_alone(calls: Calls) -> None:
    path = f"{PLACE}/repositories"
    calls.created(path, {"format": "DOCKER", "description": "a"}, repository_id="images")
    body = {"description": "b", "labels": {"x": "y"}}
    calls("PATCH", f"{path}/images", body, updateMask="description")
    actual = calls("GET", f"{path}/images")[1]
    assert (actual["description"], actual.get("labels")) == ("b", None)


def test_a_network_in_use_is_not_deleted(calls: Calls) -> None:
    base = f"/compute/v1/projects/{PROJECT}"
    calls.created(f"{base}/global/networks", {"name": "main", "autoCreateSubnetworks": False})
    network = f"projects/{PROJECT}/global/networks/main"
    subnetwork = {"name": "batches", "network": network, "ipCidrRange": "10.20.0.0/24"}
    calls.created(f"{base}/regions/europe-west1/subnetworks", subnetwork)
    assert calls("DELETE", f"{base}/global/networks/main")[0] == 400
    overlapping = subnetwork | {"name": "run", "ipCidrRange": "10.20.0.128/25"}
    status, document = calls("POST", f"{base}/regions/europe-west1/subnetworks", overlapping)
    assert (status, "conflicts with subnetwork batches" in _message(document)) == (400, True)
    nowhere = subnetwork | {"name": "run", "network": f"{network}-2", "ipCidrRange": "10.1.0.0/24"}
    assert calls("POST", f"{base}/regions/europe-west1/subnetworks", nowhere)[0] == 404


def test_a_protected_instance_is_not_deleted(calls: Calls) -> None:
    path = f"/sql/v1beta4/projects/{PROJECT}/instances"
    instance = {
        "name": "main",
        "region": "europe-west1",
        "databaseVersion": "POSTGRES_16",
        "settings": {"tier": "db-custom-1-3840", "deletionProtectionEnabled": True},
    }
    calls.created(path, instance)
    status, document = calls("DELETE", f"{path}/main")
    assert (status, document["error"]["status"]) == (400, "FAILED_PRECONDITION")
    settings = {"tier": "db-custom-1-3840", "deletionProtectionEnabled": False}
    calls("PATCH", f"{path}/main", {"settings": settings})
    assert calls("DELETE", f"{path}/main")[0] == 200


def test_an_instance_on_a_network_without_a_peering_is_refused(calls: Calls) -> None:
    base = f"/compute/v1/projects/{PROJECT}"
    calls.created(f"{base}/global/networks", {"name": "main", "autoCreateSubnetworks": False})
    network = f"projects/{PROJECT}/global/networks/main"
    ip = {"privateNetwork": network, "ipv4Enabled": False}
    instance = {
        "name": "main",
        "region": "europe-west1",
        "databaseVersion": "POSTGRES_16",
        "settings": {"tier": "db-custom-1-3840", "ipConfiguration": ip},
    }
    path = f"/sql/v1beta4/projects/{PROJECT}/instances"
    status, document = calls("POST", path, instance)
    assert (status, "has no connection" in _message(document)) == (400, True)


def test_a_policy_is_refused_by_an_old_etag_an_unknown_role_or_member(calls: Calls) -> None:
    path = f"/v1/projects/{PROJECT}"
    old = calls("POST", f"{path}:getIamPolicy", {})[1]["etag"]
    binding = {"role": "roles/logging.logWriter", "members": [f"serviceAccount:{ACCOUNT}"]}
    policy = {"policy": {"etag": old, "bindings": [binding]}}
    assert "does not exist" in _message(calls("POST", f"{path}:setIamPolicy", policy)[1])
    calls.account()
    assert calls("POST", f"{path}:setIamPolicy", policy)[0] == 200
    status, document = calls("POST", f"{path}:setIamPolicy", policy)
    assert (status, document["error"]["status"]) == (409, "ABORTED")
    wrong = {"policy": {"bindings": [binding | {"role": "roles/logging.logWritter"}]}}
    assert calls("POST", f"{path}:setIamPolicy", wrong)[0] == 400


def test_a_custom_role_has_permissions_that_exist(calls: Calls) -> None:
    path = f"/v1/projects/{PROJECT}/roles"
    role = {"roleId": "worker", "role": {"includedPermissions": ["dataproc.batches.run"]}}
    status, document = calls("POST", path, role)
    assert (status, _message(document)) == (400, "Permission dataproc.batches.run is not valid.")


SCHEDULE = {
    "name": f"projects/{PROJECT}/locations/europe-west1/jobs/nightly",
    "schedule": "15 2 * * *",
    "timeZone": "Etc/UTC",
    "httpTarget": {
        "uri": "https://workflowexecutions.googleapis.com/v1/x",
        "body": base64.b64encode(b"{}").decode(),
    },
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "15 25 * * *"}, "Schedule or time zone is invalid"),
        ({"schedule": "15 2 * *"}, "Schedule or time zone is invalid"),
        ({"timeZone": "Europe/Atlantis"}, "Time zone is invalid"),
        ({"httpTarget": SCHEDULE["httpTarget"] | {"body": "{}"}}, "no base64"),  # type: ignore[operator]
        ({"retryConfig": {"retryCount": 6}}, "is not in 0..5"),
    ],
)
def test_a_wrong_schedule_is_refused(calls: Calls, change: dict[str, Any], message: str) -> None:
    status, document = calls("POST", f"{PLACE}/jobs", SCHEDULE | change)
    assert (status, message in _message(document)) == (400, True), document
    assert calls("POST", f"{PLACE}/jobs", SCHEDULE)[0] == 200


def test_a_workflow_that_does_not_compile_is_refused(calls: Calls) -> None:
    calls.account()
    workflow = {"sourceContents": "main:\n  steps:\n", "serviceAccount": ACCOUNT}
    status, document = calls("POST", f"{PLACE}/workflows", workflow, workflowId="pipeline")
    assert (status, "main.yaml" in _message(document)) == (400, True)


MONITORING = f"/monitoring.googleapis.com/v3/projects/{PROJECT}"
TYPE = "custom.googleapis.com/yieldspark/rows"
DESCRIPTOR = {"type": TYPE, "metricKind": "GAUGE", "valueType": "INT64", "labels": [{"key": "job"}]}
FILTER = f'metric.type="{TYPE}" AND resource.type="global"'


def _policy(**body: Any) -> dict[str, Any]:
    absent = {"filter": FILTER, "duration": "84600s", **body}
    return {
        "displayName": "No rows",
        "combiner": "OR",
        "conditions": [{"displayName": "none", "conditionAbsent": absent}],
        "documentation": {"content": "# Runbook"},
    }


@pytest.mark.parametrize(
    ("policy", "status", "message"),
    [
        (_policy(duration="93600s"), 400, "duration is 93600s"),
        (_policy(duration="90s"), 400, "whole minutes"),
        (_policy(aggregations=[{"alignmentPeriod": "90060s"}]), 400, "alignmentPeriod"),
        (_policy(filter=f'metric.type="{TYPE}"'), 400, "must restrict"),
        (_policy(filter=FILTER.replace("rows", "lines")), 404, "Cannot find metric"),
        (_policy() | {"conditions": []}, 400, "1 to 6 conditions"),
        (_policy() | {"documentation": {"content": "x" * 9000}}, 400, "documentation.content"),
        (_policy() | {"notificationChannels": ["projects/acme/notificationChannels/1"]}, 404, "1"),
    ],
)
def test_a_wrong_alert_is_refused(
    calls: Calls, policy: dict[str, Any], status: int, message: str
) -> None:
    assert calls("POST", f"{MONITORING}/metricDescriptors", DESCRIPTOR)[0] == 200
    actual, document = calls("POST", f"{MONITORING}/alertPolicies", policy)
    assert (actual, message in _message(document)) == (status, True), document
    assert calls("POST", f"{MONITORING}/alertPolicies", _policy())[0] == 200


@pytest.mark.parametrize(
    "change",
    [
        {"type": "compute.googleapis.com/rows"},
        {"metricKind": "DELTA"},
        {"valueType": "STRING"},
        {"labels": [{"key": "Job"}]},
    ],
)
def test_a_wrong_metric_descriptor_is_refused(calls: Calls, change: dict[str, Any]) -> None:
    assert calls("POST", f"{MONITORING}/metricDescriptors", DESCRIPTOR | change)[0] == 400
    assert calls("GET", f"{MONITORING}/metricDescriptors/{TYPE}")[0] == 404
