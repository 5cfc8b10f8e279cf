"""Table of the resource types that Terraform creates: collection, source of the id, form of the
response, and rules of the service. `source` names the REST reference. The rules are independent of
the product's checks, so that a wrong rule of the product is found here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

REFERENCE = "https://cloud.google.com"

RFC_1035 = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
"""Names of Compute Engine's resources."""


@dataclass(frozen=True)
class Reference:
    """A field that must name an existing resource of another type, or a list of them."""

    path: str
    type: str


@dataclass(frozen=True)
class ResourceType:
    """One type of resource. `{project}`, `{location}`, `{id}` and others are placeholders in
    `collection` and `filled`.

    Attributes:
        name: `service.collection`.
        host: Host of the service.
        collection: Path of the collection.
        source: REST reference.
        id_from: Source of a new id: a query parameter, a field of the body, or `random`.
        wrapped: Field of the create request that has the resource.
        answer: Form of the response to create, update and delete.
        id_rule: Regular expression of an id.
        listed_as: Field of a list's response.
        immutable: Fields that an update must not change.
        filled: Fields that the service sets if the request omits them.
        output: Fields that the service always sets.
        references: Fields that name other resources.
        protected_by: Field that forbids deletion while it is true.
        named_by_path: False if `name` is a plain field.
    """

    name: str
    host: str
    collection: str
    source: str
    id_from: str = "body:name"
    wrapped: str = ""
    answer: Literal["resource", "operation", "compute", "sql"] = "resource"
    id_rule: str = r"[a-z][-a-z0-9]{0,62}"
    listed_as: str = "items"
    immutable: tuple[str, ...] = ()
    filled: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)
    references: tuple[Reference, ...] = ()
    protected_by: str = ""
    named_by_path: bool = True

    @property
    def service(self) -> str:
        """Return the part of the name before the point."""
        return self.name.partition(".")[0]

    @property
    def pattern(self) -> str:
        """Return the regular expression of the collection's path; placeholders are groups."""
        return re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:]+)", self.collection)

    def relative(self, path: str) -> str:
        """Return a resource's name: its path from `projects/` or `billingAccounts/` on."""
        parents = [root for root in ("projects/", "billingAccounts/") if root in path]
        return path[path.index(parents[0]) :] if parents else path


LOCATION = "v1/projects/{project}/locations/{location}"
COMPUTE = "compute/v1/projects/{project}"
LINK = "https://www.googleapis.com/{path}"
NETWORK = Reference("network", "compute.networks")

COMPUTE_TYPES = (
    ResourceType(
        "compute.networks",
        "compute.googleapis.com",
        f"{COMPUTE}/global/networks",
        f"{REFERENCE}/compute/docs/reference/rest/v1/networks",
        answer="compute",
        id_rule=RFC_1035,
        immutable=("name", "autoCreateSubnetworks"),
        filled={
            "routingConfig": {"routingMode": "REGIONAL"},
            "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL",
        },
        output={"kind": "compute#network", "selfLink": LINK},
    ),
    ResourceType(
        "compute.subnetworks",
        "compute.googleapis.com",
        f"{COMPUTE}/regions/{{region}}/subnetworks",
        f"{REFERENCE}/compute/docs/reference/rest/v1/subnetworks",
        answer="compute",
        id_rule=RFC_1035,
        immutable=("name", "network", "ipCidrRange", "purpose"),
        filled={
            "purpose": "PRIVATE",
            "stackType": "IPV4_ONLY",
            "privateIpGoogleAccess": False,
            "privateIpv6GoogleAccess": "DISABLE_GOOGLE_ACCESS",
        },
        output={
            "kind": "compute#subnetwork",
            "selfLink": LINK,
            "region": "https://www.googleapis.com/compute/v1/projects/{project}/regions/{region}",
        },
        references=(NETWORK,),
    ),
    ResourceType(
        "compute.firewalls",
        "compute.googleapis.com",
        f"{COMPUTE}/global/firewalls",
        f"{REFERENCE}/compute/docs/reference/rest/v1/firewalls",
        answer="compute",
        id_rule=RFC_1035,
        immutable=("name", "network", "direction"),
        filled={
            "direction": "INGRESS",
            "priority": 1000,
            "disabled": False,
            "logConfig": {"enable": False},
        },
        output={"kind": "compute#firewall", "selfLink": LINK},
        references=(NETWORK,),
    ),
    ResourceType(
        "compute.routes",
        "compute.googleapis.com",
        f"{COMPUTE}/global/routes",
        f"{REFERENCE}/compute/docs/reference/rest/v1/routes",
        answer="compute",
        id_rule=RFC_1035,
        immutable=("name", "network", "destRange", "priority"),
        filled={"priority": 1000},
        output={"kind": "compute#route", "selfLink": LINK},
        references=(NETWORK,),
    ),
    ResourceType(
        "compute.addresses",
        "compute.googleapis.com",
        f"{COMPUTE}/global/addresses",
        f"{REFERENCE}/compute/docs/reference/rest/v1/globalAddresses",
        answer="compute",
        id_rule=RFC_1035,
        immutable=("name", "network", "address", "prefixLength", "purpose", "addressType"),
        # a range that no subnetwork of terraform/ has
        filled={"addressType": "EXTERNAL", "ipVersion": "IPV4", "address": "10.200.0.0"},
        output={"kind": "compute#address", "selfLink": LINK, "status": "RESERVED"},
        references=(NETWORK,),
    ),
)

DATA_TYPES = (
    ResourceType(
        "dns.managedZones",
        "dns.googleapis.com",
        "dns/v1/projects/{project}/managedZones",
        f"{REFERENCE}/dns/docs/reference/rest/v1/managedZones",
        listed_as="managedZones",
        immutable=("name", "dnsName", "visibility"),
        filled={"visibility": "public", "cloudLoggingConfig": {"enableLogging": False}},
        output={"kind": "dns#managedZone", "nameServers": ["ns-gcp-private.googledomains.com."]},
    ),
    ResourceType(
        "sqladmin.instances",
        "sqladmin.googleapis.com",
        "sql/v1beta4/projects/{project}/instances",
        f"{REFERENCE}/sql/docs/postgres/admin-api/rest/v1beta4/instances",
        answer="sql",
        id_rule=r"[a-z](?:[-a-z0-9]{0,96}[a-z0-9])?",
        immutable=("name", "region"),
        output={
            "kind": "sql#instance",
            "backendType": "SECOND_GEN",
            "instanceType": "CLOUD_SQL_INSTANCE",
            "state": "RUNNABLE",
            "project": "{project}",
            "selfLink": "https://sqladmin.googleapis.com/{path}",
        },
        protected_by="settings.deletionProtectionEnabled",
    ),
    ResourceType(
        "sqladmin.databases",
        "sqladmin.googleapis.com",
        "sql/v1beta4/projects/{project}/instances/{instance}/databases",
        f"{REFERENCE}/sql/docs/postgres/admin-api/rest/v1beta4/databases",
        answer="sql",
        id_rule=r"[^/]{1,63}",
        immutable=("name", "instance"),
        filled={"charset": "UTF8", "collation": "en_US.UTF8"},
        output={
            "kind": "sql#database",
            "instance": "{instance}",
            "project": "{project}",
            "selfLink": "https://sqladmin.googleapis.com/{path}",
        },
    ),
    ResourceType(
        "storage.b",
        "storage.googleapis.com",
        "storage/v1/b",
        f"{REFERENCE}/storage/docs/json_api/v1/buckets",
        id_rule=r"[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]",
        immutable=("name", "location"),
        filled={
            "location": "US",
            "locationType": "region",
            "storageClass": "STANDARD",
            "rpo": "DEFAULT",
            # 7 days, the service's default
            "softDeletePolicy": {"retentionDurationSeconds": "604800"},
        },
        output={
            "kind": "storage#bucket",
            "id": "{id}",
            "projectNumber": "{number}",
            "selfLink": LINK,
        },
    ),
    ResourceType(
        "artifactregistry.repositories",
        "artifactregistry.googleapis.com",
        f"{LOCATION}/repositories",
        f"{REFERENCE}/artifact-registry/docs/reference/rest/v1/projects.locations.repositories",
        listed_as="repositories",
        id_from="query:repository_id,repositoryId",
        answer="operation",
        immutable=("format", "mode"),
        filled={"mode": "STANDARD_REPOSITORY", "sizeBytes": "0"},
    ),
    ResourceType(
        "secretmanager.secrets",
        "secretmanager.googleapis.com",
        "v1/projects/{project}/secrets",
        f"{REFERENCE}/secret-manager/docs/reference/rest/v1/projects.secrets",
        id_from="query:secretId",
        id_rule=r"[A-Za-z0-9_-]{1,255}",
        listed_as="secrets",
        immutable=("replication",),
    ),
)

RUN_TYPES = (
    ResourceType(
        "run.jobs",
        "run.googleapis.com",
        "v2/projects/{project}/locations/{location}/jobs",
        f"{REFERENCE}/run/docs/reference/rest/v2/projects.locations.jobs",
        id_from="query:jobId",
        answer="operation",
        id_rule=r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?",
        listed_as="jobs",
        filled={"launchStage": "GA"},
        output={"terminalCondition": {"type": "Ready", "state": "CONDITION_SUCCEEDED"}},
    ),
    ResourceType(
        "workflows.workflows",
        "workflows.googleapis.com",
        f"{LOCATION}/workflows",
        f"{REFERENCE}/workflows/docs/reference/rest/v1/projects.locations.workflows",
        listed_as="workflows",
        id_from="query:workflowId",
        answer="operation",
        id_rule=r"[a-zA-Z](?:[-_a-zA-Z0-9]{0,62}[a-zA-Z0-9])?",
        output={"state": "ACTIVE"},
    ),
    ResourceType(
        "cloudscheduler.jobs",
        "cloudscheduler.googleapis.com",
        f"{LOCATION}/jobs",
        f"{REFERENCE}/scheduler/docs/reference/rest/v1/projects.locations.jobs",
        id_rule=r"[a-zA-Z0-9_-]{1,500}",
        listed_as="jobs",
        immutable=("name",),
        filled={"state": "ENABLED", "timeZone": "Etc/UTC", "attemptDeadline": "180s"},
    ),
    ResourceType(
        "cloudbuild.triggers",
        "cloudbuild.googleapis.com",
        f"{LOCATION}/triggers",
        f"{REFERENCE}/build/docs/api/reference/rest/v1/projects.locations.triggers",
        id_from="random",
        id_rule=r"[-a-z0-9]{1,64}",
        listed_as="triggers",
        # its `name` is a display name
        named_by_path=False,
    ),
)

IDENTITY_TYPES = (
    ResourceType(
        "iam.serviceAccounts",
        "iam.googleapis.com",
        "v1/projects/{project}/serviceAccounts",
        f"{REFERENCE}/iam/docs/reference/rest/v1/projects.serviceAccounts",
        id_from="body:accountId",
        wrapped="serviceAccount",
        id_rule=r"[a-z](?:[-a-z0-9]{4,28}[a-z0-9])",
        listed_as="accounts",
        output={"projectId": "{project}", "email": "{id}", "uniqueId": "{number_of_path}"},
    ),
    ResourceType(
        "iam.roles",
        "iam.googleapis.com",
        "v1/projects/{project}/roles",
        f"{REFERENCE}/iam/docs/reference/rest/v1/projects.roles",
        id_from="body:roleId",
        wrapped="role",
        id_rule=r"[a-zA-Z0-9_.]{3,64}",
        listed_as="roles",
        filled={"stage": "ALPHA"},
    ),
)

MONITORING = "v3/projects/{project}"
MONITORING_REFERENCE = f"{REFERENCE}/monitoring/api/ref_v3/rest/v3"

MONITORING_TYPES = (
    ResourceType(
        "monitoring.notificationChannels",
        "monitoring.googleapis.com",
        f"{MONITORING}/notificationChannels",
        f"{MONITORING_REFERENCE}/projects.notificationChannels",
        id_from="random",
        id_rule=r"[-a-z0-9]{1,64}",
        listed_as="notificationChannels",
        filled={"enabled": True},
    ),
    ResourceType(
        "monitoring.alertPolicies",
        "monitoring.googleapis.com",
        f"{MONITORING}/alertPolicies",
        f"{MONITORING_REFERENCE}/projects.alertPolicies",
        id_from="random",
        id_rule=r"[-a-z0-9]{1,64}",
        listed_as="alertPolicies",
        filled={"enabled": True},
    ),
    ResourceType(
        "monitoring.dashboards",
        "monitoring.googleapis.com",
        "v1/projects/{project}/dashboards",
        f"{REFERENCE}/monitoring/api/ref_v3/rest/v1/projects.dashboards",
        id_from="random",
        id_rule=r"[-a-z0-9]{1,64}",
        listed_as="dashboards",
    ),
    ResourceType(
        "logging.metrics",
        "logging.googleapis.com",
        "v2/projects/{project}/metrics",
        f"{REFERENCE}/logging/docs/reference/v2/rest/v2/projects.metrics",
        id_rule=r"[A-Za-z0-9_.-]{1,100}",
        listed_as="metrics",
        # its `name` is the id alone
        named_by_path=False,
    ),
)

BILLING_TYPES = (
    ResourceType(
        "billingbudgets.budgets",
        "billingbudgets.googleapis.com",
        "v1/billingAccounts/{billingAccount}/budgets",
        f"{REFERENCE}/billing/docs/reference/budget/rest/v1/billingAccounts.budgets",
        id_from="random",
        id_rule=r"[-a-z0-9]{1,64}",
        listed_as="budgets",
    ),
)

RESOURCE_TYPES = (
    *COMPUTE_TYPES,
    *DATA_TYPES,
    *RUN_TYPES,
    *IDENTITY_TYPES,
    *MONITORING_TYPES,
    *BILLING_TYPES,
)
