"""Rules of single types that the table cannot express, and the fields that their services fill.
Each function changes the resource in place and raises ApiError 400 as the service does; its
docstring has the reference.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from common.errors import ConfigurationError
from emulator.control_plane.monitoring_rules import alert_policy, budget
from emulator.control_plane.policies import other_permissions, predefined_roles
from emulator.control_plane.resource_store import TYPES, Document, Names, ResourceStore, field_of
from emulator.services.http_service import ApiError
from workflows.pipeline_lint.program import load_program

Rule = Callable[[ResourceStore, Names, Document], None]

GIB_BY_CPU = {1: 4, 2: 8, 4: 16, 6: 24, 8: 32}
"""Maximum memory by CPUs (https://cloud.google.com/run/docs/configuring/memory-limits)."""
SMALLEST_RUN_PREFIX = 26
"""https://cloud.google.com/run/docs/configuring/vpc-direct-vpc#subnet-size"""


def subnetwork(store: ResourceStore, names: Names, resource: Document) -> None:
    """Ranges of a network do not overlap (https://cloud.google.com/vpc/docs/subnets)."""
    ip_range = _range(resource["ipCidrRange"])
    for other in store.of_type("compute.subnetworks"):
        in_same_network = other["name"] != names["id"] and other["network"] == resource["network"]
        if in_same_network and ip_range.overlaps(_range(other["ipCidrRange"])):
            raise ApiError(
                400, f"Invalid IPCidrRange: {ip_range} conflicts with subnetwork {other['name']}"
            )
    # the second address of a range is the gateway's
    resource.setdefault("gatewayAddress", str(ip_range[1]))


def address(store: ResourceStore, names: Names, resource: Document) -> None:
    """A range for private services does not overlap a subnetwork."""
    if resource.get("purpose") != "VPC_PEERING":
        return
    if not resource.get("network") or not resource.get("prefixLength"):
        raise ApiError(400, "An address with purpose VPC_PEERING needs network and prefixLength")
    resource["address"] = resource.get("address") or "10.200.0.0"
    ip_range = _range(f"{resource['address']}/{resource['prefixLength']}")
    for other in store.of_type("compute.subnetworks"):
        if ip_range.overlaps(_range(other["ipCidrRange"])):
            raise ApiError(400, f"Range {ip_range} conflicts with subnetwork {other['name']}")


def firewall(store: ResourceStore, names: Names, resource: Document) -> None:
    """A rule allows or denies (https://cloud.google.com/firewall/docs/firewalls)."""
    if bool(resource.get("allowed")) == bool(resource.get("denied")):
        raise ApiError(400, "A firewall has either allowed or denied")


def sql_instance(store: ResourceStore, names: Names, resource: Document) -> None:
    """https://cloud.google.com/sql/docs/postgres/admin-api/rest/v1beta4/instances"""
    settings = resource.setdefault("settings", {})
    settings.setdefault("edition", "ENTERPRISE")
    version, tier = str(resource.get("databaseVersion", "")), str(settings.get("tier", ""))
    if not re.fullmatch(r"POSTGRES_(9_6|1\d)", version):
        raise ApiError(400, f"Invalid value for databaseVersion: {version}")
    if not re.fullmatch(r"db-(custom-\d+-\d+|f1-micro|g1-small|perf-optimized-N-\d+)", tier):
        raise ApiError(400, f"Invalid tier: {tier}")
    # https://cloud.google.com/sql/docs/postgres/editions-intro
    if tier.startswith("db-perf") != (settings["edition"] == "ENTERPRISE_PLUS"):
        raise ApiError(400, f"Invalid tier {tier} for edition {settings['edition']}")
    ip = settings.setdefault("ipConfiguration", {})
    network = ip.get("privateNetwork")
    if network and not _is_peered(store, network):
        raise ApiError(
            400,
            "Failed to create subnetwork. Couldn't find free blocks in allocated IP ranges: network"
            f" {network} has no connection to servicenetworking.googleapis.com",
        )
    if not network and not ip.get("ipv4Enabled", True):
        raise ApiError(400, "At least one of Public IP or Private IP must be enabled")
    resource["ipAddresses"] = [
        *([{"type": "PRIVATE", "ipAddress": _first_private_address(store)}] if network else []),
        # 203.0.113.0/24 is reserved for documentation (RFC 5737)
        *([{"type": "PRIMARY", "ipAddress": "203.0.113.7"}] if ip.get("ipv4Enabled") else []),
    ]
    resource["connectionName"] = f"{names['project']}:{resource['region']}:{names['id']}"
    _sql_defaults(settings)


def _sql_defaults(settings: Document) -> None:
    """Set the service's defaults."""
    settings.setdefault("kind", "sql#settings")
    settings.setdefault("settingsVersion", "1")
    settings.setdefault("activationPolicy", "ALWAYS")
    settings.setdefault("availabilityType", "ZONAL")
    settings.setdefault("pricingPlan", "PER_USE")
    settings.setdefault("replicationType", "SYNCHRONOUS")
    settings.setdefault("dataDiskType", "PD_SSD")
    settings.setdefault("dataDiskSizeGb", "10")
    settings.setdefault("storageAutoResize", True)
    settings.setdefault("storageAutoResizeLimit", "0")
    settings.setdefault("connectorEnforcement", "NOT_REQUIRED")
    settings.setdefault("deletionProtectionEnabled", False)
    backup = settings.setdefault("backupConfiguration", {"enabled": False})
    backup.setdefault("backupTier", "STANDARD")


def sql_database(store: ResourceStore, names: Names, resource: Document) -> None:
    """https://cloud.google.com/sql/docs/postgres/create-manage-databases"""
    instance = next(
        (i for i in store.of_type("sqladmin.instances") if i["name"] == names["instance"]), None
    )
    if instance is None:
        raise ApiError(404, "The Cloud SQL instance does not exist.")


def bucket(store: ResourceStore, names: Names, resource: Document) -> None:
    """https://cloud.google.com/storage/docs/json_api/v1/buckets"""
    # the service returns locations in upper case
    resource["location"] = str(resource.get("location", "US")).upper()
    iam = resource.setdefault("iamConfiguration", {})
    iam.setdefault("uniformBucketLevelAccess", {"enabled": False})
    prevention = iam.setdefault("publicAccessPrevention", "inherited")
    if prevention not in ("inherited", "enforced"):
        raise ApiError(400, f"Invalid argument: publicAccessPrevention {prevention}")
    for rule in resource.get("lifecycle", {}).get("rule", []):
        if not rule.get("condition"):
            raise ApiError(400, "A lifecycle rule needs a condition")


def repository(store: ResourceStore, names: Names, resource: Document) -> None:
    """https://cloud.google.com/artifact-registry/docs/reference/rest"""
    if resource.get("format") not in ("DOCKER", "PYTHON", "MAVEN", "NPM", "APT", "YUM", "GENERIC"):
        raise ApiError(400, f"Invalid format: {resource.get('format')}")
    resource.setdefault(
        "registryUri", f"{names['location']}-docker.pkg.dev/{names['project']}/{names['id']}"
    )


def run_job(store: ResourceStore, names: Names, resource: Document) -> None:
    """https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs"""
    execution = resource.setdefault("template", {})
    execution.setdefault("taskCount", 1)
    task = execution.setdefault("template", {})
    task.setdefault("maxRetries", 3)
    task.setdefault("timeout", "600s")
    task.setdefault("executionEnvironment", "EXECUTION_ENVIRONMENT_GEN2")
    _require_account(store, task.get("serviceAccount"))
    for container in task.get("containers", []):
        if not container.get("image"):
            raise ApiError(400, "template.containers[0].image is required")
        _check_limits(container.setdefault("resources", {}).setdefault("limits", {}))
    for interface in task.get("vpcAccess", {}).get("networkInterfaces", []):
        _check_interface(store, interface)


def _check_limits(limits: Document) -> None:
    limits.setdefault("cpu", "1000m")
    limits.setdefault("memory", "512Mi")
    cpus = limits["cpu"]
    cpu = int(cpus.removesuffix("m")) / 1000 if cpus.endswith("m") else float(cpus)
    match = re.fullmatch(r"(\d+)(Gi|Mi|G|M)", limits["memory"])
    if not match or cpu not in GIB_BY_CPU:
        raise ApiError(400, f"Invalid value specified for limits: {limits}")
    gib = int(match[1]) / (1 if match[2].startswith("G") else 1024)
    if gib > GIB_BY_CPU[int(cpu)]:
        raise ApiError(
            400, f"Invalid value specified for memory: {limits['memory']} needs more than {cpu} CPU"
        )


def _check_interface(store: ResourceStore, interface: Document) -> None:
    name = str(interface.get("subnetwork", "")).rpartition("/")[2]
    matches = [
        resource for resource in store.of_type("compute.subnetworks") if resource["name"] == name
    ]
    if not matches:
        raise ApiError(400, f"Subnetwork {name!r} of the job was not found")
    if _range(matches[0]["ipCidrRange"]).prefixlen > SMALLEST_RUN_PREFIX:
        raise ApiError(400, f"Subnetwork {name} is smaller than /{SMALLEST_RUN_PREFIX}")


def workflow(store: ResourceStore, names: Names, resource: Document) -> None:
    """The service compiles the source (https://cloud.google.com/workflows/docs/reference/syntax)
    and stores the account with its project.
    """
    try:
        load_program(resource.get("sourceContents", ""))
    except ConfigurationError as error:
        raise ApiError(400, f"main.yaml: {error}") from None
    account = str(resource.get("serviceAccount", "")).rpartition("/")[2]
    _require_account(store, account)
    resource["serviceAccount"] = f"projects/{names['project']}/serviceAccounts/{account}"
    resource["revisionId"] = "000001-e1f"


def scheduler_job(store: ResourceStore, names: Names, resource: Document) -> None:
    """https://cloud.google.com/scheduler/docs/reference/rest/v1/projects.locations.jobs"""
    check_cron(str(resource.get("schedule", "")))
    zone = resource.get("timeZone", "Etc/UTC")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, IsADirectoryError):
        raise ApiError(400, f"Time zone is invalid: {zone}") from None
    target = resource.get("httpTarget")
    if not target:
        raise ApiError(400, "A job of this emulator has an httpTarget")
    if not str(target.get("uri", "")).startswith(("https://", "http://")):
        raise ApiError(400, f"Invalid uri: {target.get('uri')}")
    try:
        base64.b64decode(target.get("body", ""), validate=True)
    except binascii.Error:
        raise ApiError(400, "Invalid value at 'job.http_target.body': no base64") from None
    token = target.get("oauthToken")
    if token:
        _require_account(store, token.get("serviceAccountEmail"))
        # https://cloud.google.com/scheduler/docs/http-target-auth
        if not re.match(r"https://[^/]+\.googleapis\.com/", target["uri"]):
            raise ApiError(400, "An OAuth token is for a target at *.googleapis.com alone")
        token.setdefault("scope", "https://www.googleapis.com/auth/cloud-platform")
    retry = resource.setdefault("retryConfig", {})
    retry.setdefault("maxRetryDuration", "0s")
    retry.setdefault("minBackoffDuration", "5s")
    retry.setdefault("maxBackoffDuration", "3600s")
    retry.setdefault("maxDoublings", 5)
    if not 0 <= int(retry.get("retryCount", 0)) <= 5:
        raise ApiError(400, f"retryCount {retry['retryCount']} is not in 0..5")


def check_cron(schedule: str) -> None:
    """Check the five fields of unix-cron
    (https://cloud.google.com/scheduler/docs/configuring/cron-job-schedules).

    Raises:
        ApiError: 400.
    """
    # 7 is Sunday too
    limits = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    fields = schedule.split()
    is_valid = len(fields) == len(limits)
    for part, (low, high) in zip(fields, limits, strict=False):
        for element in part.split(","):
            match = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?", element)
            numbers = [int(number) for number in (match.groups()[:2] if match else ()) if number]
            is_valid = is_valid and bool(match) and all(low <= number <= high for number in numbers)
    if not is_valid:
        raise ApiError(400, f"Schedule or time zone is invalid: {schedule!r}")


def custom_role(store: ResourceStore, names: Names, resource: Document) -> None:
    """Permissions must exist
    (https://cloud.google.com/iam/docs/creating-custom-roles#limitations).
    """
    permissions = other_permissions().union(*predefined_roles().values())
    for permission in resource.get("includedPermissions", []):
        if permission not in permissions:
            raise ApiError(400, f"Permission {permission} is not valid.")


def trigger(store: ResourceStore, names: Names, resource: Document) -> None:
    """A trigger's account must exist
    (https://cloud.google.com/build/docs/securing-builds/configure-user-specified-service-accounts).
    """
    if resource.get("serviceAccount"):
        _require_account(store, str(resource["serviceAccount"]).rpartition("/")[2])
    resource.setdefault("createTime", "2026-01-01T00:00:00Z")


RULES: dict[str, Rule] = {
    "compute.subnetworks": subnetwork,
    "compute.addresses": address,
    "compute.firewalls": firewall,
    "sqladmin.instances": sql_instance,
    "sqladmin.databases": sql_database,
    "storage.b": bucket,
    "artifactregistry.repositories": repository,
    "run.jobs": run_job,
    "workflows.workflows": workflow,
    "cloudscheduler.jobs": scheduler_job,
    "cloudbuild.triggers": trigger,
    "iam.roles": custom_role,
    "monitoring.alertPolicies": alert_policy,
    "billingbudgets.budgets": budget,
}


def _range(cidr: str) -> ipaddress.IPv4Network:
    """Parse an IP range.

    Raises:
        ApiError: 400, for another text and for host bits.
    """
    try:
        return ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise ApiError(400, f"Invalid value for an IP range: {error}") from None


def _require_account(store: ResourceStore, email: Any) -> None:
    emails = {account["email"] for account in store.of_type("iam.serviceAccounts")}
    if email not in emails:
        raise ApiError(400, f"Service account {email} does not exist.")


def _is_peered(store: ResourceStore, network: str) -> bool:
    networks = TYPES["compute.networks"]
    return store.exists(networks, network) and any(
        field_of(resource, "peerings")
        and resource["selfLink"].endswith(network.partition("projects/")[2])
        for resource in store.of_type("compute.networks")
    )


def _first_private_address(store: ResourceStore) -> str:
    """Return an address in the range that is reserved for private services."""
    ranges = [
        _range(f"{resource['address']}/{resource['prefixLength']}")
        for resource in store.of_type("compute.addresses")
        if resource.get("purpose") == "VPC_PEERING"
    ]
    return str(ranges[0][3]) if ranges else "10.200.0.3"
