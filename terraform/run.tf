# The Cloud Run jobs. The workflow runs those of `batch_jobs` in place of a batch, and `validate` after them; people run `operator`, a schedule runs the rest.

locals {
  # the entries of JOBS in common/jobs.py, with - in place of _ as Cloud Run's names require
  batch_jobs = ["calculate-metrics", "forecast-pools"]

  # by the name that follows `yieldspark-`: the container's arguments, where the caller gives none
  job_arguments = merge(
    { for job in local.batch_jobs : job => [replace(job, "-", "_")] },
    {
      operator = ["operator", "--", "status"]
      costs    = ["operator", "--", "workflows", "cost", "--day", "yesterday"]
      validate = ["operator", "--", "validate"]
    },
    var.ingest_schedule == null ? {} : { ingest = concat(["operator", "--", "ingest"], var.ingest_arguments) },
  )
}

resource "google_cloud_run_v2_job" "jobs" {
  for_each = local.job_arguments

  name                = "yieldspark-${each.key}"
  location            = var.region
  deletion_protection = var.deletion_protection

  template {
    template {
      service_account = local.emails["container"]

      # a timeout is per attempt, and a second attempt of a job that failed would do the same work again
      max_retries = 0
      timeout     = "${var.batch_ttl_minutes * 60}s"

      vpc_access {
        # what is not private leaves by Google's own way out, which the network does not have
        egress = "PRIVATE_RANGES_ONLY"

        network_interfaces {
          network    = google_compute_network.main.name
          subnetwork = google_compute_subnetwork.run.name
        }
      }

      containers {
        # Google's placeholder, until Cloud Build deploys the release's image
        image = "us-docker.pkg.dev/cloudrun/container/job:latest"
        args  = each.value

        resources {
          limits = {
            cpu    = "4"
            memory = "16Gi"
          }
        }

        env {
          name  = "CODE_BUCKET"
          value = google_storage_bucket.code.name
        }

        # the release has the database user of the batches
        dynamic "env" {
          for_each = var.database_iam_login ? [local.iam_users["container"]] : []

          content {
            name  = "DB_USER"
            value = env.value
          }
        }

        # half of the memory: the container keeps its files in the other half
        env {
          name  = "SPARK_DRIVER_MEMORY"
          value = "8g"
        }
      }
    }
  }

  lifecycle {
    # Cloud Build owns the image, and gcloud leaves its name behind
    ignore_changes = [template[0].template[0].containers[0].image, client, client_version]
  }

  depends_on = [google_project_service.apis]
}
