# The Cloud Workflow that runs both jobs of a release, one after the other.

resource "google_workflows_workflow" "pipeline" {
  name                = var.workflow_name
  region              = var.region
  description         = "Runs the metrics and the forecasts of one release"
  service_account     = local.emails["workflow"]
  call_log_level      = "LOG_ERRORS_ONLY"
  deletion_protection = var.deletion_protection

  # `templatefile` would read the workflow's own $${..} as Terraform's
  source_contents = file("${path.module}/../workflows/pipeline.yaml")

  user_env_vars = {
    CODE_BUCKET = google_storage_bucket.code.name
  }

  lifecycle {
    # Cloud Build deploys the later ones
    ignore_changes = [source_contents]
  }

  depends_on = [google_project_service.apis]
}
