# Three buckets: the releases, the output of the batches' drivers, and the files of model versions.

resource "google_storage_bucket" "code" {
  name                        = "${local.bucket_prefix}-code"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  versioning {
    enabled = true
  }

  # a live object is never deleted: an old release is what a rollback runs
  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 90
      with_state                 = "ARCHIVED"
    }
    action {
      type = "Delete"
    }
  }

  depends_on = [google_project_service.apis]
}

resource "google_storage_bucket" "staging" {
  name                        = "${local.bucket_prefix}-staging"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  lifecycle_rule {
    condition {
      age = 30
    }
    action {
      type = "Delete"
    }
  }

  depends_on = [google_project_service.apis]
}

# The database names these files: one that is gone is a model version that can't be loaded.
resource "google_storage_bucket" "models" {
  name                        = "${local.bucket_prefix}-models"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  # the batches' account may delete objects of every bucket of the project
  versioning {
    enabled = true
  }

  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 90
      with_state                 = "ARCHIVED"
    }
    action {
      type = "Delete"
    }
  }

  depends_on = [google_project_service.apis]
}

locals {
  bucket_prefix = coalesce(var.bucket_prefix, "${var.project_id}-yieldspark")
  buckets = {
    code    = google_storage_bucket.code.name
    staging = google_storage_bucket.staging.name
    models  = google_storage_bucket.models.name
  }
}
