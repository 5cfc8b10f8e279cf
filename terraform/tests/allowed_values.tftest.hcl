# Each variable refuses what can't work, at plan. The messages are tested in tests/test_terraform_plan.py.

mock_provider "google" {}

# what it reads is known after an apply, and no run here applies: nothing is asked
provider "google" {
  alias        = "secrets"
  access_token = "fake"
}

variables {
  project_id = "acme-yields"
  region     = "europe-west1"
}

run "the_example_is_allowed" {
  command = plan

  variables {
    batch_role_without_storage = true
    costs_schedule             = "*/15 0-6,22 * JAN-mar MON-fri"
    database_tier              = "db-custom-2-7680"
    engine                     = "synapseml"
    ingest_schedule            = "30 1 * * *"
    max_executors              = 95
    operators                  = ["group:data-engineers@example.com", "user:ann@example.com"]
    repository                 = "projects/acme-yields/locations/europe-west1/connections/github/repositories/yieldspark"
    run_cidr                   = "192.168.4.0/26"
    services_cidr              = "172.16.0.0/16"
  }
}

run "a_range_that_does_not_begin_with_its_first_address" {
  command = plan
  variables { batch_cidr = "10.20.0.7/24" }
  expect_failures = [var.batch_cidr]
}

run "a_public_range" {
  command = plan
  variables { services_cidr = "34.1.0.0/20" }
  expect_failures = [var.services_cidr]
}

run "a_subnet_without_room_for_two_batches" {
  command = plan
  variables {
    batch_cidr    = "10.20.0.0/26"
    max_executors = 40
    database_tier = "db-custom-2-7680"
  }
  expect_failures = [var.batch_cidr]
}

run "a_run_subnet_below_26" {
  command = plan
  variables { run_cidr = "10.20.1.0/27" }
  expect_failures = [var.run_cidr]
}

run "ranges_that_overlap" {
  command = plan
  variables { run_cidr = "10.20.0.64/26" }
  expect_failures = [google_compute_network.main]
}

run "a_region_that_is_none" {
  command = plan
  variables { region = "europe-west99" }
  expect_failures = [var.region]
}

run "a_cron_minute_above_59" {
  command = plan
  variables { nightly_schedule = "60 2 * * *" }
  expect_failures = [var.nightly_schedule]
}

run "a_cron_of_six_fields" {
  command = plan
  variables { costs_schedule = "0 15 2 * * *" }
  expect_failures = [var.costs_schedule]
}

run "a_cron_in_words" {
  command = plan
  variables { ingest_schedule = "every night" }
  expect_failures = [var.ingest_schedule]
}

run "a_zone_with_summer_time" {
  command = plan
  variables { schedule_zone = "Europe/Berlin" }
  expect_failures = [var.schedule_zone]
}

run "an_engine_that_is_none" {
  command = plan
  variables { engine = "xgboost" }
  expect_failures = [var.engine]
}

run "a_tier_of_another_edition" {
  command = plan
  variables { database_tier = "db-perf-optimized-N-2" }
  expect_failures = [var.database_tier]
}

run "a_tier_with_three_processors" {
  command = plan
  variables { database_tier = "db-custom-3-7680" }
  expect_failures = [var.database_tier]
}

run "a_tier_with_odd_memory" {
  command = plan
  variables { database_tier = "db-custom-2-7700" }
  expect_failures = [var.database_tier]
}

run "a_tier_too_small_for_the_executors" {
  command = plan
  variables { max_executors = 21 }
  expect_failures = [google_sql_database_instance.main]
}

run "a_shared_core_too_small_for_the_executors" {
  command = plan
  variables { database_tier = "db-f1-micro" }
  expect_failures = [google_sql_database_instance.main]
}

run "a_database_version_that_is_none" {
  command = plan
  variables { database_version = "POSTGRES_13" }
  expect_failures = [var.database_version]
}

run "a_repository_by_its_address" {
  command = plan
  variables { repository = "https://github.com/acme/yieldspark" }
  expect_failures = [var.repository]
}

run "a_repository_of_another_region" {
  command = plan
  variables { repository = "projects/acme-yields/locations/us-central1/connections/github/repositories/yieldspark" }
  expect_failures = [var.repository]
}

run "a_project_by_its_number" {
  command = plan
  variables { project_id = "123456789012" }
  expect_failures = [var.project_id]
}

run "an_operator_without_a_kind" {
  command = plan
  variables { operators = ["ann@example.com"] }
  expect_failures = [var.operators]
}

run "a_batch_of_five_minutes" {
  command = plan
  variables { batch_ttl_minutes = 5 }
  expect_failures = [var.batch_ttl_minutes]
}

run "a_single_executor" {
  command = plan
  variables { max_executors = 1 }
  expect_failures = [var.max_executors]
}

run "a_branch_that_is_a_pattern" {
  command = plan
  variables { repository_branch = ".*" }
  expect_failures = [var.repository_branch]
}
