"""Rules for a plan of `terraform/` beyond those of Terraform and the provider. `findings` includes
the rules of `right_rules`, `run_rules` and `alert_rules`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_network
from itertools import chain

from tests.support.alert_rules import ALERT_RULES
from tests.support.plan_document import Plan, Resource
from tests.support.right_rules import RIGHT_RULES
from tests.support.run_rules import RUN_RULES

API_OF_TYPE = {
    "google_artifact_registry_": "artifactregistry",
    "google_billing_": "billingbudgets",
    "google_cloud_run_": "run",
    "google_cloud_scheduler_": "cloudscheduler",
    "google_cloudbuild_": "cloudbuild",
    "google_compute_": "compute",
    "google_dns_": "dns",
    "google_logging_": "logging",
    "google_monitoring_": "monitoring",
    "google_project_iam_": "cloudresourcemanager",
    "google_secret_manager_": "secretmanager",
    "google_service_account": "iam",
    "google_service_networking_": "servicenetworking",
    "google_sql_": "sqladmin",
    "google_storage_": "storage",
    "google_workflows_": "workflows",
}
APIS_OF_THE_RUN = ("dataproc", "workflowexecutions", "logging", "cloudresourcemanager")
"""APIs that no resource needs, but the daily run or the provider."""

DATABASE_VERSIONS = {f"POSTGRES_{version}" for version in range(14, 19)}


def findings(plan: Plan) -> list[str]:
    """Return a message for every fault of the plan."""
    rules = (*RULES, *RIGHT_RULES, *RUN_RULES, *ALERT_RULES)
    return list(chain.from_iterable(rule(plan) for rule in rules))


def _apis(plan: Plan) -> Iterator[str]:
    services = plan.of_type("google_project_service")
    enabled = {resource.values["service"].removesuffix(".googleapis.com") for resource in services}
    types = {resource.type for resource in plan.resources}
    needed = {api for prefix, api in API_OF_TYPE.items() if _any_starts_with(types, prefix)}
    for api in sorted((needed | set(APIS_OF_THE_RUN)) - enabled):
        yield f"the API {api}.googleapis.com is not turned on"
    for resource in services:
        if resource.values.get("disable_on_destroy"):
            yield f"{resource.address}: a destroy would turn the API off for the whole project"


def _bucket_settings(plan: Plan) -> Iterator[str]:
    for bucket in plan.of_type("google_storage_bucket"):
        if bucket.values.get("force_destroy"):
            yield f"{bucket.address}: force_destroy deletes a bucket that is not empty"
        if not bucket.values.get("uniform_bucket_level_access"):
            yield f"{bucket.address}: without uniform access an object has rights of its own"
        if bucket.values.get("public_access_prevention") != "enforced":
            prevention = bucket.values.get("public_access_prevention")
            yield f"{bucket.address}: public_access_prevention is {prevention!r}, not 'enforced'"


def _lifecycles(plan: Plan) -> Iterator[str]:
    code = plan.resource("google_storage_bucket", "code")
    if not any(versioning.get("enabled") for versioning in code.blocks("versioning")):
        yield f"{code.address}: without versioning a deleted release is gone"
    for name in ("code", "models"):
        bucket = plan.resource("google_storage_bucket", name)
        if any(_deletes_live(rule) for rule in bucket.blocks("lifecycle_rule")):
            yield f"{bucket.address}: a lifecycle rule deletes objects that are in use"
    staging = plan.resource("google_storage_bucket", "staging")
    conditions = [rule["condition"] for rule in staging.blocks("lifecycle_rule")]
    ages = [condition.get("age") for condition in chain.from_iterable(conditions)]
    if ages != [30]:
        yield f"{staging.address}: objects are deleted after {ages} days, not after 30"


def _any_starts_with(types: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in types)


def _deletes_live(rule: dict[str, list[dict[str, object]]]) -> bool:
    deletes = any(action.get("type") == "Delete" for action in rule["action"])
    return deletes and not any(
        condition.get("with_state") == "ARCHIVED" for condition in rule["condition"]
    )


def _bucket_names(plan: Plan) -> Iterator[str]:
    names = [bucket.values["name"] for bucket in plan.of_type("google_storage_bucket")]
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{count} buckets have the name {name}"


def _network(plan: Plan) -> Iterator[str]:
    network = plan.resource("google_compute_network", "main")
    if network.values.get("auto_create_subnetworks"):
        yield f"{network.address}: has a subnet in every region"
    if network.values.get("delete_default_routes_on_create"):
        yield f"{network.address}: without the default route Private Google Access has no way"
    for resource in plan.of_type("google_compute_router_nat"):
        yield f"{resource.address}: a NAT gives batches a way to the Internet"
    for resource in plan.resources:
        if "default" in resource.texts_of("network", "subnetwork", "private_network"):
            yield f"{resource.address}: stands in the default network"
    batches = plan.resource("google_compute_subnetwork", "batches")
    if not batches.values.get("private_ip_google_access"):
        yield f"{batches.address}: without Private Google Access a batch reaches no bucket"
    run = plan.resource("google_compute_subnetwork", "run")
    if ip_network(run.values["ip_cidr_range"]).prefixlen > 26:
        yield f"{run.address}: is smaller than /26, and Cloud Run takes blocks of 16 addresses"


def _firewall(plan: Plan) -> Iterator[str]:
    own = [plan.resource("google_compute_subnetwork", "batches").values["ip_cidr_range"]]
    rules = plan.of_type("google_compute_firewall")
    if len(rules) != 1:
        yield f"{len(rules)} firewall rules, and the batches need one"
    for rule in rules:
        ranges = (rule.values.get("source_ranges"), rule.values.get("destination_ranges"))
        if ranges != (own, own):
            yield f"{rule.address}: goes beyond the batches' own range, {own[0]}"
        allowed = [allow.get("protocol") for allow in rule.blocks("allow")]
        if rule.values.get("direction") != "INGRESS" or allowed != ["all"]:
            yield f"{rule.address}: driver and executors need all ports, inwards"


def _database(plan: Plan) -> Iterator[str]:
    instance = plan.resource("google_sql_database_instance", "main")
    settings = instance.blocks("settings")[0]
    address, backup = settings["ip_configuration"][0], settings["backup_configuration"][0]
    expected = {
        "edition": (settings.get("edition"), "ENTERPRISE"),
        "ipv4_enabled": (address.get("ipv4_enabled"), False),
        "ssl_mode": (address.get("ssl_mode"), "ENCRYPTED_ONLY"),
        "backups": (backup.get("enabled"), True),
        "point-in-time recovery": (backup.get("point_in_time_recovery_enabled"), True),
    }
    for name, (actual, required) in expected.items():
        if actual != required:
            yield f"{instance.address}: {name} is {actual!r}, not {required!r}"
    if instance.values["database_version"] not in DATABASE_VERSIONS:
        yield f"{instance.address}: {instance.values['database_version']} is no version"
    flags = {flag["name"]: flag["value"] for flag in settings["database_flags"]}
    needed = int(plan.setting("MAX_EXECUTORS")) * 4 + 20
    if flags.get("max_connections") != str(needed):
        yield f"{instance.address}: max_connections is not {needed}, MAX_EXECUTORS x 4 and 20 more"


def _databases(plan: Plan) -> Iterator[str]:
    names = {database.values["name"] for database in plan.of_type("google_sql_database")}
    registry = plan.setting("MLFLOW_TRACKING_URI").rpartition("/")[2]
    for name in sorted({plan.setting("DB_NAME"), registry} - names):
        yield f"settings.env names the database {name}, and it is not made"


PROTECTED = (
    "google_cloud_run_v2_job",
    "google_sql_database_instance",
    "google_workflows_workflow",
)


def _protections(plan: Plan) -> Iterator[str]:
    for resource in plan.resources:
        if resource.type in PROTECTED and not resource.values.get("deletion_protection"):
            yield f"{resource.address}: deletion_protection is off"
    instance = plan.resource("google_sql_database_instance", "main")
    if not instance.blocks("settings")[0].get("deletion_protection_enabled"):
        yield f"{instance.address}: the service's own deletion protection is off"


def _password(plan: Plan) -> Iterator[str]:
    for user in plan.of_type("google_sql_user"):
        if user.values.get("password") is not None:
            yield f"{user.address}: the password stands in plan and state; password_wo does not"
        source = plan.references(user, "password_wo")
        if not any(name.startswith("ephemeral.google_secret_manager_") for name in source):
            yield f"{user.address}: the password does not come from Secret Manager"
    for version in plan.of_type("google_secret_manager_secret_version"):
        yield f"{version.address}: the value of a secret stands in the state"
    for name in plan.variables:
        if re.search(r"password(?!_(secret|version)$)|token|private_key", name):
            yield f"var.{name}: a secret's value is no variable"


def _images(plan: Plan) -> Iterator[str]:
    for resource in plan.resources:
        for image in resource.texts_of("image"):
            if not re.match(r"[a-z0-9-]+-docker\.pkg\.dev/", image):
                yield f"{resource.address}: the image {image} is not in Artifact Registry"
    for repository in plan.of_type("google_artifact_registry_repository"):
        if not any(docker.get("immutable_tags") for docker in repository.blocks("docker_config")):
            yield f"{repository.address}: a tag can be moved"
        if repository.blocks("cleanup_policies"):
            yield f"{repository.address}: a clean-up may delete an image that a release names"


def _names_of_database(plan: Plan) -> Iterator[str]:
    host = plan.setting("DB_HOST")
    names = [record.values["name"] for record in plan.of_type("google_dns_record_set")]
    if f"{host}." not in names:
        yield f"settings.env has DB_HOST={host}, and no record of the zone has that name"


Rule = Callable[[Plan], Iterator[str]]
RULES: tuple[Rule, ...] = (
    _apis,
    _bucket_settings,
    _lifecycles,
    _bucket_names,
    _network,
    _firewall,
    _database,
    _databases,
    _protections,
    _password,
    _images,
    _names_of_database,
)

__all__ = ["Plan", "Resource", "findings"]
