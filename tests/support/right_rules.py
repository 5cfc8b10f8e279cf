"""Rules for the permissions in a plan of `terraform/`. Part of `plan_rules.findings`."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.plan_document import Plan, Resource

PREDEFINED_ROLES = frozenset(
    {
        "roles/artifactregistry.reader",
        "roles/artifactregistry.writer",
        "roles/dataproc.worker",
        "roles/iam.serviceAccountUser",
        "roles/logging.logWriter",
        "roles/logging.viewer",
        "roles/monitoring.metricWriter",
        "roles/monitoring.viewer",
        "roles/run.developer",
        "roles/run.invoker",
        "roles/secretmanager.secretAccessor",
        "roles/storage.objectCreator",
        "roles/storage.objectUser",
        "roles/storage.objectViewer",
        "roles/workflows.invoker",
    }
)
"""Google's roles that are granted. Only the API finds a misspelt one, when it rejects the apply:
https://cloud.google.com/iam/docs/understanding-roles.
"""

ON_THE_PROJECT = frozenset(
    {
        "roles/dataproc.worker",
        "roles/logging.logWriter",
        "roles/logging.viewer",
        "roles/monitoring.metricWriter",
        "roles/monitoring.viewer",
        "roles/workflows.invoker",
    }
)
"""Predefined roles that may cover the whole project: their services have no smaller resource."""

SERVICES_OF_CUSTOM_ROLES = {
    "yieldsparkWorkflow": {"dataproc", "workflows"},
    "yieldsparkJobRunner": {"run"},
    "yieldsparkOperator": {"run"},
    "yieldsparkBatchReader": {"dataproc"},
    "yieldsparkWorkflowUpdater": {"workflows"},
    "yieldsparkBatchWorker": {
        *("cloudprofiler", "dataproc", "dataprocrm", "logging", "monitoring"),
    },
}


def grants(plan: Plan) -> list[Resource]:
    """Every binding of a role."""
    return [
        resource
        for resource in plan.resources
        if "_iam_" in resource.type and "role" in resource.values
    ]


def _existing_roles(plan: Plan) -> Iterator[str]:
    custom_roles = {
        f"projects/{resource.values['project']}/roles/{resource.values['role_id']}"
        for resource in plan.of_type("google_project_iam_custom_role")
    }
    for grant in grants(plan):
        if grant.values["role"] not in PREDEFINED_ROLES | custom_roles:
            yield f"{grant.address}: {grant.values['role']} is no role of the list"


def _custom_roles(plan: Plan) -> Iterator[str]:
    for role in plan.of_type("google_project_iam_custom_role"):
        allowed = SERVICES_OF_CUSTOM_ROLES.get(role.values["role_id"], set())
        for permission in role.values["permissions"]:
            if permission.partition(".")[0] not in allowed:
                yield f"{role.address}: {permission} is not what this role is for"


def _project_grants(plan: Plan) -> Iterator[str]:
    for grant in plan.of_type("google_project_iam_member"):
        role = grant.values["role"]
        if role.startswith("roles/") and role not in ON_THE_PROJECT:
            yield f"{grant.address}: {role} covers the whole project"


def _additive(plan: Plan) -> Iterator[str]:
    for grant in grants(plan):
        if not grant.type.endswith("_member"):
            yield f"{grant.address}: takes the role away from everyone else"
        if grant.values.get("member") in ("allUsers", "allAuthenticatedUsers"):
            yield f"{grant.address}: is for everyone"


def _deletes_code(plan: Plan) -> Iterator[str]:
    """Only latest.json may be deleted in the code bucket."""
    code = plan.resource("google_storage_bucket", "code").values["name"]
    latest = f"resource.name == 'projects/_/buckets/{code}/objects/latest.json'"
    for grant in plan.of_type("google_storage_bucket_iam_member"):
        conditions = [condition["expression"] for condition in grant.blocks("condition")]
        can_delete = grant.values["role"] not in (
            "roles/storage.objectViewer",
            "roles/storage.objectCreator",
        )
        if grant.values["bucket"] == code and can_delete and conditions != [latest]:
            yield f"{grant.address}: may delete releases"


def _accounts(plan: Plan) -> Iterator[str]:
    """Each part runs as its own account."""
    emails = {
        resource.index: (
            f"{resource.values['account_id']}@{resource.values['project']}.iam.gserviceaccount.com"
        )
        for resource in plan.of_type("google_service_account")
    }
    uses = [
        *((resource, "workflow") for resource in plan.of_type("google_workflows_workflow")),
        *((resource, "container") for resource in plan.of_type("google_cloud_run_v2_job")),
        *((resource, "scheduler") for resource in plan.of_type("google_cloud_scheduler_job")),
        *((resource, "build") for resource in plan.of_type("google_cloudbuild_trigger")),
    ]
    for resource, part in uses:
        accounts = resource.texts_of("service_account", "service_account_email")
        if [name.rpartition("/")[2] for name in accounts] != [emails[part]]:
            yield f"{resource.address}: runs as {', '.join(accounts)}, not as {emails[part]}"
    if plan.setting("BATCH_SERVICE_ACCOUNT") != emails["batch"]:
        yield f"settings.env: the batches do not run as {emails['batch']}"


def _acts_as(plan: Plan) -> Iterator[str]:
    allowed = {
        ("workflow", "batch"),
        ("build", "container"),
        ("build", "workflow"),
    }
    for grant in plan.of_type("google_service_account_iam_member"):
        who = grant.values["member"].partition(":yieldspark-")[2].partition("@")[0]
        whom = grant.values["service_account_id"].rpartition("/yieldspark-")[2].partition("@")[0]
        if (who, whom) not in allowed:
            yield f"{grant.address}: {who} may act as {whom}"


RIGHT_RULES = (
    _existing_roles,
    _custom_roles,
    _project_grants,
    _additive,
    _deletes_code,
    _accounts,
    _acts_as,
)
