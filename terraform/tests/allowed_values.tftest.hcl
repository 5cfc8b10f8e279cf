# What the variables allow and refuse, at plan: `terraform test`. A run takes seconds, so each has many values. The messages are tested in
# tests/terraform/test_terraform.py.

mock_provider "google" {
  # ids and addresses that an apply makes, in the form that the provider's own validators read
  mock_resource "google_compute_network" {
    override_during = plan
    defaults        = { id = "projects/acme-yields/global/networks/yieldspark" }
  }
  mock_resource "google_service_account" {
    override_during = plan
    defaults        = { email = "yieldspark-part@acme-yields.iam.gserviceaccount.com" }
  }
  mock_resource "google_sql_database_instance" {
    override_during = plan
    defaults        = { private_ip_address = "10.20.16.3" }
  }
}

# it reads what is known after an apply, and no run here applies: nothing is asked
provider "google" {
  alias        = "secrets"
  access_token = "fake"
}

variables {
  project_id = "acme-yields"
  region     = "europe-west1"
}

run "what_is_unusual_and_allowed" {
  command = plan

  variables {
    batch_cidr                 = "10.64.0.0/16"
    batch_role_without_storage = true
    batch_ttl_minutes          = 10070
    costs_schedule             = "*/15 0-6,22 1 JAN-mar MON-fri"
    database_tier              = "db-custom-96-368640"
    engine                     = "synapseml"
    ingest_schedule            = "30 1 * * *"
    max_executors              = 245
    more_settings              = { TRAIN_DAYS = "180", ENGINE = "other" }
    operators                  = ["group:data-engineers@example.com", "user:ann@example.com"]
    repository                 = "projects/acme-yields/locations/europe-west1/connections/github/repositories/yieldspark"
    run_cidr                   = "192.168.4.0/26"
    schedule_zone              = "UTC"
    services_cidr              = "172.16.0.0/16"
  }

  assert {
    condition     = google_project_iam_member.grants["batch_works/project"].role == "projects/acme-yields/roles/yieldsparkBatchWorker"
    error_message = "batch_role_without_storage leaves roles/dataproc.worker to the batches."
  }
  assert {
    condition     = length([for permission in google_project_iam_custom_role.roles["yieldsparkBatchWorker"].permissions : permission if startswith(permission, "storage.")]) == 0
    error_message = "The worker role without storage has rights to storage."
  }
  assert {
    condition     = length([for key in keys(google_cloud_run_v2_job_iam_member.grants) : key if startswith(key, "operators_run_operator/")]) == 2
    error_message = "Not each of two operators may run yieldspark-operator."
  }
  assert {
    condition     = output.settings["TRAIN_DAYS"] == "180" && output.settings["ENGINE"] == "synapseml"
    error_message = "more_settings are not in settings.env, or win over a variable."
  }
  assert {
    condition     = google_dns_record_set.database.rrdatas[0] == google_sql_database_instance.main.private_ip_address
    error_message = "The name of the database is not its address."
  }
  assert {
    condition     = google_cloud_run_v2_job.jobs["ingest"].template[0].template[0].timeout == "604200s"
    error_message = "The timeout of a Cloud Run job is not the time that a batch may take."
  }
}

run "what_is_small_and_allowed" {
  command = plan

  variables {
    database_tier = "db-g1-small"
    max_executors = 7
  }

  assert {
    condition     = !contains(keys(google_cloud_run_v2_job.jobs), "ingest") && length(google_cloudbuild_trigger.merge) == 0
    error_message = "Without ingest_schedule and repository there is a job for the one or a trigger for the other."
  }
}

run "login_by_iam" {
  command = plan

  variables {
    database_iam_login = true
  }

  assert {
    condition     = google_sql_user.iam["batch"].name == "yieldspark-batch@acme-yields.iam" && google_sql_user.iam["container"].type == "CLOUD_IAM_SERVICE_ACCOUNT"
    error_message = "The accounts have no database users."
  }
  assert {
    condition     = output.settings["DB_IAM_AUTH"] == "true" && output.settings["DB_USER"] == "yieldspark-batch@acme-yields.iam" && !contains(keys(output.settings), "DB_PASSWORD_SECRET")
    error_message = "The settings have another login than IAM."
  }
  assert {
    condition     = contains([for flag in google_sql_database_instance.main.settings[0].database_flags : "${flag.name}=${flag.value}"], "cloudsql.iam_authentication=on")
    error_message = "The instance takes no login by IAM."
  }
  assert {
    condition     = google_project_iam_member.grants["batch_logs_in/project"].role == "roles/cloudsql.instanceUser" && contains(keys(google_project_iam_member.grants), "container_logs_in/project")
    error_message = "An account may not log in."
  }
  assert {
    condition     = contains([for variable in google_cloud_run_v2_job.jobs["operator"].template[0].template[0].containers[0].env : variable.value], "yieldspark-container@acme-yields.iam")
    error_message = "The Cloud Run jobs log in as another account."
  }
}

run "a_tier_with_more_than_eight_vcpus" {
  command = plan

  variables {
    database_tier = "db-custom-16-61440"
    max_executors = 195
    batch_cidr    = "10.64.0.0/16"
  }
}

run "values_of_another_kind" {
  command = plan

  variables {
    batch_cidr               = "batches"
    bucket_prefix            = "gs://acme"
    costs_schedule           = "daily"
    database_backups         = 0
    database_instance        = "Yield Spark"
    database_password_secret = "projects/acme-yields/secrets/password"
    database_tier            = "db-f1-micro"
    database_version         = "16"
    engine                   = "xgboost"
    ingest_schedule          = "every night"
    more_settings            = { DB_PASSWORD = "secret" }
    nightly_schedule         = "0 15 2 * * *"
    operators                = ["ann@example.com"]
    project_id               = "123456789012"
    repository               = "https://github.com/acme/yieldspark"
    repository_branch        = ".*"
    run_cidr                 = "2001:db8::/26"
    schedule_zone            = "CET"
    services_cidr            = "10.20.16.0"
    workflow_name            = "Nightly"
  }

  expect_failures = [
    var.batch_cidr, var.bucket_prefix, var.costs_schedule, var.database_backups, var.database_instance, var.database_password_secret,
    var.database_tier, var.database_version, var.engine, var.ingest_schedule, var.more_settings, var.nightly_schedule, var.operators,
    var.project_id, var.repository, var.repository_branch, var.run_cidr, var.schedule_zone, var.services_cidr, var.workflow_name,
  ]
}

run "values_beyond_a_limit" {
  command = plan

  variables {
    batch_cidr                = "10.20.0.0/26"
    batch_ttl_minutes         = 5
    costs_schedule            = "60 2 * * *"
    database_disk_gb          = 9
    database_password_version = 0
    database_tier             = "db-custom-3-7680"
    database_version          = "POSTGRES_13"
    ingest_schedule           = "0 24 * * *"
    max_executors             = 40
    expected_rows             = -1
    nightly_schedule          = "0 2 0 * *"
    region                    = "europe-west99"
    run_cidr                  = "10.20.1.0/27"
    services_cidr             = "34.1.0.0/20"
  }

  expect_failures = [
    var.batch_cidr, var.batch_ttl_minutes, var.costs_schedule, var.database_disk_gb, var.database_password_version, var.database_tier,
    var.database_version, var.ingest_schedule, var.expected_rows, var.nightly_schedule, var.region, var.run_cidr, var.services_cidr,
  ]
}

run "values_that_are_nearly_right" {
  command = plan

  variables {
    costs_schedule   = "0 2 * foo *"
    database_tier    = "db-custom-2-7700"
    max_executors    = 2.5
    more_settings    = { TRAIN_DAYS = "180\nENGINE=synapseml" }
    nightly_schedule = "0 2 * * 8"
    repository       = "projects/acme-yields/locations/us-central1/connections/github/repositories/yieldspark"
    run_cidr         = "10.20.1.3/26"
    services_cidr    = "10.20.16.0/25"
  }

  expect_failures = [
    var.costs_schedule, var.database_tier, var.max_executors, var.more_settings, var.nightly_schedule, var.repository, var.run_cidr, var.services_cidr,
  ]
}
