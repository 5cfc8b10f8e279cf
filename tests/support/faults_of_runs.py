"""Faults of rights, jobs, workflow, schedules and settings that must not come back."""

from __future__ import annotations

from tests.support.terraform_faults import Fault

RUN_FAULTS = {
    "two names for one bucket": Fault(
        "terraform/workflow.tf",
        "    CODE_BUCKET = google_storage_bucket.code.name\n",
        '    CODE_BUCKET = "${var.project_id}-code"\n',
        "google_workflows_workflow.pipeline: the code bucket is 'acme-yields-code' there",
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
    "gcr.io": Fault(
        "terraform/run.tf",
        '"us-docker.pkg.dev/cloudrun/container/job:latest"',
        '"gcr.io/cloudrun/job"',
        "the image gcr.io/cloudrun/job is not in Artifact Registry",
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
        "call: validate_args\n",
        "call: validate_argument\n",
        "google_workflows_workflow.pipeline: line",
    ),
    "a setting that does not exist": Fault(
        "terraform/settings.tf",
        "    DB_SSLMODE            =",
        "    DB_SSL_MODE           =",
        "DB_SSL_MODE is no setting of the product",
    ),
    "a custom role that deletes objects": Fault(
        "terraform/identities.tf",
        '          "run.jobs.run",\n',
        '          "run.jobs.run",\n          "storage.objects.delete",\n',
        "storage.objects.delete is not what this role is for",
    ),
    "the build acts as the batches": Fault(
        "terraform/identities.tf",
        '      names  = ["container", "workflow"]\n',
        '      names  = ["batch", "workflow"]\n',
        'grants["build_acts_as/batch"]: build may act as batch',
    ),
    "images for everyone": Fault(
        "terraform/bindings.tf",
        "  repository = google_artifact_registry_repository.images.repository_id\n"
        "  role       = each.value.role\n  member     = each.value.member\n",
        "  repository = google_artifact_registry_repository.images.repository_id\n"
        '  role       = each.value.role\n  member     = "allUsers"\n',
        "google_artifact_registry_repository_iam_member.grants",
    ),
    "a binding that takes the role from others": Fault(
        "terraform/bindings.tf",
        'resource "google_secret_manager_secret_iam_member" "grants" {',
        'resource "google_secret_manager_secret_iam_binding" "more" {\n'
        "  secret_id = var.database_password_secret\n"
        '  role      = "roles/secretmanager.secretAccessor"\n'
        '  members   = ["user:ann@example.com"]\n}\n\n'
        'resource "google_secret_manager_secret_iam_member" "grants" {',
        "google_secret_manager_secret_iam_binding.more: takes the role away from everyone else",
    ),
    "a registry in a database that is not made": Fault(
        "terraform/settings.tf",
        "${google_sql_database.mlflow.name}",
        "registry",
        "settings.env names the database registry, and it is not made",
    ),
    "the database by its address": Fault(
        "terraform/settings.tf",
        "    DB_HOST               = local.database_host\n",
        '    DB_HOST               = "10.20.16.3"\n',
        "settings.env has DB_HOST=10.20.16.3, and no record of the zone has that name",
    ),
    "half the processors": Fault(
        "terraform/run.tf",
        '            cpu    = "4"\n',
        '            cpu    = "2"\n',
        "not 4 vCPU and 16 GiB",
    ),
    "Spark with all of the memory": Fault(
        "terraform/run.tf",
        '          value = "8g"\n',
        '          value = "16g"\n',
        "Spark does not have half of the memory",
    ),
    "all traffic through the network": Fault(
        "terraform/run.tf",
        '"PRIVATE_RANGES_ONLY"',
        '"ALL_TRAFFIC"',
        "the network has no way out for what is not private",
    ),
    "a schedule by local time": Fault(
        "terraform/schedule.tf",
        "  time_zone   = var.schedule_zone\n",
        '  time_zone   = "Europe/Berlin"\n',
        "runs by the clock of Europe/Berlin",
    ),
    "a schedule that runs before a release": Fault(
        "terraform/schedule.tf",
        "  paused           = var.schedule_paused\n",
        "  paused           = false\n",
        "is not paused before there is a release",
    ),
    "an OIDC token": Fault(
        "terraform/schedule.tf",
        "    oauth_token {\n"
        '      service_account_email = local.emails["scheduler"]\n'
        '      scope                 = "https://www.googleapis.com/auth/cloud-platform"\n',
        '    oidc_token {\n      service_account_email = local.emails["scheduler"]\n',
        "Google's APIs take an OAuth token alone",
    ),
    "a schedule of another workflow": Fault(
        "terraform/schedule.tf",
        "/workflows/${google_workflows_workflow.pipeline.name}/executions",
        "/workflows/other/executions",
        "does not start yieldspark-pipeline",
    ),
    "a setting left out": Fault(
        "terraform/settings.tf",
        "    BATCH_TTL_MINUTES     = var.batch_ttl_minutes\n",
        "",
        "settings.env: BATCH_TTL_MINUTES is missing",
    ),
    "a secret among the settings": Fault(
        "terraform/settings.tf",
        "    DB_NAME               =",
        '    DB_PASSWORD           = "secret"\n    DB_NAME               =',
        "settings.env: DB_PASSWORD is a secret",
    ),
}
