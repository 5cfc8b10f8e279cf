"""Tests the access of the emulated project's identities: permissions of each call, policies with
conditions, and the network between jobs and database.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import YieldSparkError
from emulator.control_plane.gateway import Gateway
from emulator.control_plane.method_permissions import Needed, needed
from emulator.control_plane.policies import Policies
from emulator.control_plane.private_network import (
    Unreachable,
    require_batch_network,
    route_variables,
)
from emulator.control_plane.resource_types import RESOURCE_TYPES
from emulator.project.cloud import emulated_cloud
from emulator.services.http_service import Answer, ApiError, Request, Service
from tests.emulator.test_control_plane import ACCOUNT, EVERY_API, PLACE, PROJECT, SCHEDULE, Calls

MEMBER = f"serviceAccount:{ACCOUNT}"
BUCKET = "projects/_/buckets/releases"
UPLOAD = "/upload/storage/v1/b/releases/o"
MULTIPART = b'--x\r\ncontent-type: application/json\r\n\r\n{"name": "a/b"}\r\n--x\r\n\r\nz\r\n--x--'


def _request(method: str, path: str, body: Any = b"", **query: str) -> Request:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(method, path, query, {}, content)


CALLS = [
    (
        _request("GET", "/storage/v1/b/releases/o/versions%2Fabc", alt="media"),
        {("storage.objects.get", f"{BUCKET}/objects/versions/abc")},
    ),
    (
        _request("POST", UPLOAD, MULTIPART, uploadType="multipart"),
        {("storage.objects.create", f"{BUCKET}/objects/a/b")},
    ),
    (
        _request("POST", UPLOAD, {"name": "there"}, uploadType="resumable"),
        {
            ("storage.objects.create", f"{BUCKET}/objects/there"),
            ("storage.objects.delete", f"{BUCKET}/objects/there"),
        },
    ),
    (
        _request(
            "POST",
            f"{PLACE}/batches",
            {"environmentConfig": {"executionConfig": {"serviceAccount": ACCOUNT}}},
        ),
        {
            ("dataproc.batches.create", f"projects/{PROJECT}"),
            ("iam.serviceAccounts.actAs", f"projects/{PROJECT}/serviceAccounts/{ACCOUNT}"),
        },
    ),
    (
        _request("POST", f"{PLACE.replace('v1', 'v2')}/jobs/costs:run", {}),
        {("run.jobs.run", f"{PLACE[4:]}/jobs/costs")},
    ),
    (
        _request("POST", f"{PLACE.replace('v1', 'v2')}/jobs/costs:run", {"overrides": {"x": 1}}),
        {
            ("run.jobs.run", f"{PLACE[4:]}/jobs/costs"),
            ("run.jobs.runWithOverrides", f"{PLACE[4:]}/jobs/costs"),
        },
    ),
    (
        _request("POST", "/v2/entries:list", {"resourceNames": [f"projects/{PROJECT}"]}),
        {("logging.logEntries.list", f"projects/{PROJECT}")},
    ),
]


@pytest.mark.parametrize(("request_", "expected"), CALLS)
def test_a_call_needs_these_permissions(request_: Request, expected: set[tuple[str, str]]) -> None:
    actual = needed(request_, lambda bucket, name: name == "there")[1]
    assert {(entry.permission, entry.resource) for entry in actual} == expected


def test_a_call_without_a_row_is_refused() -> None:
    with pytest.raises(ApiError, match="no permission is known"):
        needed(_request("POST", f"{PLACE}/sessions"), lambda *_: False)


ONLY_LATEST = f"resource.name == '{BUCKET}/objects/latest.json'"


def _policies(role: str, resource: str, condition: str = "") -> Policies:
    binding: dict[str, Any] = {"role": role, "members": [MEMBER]}
    if condition:
        binding["condition"] = {"expression": condition}
    policies = Policies(lambda role: None, lambda email: True)
    policies.set(resource, {"version": 3, "bindings": [binding]})
    return policies


@pytest.mark.parametrize(
    ("granted_on", "condition", "resource", "allowed"),
    [
        (BUCKET, "", f"{BUCKET}/objects/x", True),
        (BUCKET, "", f"{BUCKET}-2/objects/x", False),
        (f"projects/{PROJECT}", "", f"{BUCKET}/objects/x", True),
        (BUCKET, ONLY_LATEST, f"{BUCKET}/objects/latest.json", True),
        (BUCKET, ONLY_LATEST, f"{BUCKET}/objects/versions/latest.json", False),
        (BUCKET, 'resource.name.startsWith("' + BUCKET + '/objects/a")', BUCKET, False),
    ],
)
def test_a_grant_holds_where_it_was_given(
    granted_on: str, condition: str, resource: str, allowed: bool
) -> None:
    policies = _policies("roles/storage.objectUser", granted_on, condition)
    assert policies.allows(MEMBER, "storage.objects.delete", resource) is allowed
    assert not policies.allows("user:ana@example.com", "storage.objects.delete", resource)


def test_rejects_an_unknown_condition() -> None:
    with pytest.raises(ApiError, match="is not known to this emulator"):
        _policies("roles/storage.objectUser", BUCKET, "request.time < timestamp('2030-01-01')")


def test_a_gateway_names_what_is_not_granted() -> None:
    calls = Calls(*EVERY_API)
    service = Service()
    service.route("GET", "/storage/v1/b/releases/o", lambda request: Answer({"kind": "list"}))
    gateway = Gateway(MEMBER, calls.plane, [service], lambda *_: False)
    refused = gateway.answer(_request("GET", "/storage/v1/b/releases/o"))
    assert refused is not None
    assert refused.status == 403
    assert "'storage.objects.list' denied on resource" in refused.body["error"]["message"]
    assert gateway.refused == [Needed("storage.objects.list", BUCKET)]
    calls.account()
    binding = {"role": "roles/storage.objectViewer", "members": [MEMBER]}
    calls.plane.policies.set(BUCKET, {"bindings": [binding]})
    values = gateway.answer(_request("GET", "/storage/v1/b/releases/o"))
    assert values is not None
    assert values.body == {"kind": "list"}


def test_a_project_without_the_api_of_a_call_refuses_it() -> None:
    gateway = Gateway(MEMBER, Calls().plane, [], lambda *_: False)
    refused = gateway.answer(_request("POST", f"{PLACE}/batches", {}))
    assert refused is not None
    assert refused.body["error"]["details"][0]["reason"] == "SERVICE_DISABLED"
    assert "dataproc.googleapis.com has not been used" in refused.body["error"]["message"]


@pytest.mark.usefixtures("processes")
def test_a_paused_schedule_starts_nothing(tmp_path: Path) -> None:
    with emulated_cloud(tmp_path, PROJECT, "password") as cloud:
        cloud.plane.enabled.update({type_.host for type_ in RESOURCE_TYPES})
        cloud.plane.answer(_request("POST", f"{PLACE}/jobs", SCHEDULE))
        cloud.plane.answer(_request("POST", f"{PLACE}/jobs/nightly:pause"))
        with pytest.raises(YieldSparkError, match="nightly is PAUSED, and starts nothing"):
            cloud.dispatch("nightly")


NETWORK = f"projects/{PROJECT}/global/networks/main"
OTHER = f"projects/{PROJECT}/global/networks/other"
SERVER = ("127.0.0.1", 20001)
VARIABLES = {
    "DB_HOST": "db.yieldspark.internal",
    "DB_SSLMODE": "require",
    "MLFLOW_TRACKING_URI": "postgresql+psycopg2://db.yieldspark.internal/mlflow",
}


@pytest.fixture
def network() -> Calls:
    """A network with a subnetwork, a private zone and a database on it."""
    calls = Calls(*EVERY_API)
    compute = f"/compute/v1/projects/{PROJECT}"
    for name in ("main", "other"):
        calls.created(f"{compute}/global/networks", {"name": name, "autoCreateSubnetworks": False})
    subnetwork = {
        "name": "batches",
        "network": NETWORK,
        "ipCidrRange": "10.20.0.0/24",
        "privateIpGoogleAccess": True,
    }
    calls.created(f"{compute}/regions/europe-west1/subnetworks", subnetwork)
    range_ = {"name": "services", "network": NETWORK, "purpose": "VPC_PEERING", "prefixLength": 20}
    calls.created(f"{compute}/global/addresses", range_)
    connection = {"network": NETWORK, "reservedPeeringRanges": ["services"]}
    calls.created("/v1/services/servicenetworking.googleapis.com/connections", connection)
    instance = {
        "name": "main",
        "region": "europe-west1",
        "databaseVersion": "POSTGRES_16",
        "settings": {
            "tier": "db-custom-1-3840",
            "ipConfiguration": {"privateNetwork": NETWORK, "ipv4Enabled": False},
        },
    }
    calls.created(f"/sql/v1beta4/projects/{PROJECT}/instances", instance)
    return calls


def _zone(calls: Calls, network: str, address: str) -> None:
    zones = f"/dns/v1/projects/{PROJECT}/managedZones"
    visibility = {"networks": [{"networkUrl": network}]}
    zone = {"name": "private", "dnsName": "yieldspark.internal."}
    calls.created(zones, zone | {"privateVisibilityConfig": visibility})
    record = {"name": "db.yieldspark.internal.", "type": "A", "rrdatas": [address]}
    calls.created(f"{zones}/private/rrsets", record)


def test_a_job_reaches_the_database_by_its_name(network: Calls) -> None:
    _zone(network, NETWORK, "10.200.0.3")
    assert route_variables(network.plane, SERVER, VARIABLES, "batches") == {
        "DB_HOST": "127.0.0.1",
        "DB_PORT": "20001",
        "DB_SSLMODE": "prefer",
        "MLFLOW_TRACKING_URI": "postgresql+psycopg2://127.0.0.1:20001/mlflow",
    }


@pytest.mark.parametrize(
    ("zone_network", "address", "subnetwork", "message"),
    [
        (OTHER, "10.200.0.3", "batches", "has no record in a zone that"),
        (NETWORK, "10.200.0.9", "batches", "and no instance of"),
        (NETWORK, "10.200.0.3", "default", "subnetwork default does not exist"),
    ],
)
def test_a_job_does_not_reach_a_database_elsewhere(
    network: Calls, zone_network: str, address: str, subnetwork: str, message: str
) -> None:
    _zone(network, zone_network, address)
    with pytest.raises(Unreachable, match=message):
        route_variables(network.plane, SERVER, VARIABLES, subnetwork)


def test_machines_of_a_batch_reach_each_other_and_google(network: Calls) -> None:
    compute = f"/compute/v1/projects/{PROJECT}"
    rule = {
        "name": "batches",
        "network": NETWORK,
        "sourceRanges": ["10.20.0.0/25"],
        "allowed": [{"IPProtocol": "all"}],
    }
    network.created(f"{compute}/global/firewalls", rule)
    with pytest.raises(Unreachable, match="no rule lets machines of batches reach each other"):
        require_batch_network(network.plane, "batches")
    network("PATCH", f"{compute}/global/firewalls/batches", {"sourceRanges": ["10.20.0.0/24"]})
    require_batch_network(network.plane, "batches")
    path = f"{compute}/regions/europe-west1/subnetworks/batches"
    network("PATCH", path, {"privateIpGoogleAccess": False})
    with pytest.raises(Unreachable, match="has no Private Google Access"):
        require_batch_network(network.plane, "batches")
