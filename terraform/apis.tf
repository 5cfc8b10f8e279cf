# Every Google API that the configuration or the nightly run uses.

resource "google_project_service" "apis" {
  for_each = toset(concat([
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "cloudscheduler.googleapis.com",
    "compute.googleapis.com",
    "dataproc.googleapis.com",
    "dns.googleapis.com",
    "iam.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "servicenetworking.googleapis.com",
    "serviceusage.googleapis.com",
    "sqladmin.googleapis.com",
    "storage.googleapis.com",
    "workflowexecutions.googleapis.com",
    "workflows.googleapis.com",
    # the provider asks for the billing of a project that it reads, which the budget needs
    ], var.billing_account == null ? [] : [
    "billingbudgets.googleapis.com", "cloudbilling.googleapis.com",
  ]))

  service = each.key

  # the project may use an API for something else: a destroy turns none off
  disable_on_destroy = false
}
