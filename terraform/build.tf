# What a merge starts: Cloud Build with the repository's cloudbuild.yaml, where `repository` names one.

resource "google_cloudbuild_trigger" "merge" {
  count = var.repository == null ? 0 : 1

  name            = "yieldspark-merge"
  location        = var.region
  description     = "Tests, releases and deploys each merge"
  service_account = "projects/${var.project_id}/serviceAccounts/${local.emails["build"]}"
  filename        = "cloudbuild.yaml"

  repository_event_config {
    repository = var.repository

    push {
      branch = "^${var.repository_branch}$"
    }
  }

  substitutions = {
    _CODE_BUCKET      = google_storage_bucket.code.name
    _IMAGE_REPOSITORY = local.registry
    _CLOUD_RUN_JOBS   = join(" ", [for job in google_cloud_run_v2_job.jobs : job.name])
  }

  depends_on = [google_project_service.apis]
}
