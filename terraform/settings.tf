# The product's settings in this project, as an object that people and Cloud Build load. It has no secret: the password is named, not given.

locals {
  # a password is named, not given; a login by IAM has none
  database_login = var.database_iam_login ? tomap({
    DB_IAM_AUTH = "true"
    DB_USER     = local.iam_users["batch"]
    }) : tomap({
    DB_USER            = google_sql_user.yieldspark.name
    DB_PASSWORD_SECRET = "projects/${var.project_id}/secrets/${var.database_password_secret}/versions/latest"
  })

  # what Terraform makes or needs itself wins
  settings = merge(var.more_settings, local.database_login, {
    PROJECT_ID            = var.project_id
    REGION                = var.region
    CODE_BUCKET           = google_storage_bucket.code.name
    STAGING_BUCKET        = google_storage_bucket.staging.name
    BATCH_SERVICE_ACCOUNT = local.emails["batch"]
    BATCH_SUBNETWORK      = "projects/${var.project_id}/regions/${var.region}/subnetworks/${google_compute_subnetwork.batches.name}"
    DB_HOST               = local.database_host
    DB_NAME               = google_sql_database.yieldspark.name
    DB_SSLMODE            = "require"
    MLFLOW_TRACKING_URI   = "postgresql+psycopg2://${local.database_host}/${google_sql_database.mlflow.name}"
    MLFLOW_ARTIFACTS_URI  = "gs://${google_storage_bucket.models.name}/models"
    ENGINE                = var.engine
    EXPECTED_ROWS         = var.expected_rows
    MAX_EXECUTORS         = var.max_executors
    BATCH_TTL_MINUTES     = var.batch_ttl_minutes
    WORKFLOW_NAME         = google_workflows_workflow.pipeline.name
    MONITORING_EMITTER    = "cloud_monitoring"
  })
}

resource "google_storage_bucket_object" "settings" {
  bucket        = google_storage_bucket.code.name
  name          = "settings.env"
  content       = join("", [for name, value in local.settings : "${name}=${value}\n"])
  content_type  = "text/plain"
  cache_control = "no-store"
}
