"""Faults that the configuration must not get back. All of them go into one copy, which is planned
once; each must be found by a rule of its own.

A fault is a text of a file that is replaced; a text that is gone is an error, so that no fault is
left out silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """finding is a part of the sentence that the rules say about it. file is below the checkout."""

    file: str
    old: str
    new: str
    finding: str


FAULTS = {
    "code is deleted after 7 days": Fault(
        "terraform/storage.tf",
        '      days_since_noncurrent_time = 90\n      with_state                 = "ARCHIVED"\n',
        "      age = 7\n",
        "google_storage_bucket.code: a lifecycle rule deletes objects that are in use",
    ),
    "two names for one bucket": Fault(
        "terraform/workflow.tf",
        "    CODE_BUCKET = google_storage_bucket.code.name\n",
        '    CODE_BUCKET = "${var.project_id}-code"\n',
        "google_workflows_workflow.pipeline: the code bucket is 'acme-yields-code' there",
    ),
    "one bucket for two things": Fault(
        "terraform/storage.tf",
        '"${local.bucket_prefix}-models"',
        '"${local.bucket_prefix}-staging"',
        "2 buckets have the name acme-yields-yieldspark-staging",
    ),
    "objectAdmin on the whole project": Fault(
        "terraform/identities.tf",
        '      role   = "roles/storage.objectUser"\n      on     = "bucket"\n'
        '      names  = ["staging"]\n',
        '      role   = "roles/storage.objectAdmin"\n      on     = "project"\n'
        '      names  = ["project"]\n',
        "roles/storage.objectAdmin covers the whole project",
    ),
    "serviceAccountUser on the whole project": Fault(
        "terraform/identities.tf",
        '      on     = "account"\n      names  = ["batch"]\n',
        '      on     = "project"\n      names  = ["project"]\n',
        "roles/iam.serviceAccountUser covers the whole project",
    ),
    "the build may delete releases": Fault(
        "terraform/identities.tf",
        '      only   = "latest.json"\n',
        "",
        'grants["build_replaces_latest/code"]: may delete releases',
    ),
    "a role that does not exist": Fault(
        "terraform/identities.tf",
        '      role   = "roles/run.developer"\n',
        '      role   = "roles/run.developper"\n',
        "roles/run.developper is no role of the list",
    ),
    "the default network": Fault(
        "terraform/run.tf",
        "          network    = google_compute_network.main.name\n",
        '          network    = "default"\n',
        'google_cloud_run_v2_job.jobs["operator"]: stands in the default network',
    ),
    "no default route": Fault(
        "terraform/network.tf",
        "  delete_default_routes_on_create = false\n",
        "  delete_default_routes_on_create = true\n",
        "without the default route Private Google Access has no way",
    ),
    "a firewall open to everyone": Fault(
        "terraform/network.tf",
        "  source_ranges      = [google_compute_subnetwork.batches.ip_cidr_range]\n",
        '  source_ranges      = ["0.0.0.0/0"]\n',
        "google_compute_firewall.batches: goes beyond the batches' own range",
    ),
    "gcr.io": Fault(
        "terraform/run.tf",
        '"us-docker.pkg.dev/cloudrun/container/job:latest"',
        '"gcr.io/cloudrun/job"',
        "the image gcr.io/cloudrun/job is not in Artifact Registry",
    ),
    "the password as a variable": Fault(
        "terraform/database.tf",
        "  password_wo         = ephemeral.google_secret_manager_secret_version"
        ".database_password.secret_data\n  password_wo_version = var.database_password_version\n",
        "  password = var.database_password\n",
        "the password stands in plan and state",
    ),
    "a variable for the password": Fault(
        "terraform/variables.tf",
        'variable "database_tier" {',
        'variable "database_password" {\n  type    = string\n  default = "secret"\n}\n\n'
        'variable "database_tier" {',
        "var.database_password: a secret's value is no variable",
    ),
    "Terraform's protection off": Fault(
        "terraform/database.tf",
        "  deletion_protection = var.deletion_protection\n",
        "  deletion_protection = false\n",
        "google_sql_database_instance.main: deletion_protection is off",
    ),
    "the service's protection off": Fault(
        "terraform/database.tf",
        "    deletion_protection_enabled = var.deletion_protection\n",
        "    deletion_protection_enabled = false\n",
        "the service's own deletion protection is off",
    ),
    "the edition left to the service": Fault(
        "terraform/database.tf",
        '    edition                     = "ENTERPRISE"\n',
        "",
        "not 'ENTERPRISE'",
    ),
    "a database version that does not exist": Fault(
        "terraform/database.tf",
        "  database_version = var.database_version\n",
        '  database_version = "POSTGRES_16_2"\n',
        "POSTGRES_16_2 is no version",
    ),
    "force_destroy": Fault(
        "terraform/storage.tf",
        "  force_destroy               = false\n",
        "  force_destroy               = true\n",
        "google_storage_bucket.code: force_destroy",
    ),
    "public_access_prevention with another value": Fault(
        "terraform/storage.tf",
        '  public_access_prevention    = "enforced"\n',
        '  public_access_prevention    = "enforce"\n',
        "google_storage_bucket.code: public_access_prevention is 'enforce'",
    ),
    "no Dataproc API": Fault(
        "terraform/apis.tf",
        '    "dataproc.googleapis.com",\n',
        "",
        "the API dataproc.googleapis.com is not turned on",
    ),
    "one account for all": Fault(
        "terraform/workflow.tf",
        'local.emails["workflow"]',
        'local.emails["container"]',
        "google_workflows_workflow.pipeline: runs as yieldspark-container",
    ),
    "max_retries 3": Fault(
        "terraform/run.tf",
        "      max_retries = 0\n",
        "      max_retries = 3\n",
        "max_retries is 3, and a job runs once",
    ),
    "the schedule's argument ignored": Fault(
        "terraform/schedule.tf",
        "        body        = { argument = jsonencode({}) }\n",
        "        body        = {}\n",
        'google_cloud_scheduler_job.jobs["nightly"]: the body has no argument',
    ),
    "a cron with minute 75": Fault(
        "terraform/schedule.tf",
        "        cron        = var.costs_schedule\n",
        '        cron        = "75 6 * * *"\n',
        "'75' in '75 6 * * *' is not between 0 and 59",
    ),
    "retries beyond the service's limit": Fault(
        "terraform/schedule.tf",
        "    retry_count          = 3\n",
        "    retry_count          = 9\n",
        "retry_count is 9; 0 to 5 are allowed",
    ),
    "a workflow that can't be deployed": Fault(
        "workflows/pipeline.yaml",
        "call: checked_argument\n",
        "call: check_argument\n",
        "google_workflows_workflow.pipeline: line",
    ),
    "a setting that does not exist": Fault(
        "terraform/settings.tf",
        "    DB_SSLMODE            =",
        "    DB_SSL_MODE           =",
        "DB_SSL_MODE is no setting of the product",
    ),
    "tags that can be moved": Fault(
        "terraform/artifacts.tf",
        "    immutable_tags = true\n",
        "    immutable_tags = false\n",
        "google_artifact_registry_repository.images: a tag can be moved",
    ),
}


def put_back(folder: Path) -> None:
    """Put every fault into the copy of a checkout. Raises: AssertionError for a text that is not
    there.
    """
    for name, fault in FAULTS.items():
        path = folder / fault.file
        text = path.read_text(encoding="utf-8")
        assert fault.old in text, f"{name}: {fault.file} has no {fault.old!r}"
        path.write_text(text.replace(fault.old, fault.new, 1), encoding="utf-8")
