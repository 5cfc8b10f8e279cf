# The schedules: the pipeline every day, yesterday's costs, and the ingest before the pipeline where `ingest_schedule` is set.

locals {
  executions = "https://workflowexecutions.googleapis.com/v1/projects/${var.project_id}/locations/${var.region}/workflows/${google_workflows_workflow.pipeline.name}/executions"
  run_api    = "https://run.googleapis.com/v2/projects/${var.project_id}/locations/${var.region}/jobs"

  schedules = merge(
    {
      nightly = {
        cron = var.nightly_schedule
        uri  = local.executions
        # the argument of the workflow's main is a text that holds JSON
        body        = { argument = jsonencode({}) }
        description = "Runs the pipeline with the latest release"
      }
      costs = {
        cron        = var.costs_schedule
        uri         = "${local.run_api}/${google_cloud_run_v2_job.jobs["costs"].name}:run"
        body        = {}
        description = "Writes the costs of yesterday's runs into the ledger"
      }
    },
    var.ingest_schedule == null ? {} : {
      ingest = {
        cron        = var.ingest_schedule
        uri         = "${local.run_api}/${google_cloud_run_v2_job.jobs["ingest"].name}:run"
        body        = {}
        description = "Fetches the pools' history of the last days"
      }
    },
  )
}

resource "google_cloud_scheduler_job" "jobs" {
  for_each = local.schedules

  name        = "yieldspark-${each.key}"
  region      = var.region
  description = each.value.description
  schedule    = each.value.cron
  time_zone   = var.schedule_zone

  # without a release there is nothing to run: `schedule_paused = false` starts it
  paused           = var.schedule_paused
  attempt_deadline = "60s"

  # a start that got no answer is tried again: the workflow ends a second execution while the first one runs, and a second run of a job changes nothing
  retry_config {
    retry_count          = 3
    min_backoff_duration = "60s"
  }

  http_target {
    http_method = "POST"
    uri         = each.value.uri
    headers     = { "Content-Type" = "application/json" }
    body        = base64encode(jsonencode(each.value.body))

    oauth_token {
      service_account_email = local.emails["scheduler"]
      scope                 = "https://www.googleapis.com/auth/cloud-platform"
    }
  }

  depends_on = [google_project_service.apis]
}
