# What an environment sets, in alphabetical order: a second environment is a second tfvars file, for a project of its own. Rules between two
# variables are at the resource that needs both.

variable "alert_emails" {
  description = "Addresses that alerts are mailed to."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for address in var.alert_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", address))])
    error_message = "alert_emails = ${jsonencode(var.alert_emails)}. Allowed are e-mail addresses."
  }
}

variable "batch_cidr" {
  description = "IPv4 range of the batches' subnet: each driver and each executor takes an address."
  type        = string
  default     = "10.20.0.0/24"
  nullable    = false

  validation {
    condition     = can(regex(local.private_range, var.batch_cidr)) && try(cidrhost(var.batch_cidr, 0) == split("/", var.batch_cidr)[0], false)
    error_message = "batch_cidr = ${jsonencode(var.batch_cidr)}. Allowed is ${local.private_range_words}."
  }
  validation {
    condition     = try(pow(2, 32 - tonumber(split("/", var.batch_cidr)[1])) - 4 >= 2 * (var.max_executors + 1), true)
    error_message = "batch_cidr = ${jsonencode(var.batch_cidr)} is too small for two batches of max_executors = ${var.max_executors} and a driver each. Allowed is a range of at least ${2 * (var.max_executors + 1) + 4} addresses."
  }
}

variable "batch_role_without_storage" {
  description = "Gives the batches' account the worker role without its rights to every bucket of the project. Google's documents demand roles/dataproc.worker: try it in a project for tests first."
  type        = bool
  default     = false
  nullable    = false
}

variable "batch_ttl_minutes" {
  description = "After which a batch is cancelled; minutes."
  type        = number
  default     = 120
  nullable    = false

  validation {
    condition     = var.batch_ttl_minutes >= 10 && var.batch_ttl_minutes <= 10070 && floor(var.batch_ttl_minutes) == var.batch_ttl_minutes
    error_message = "batch_ttl_minutes = ${var.batch_ttl_minutes}. Allowed are 10 to 10070, whole minutes: a Cloud Run job ends after 7 days, and a run waits 10 minutes longer than its batches may take."
  }
}

variable "billing_account" {
  description = "Billing account of the project, for a budget of project_budget_usd; null: no budget. Whoever applies must be allowed to make budgets there."
  type        = string
  default     = null

  validation {
    condition     = var.billing_account == null || can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.billing_account))
    error_message = "billing_account = ${jsonencode(var.billing_account)}. Allowed is an id such as 012345-6789AB-CDEF01, or null."
  }
}

variable "bucket_prefix" {
  description = "Begins the names of the three buckets, which are unique in all of Google Cloud; null means PROJECT_ID-yieldspark."
  type        = string
  default     = null

  validation {
    condition     = var.bucket_prefix == null || can(regex("^[a-z0-9][a-z0-9-]{1,54}$", var.bucket_prefix))
    error_message = "bucket_prefix = ${jsonencode(var.bucket_prefix)}. Allowed are 2 to 55 of a-z, 0-9 and -, without a - at the beginning."
  }
}

variable "costs_schedule" {
  description = "When yesterday's costs are written into the ledger; cron, UTC."
  type        = string
  default     = "45 6 * * *"
  nullable    = false

  validation {
    condition     = can(regex(local.cron, var.costs_schedule))
    error_message = "costs_schedule = ${jsonencode(var.costs_schedule)}. Allowed is ${local.cron_words}."
  }
}

variable "data_age_limit_hours" {
  description = "Objective of the data's age at the end of a run, from the end of the newest day with data; a run over it fires the alert data-age."
  type        = number
  default     = 26
  nullable    = false

  validation {
    condition     = var.data_age_limit_hours > 0 && var.data_age_limit_hours <= 720
    error_message = "data_age_limit_hours = ${var.data_age_limit_hours}. Allowed are more than 0 to 720 hours."
  }
}

variable "database_backups" {
  description = "Daily backups that are kept."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = var.database_backups >= 7 && var.database_backups <= 365 && floor(var.database_backups) == var.database_backups
    error_message = "database_backups = ${var.database_backups}. Allowed are 7 to 365: point-in-time recovery goes back 7 days, and starts from a backup."
  }
}

variable "database_disk_gb" {
  description = "Size that the database's disk begins with; it grows by itself; GB."
  type        = number
  default     = 20
  nullable    = false

  validation {
    condition     = var.database_disk_gb >= 10 && var.database_disk_gb <= 65536 && floor(var.database_disk_gb) == var.database_disk_gb
    error_message = "database_disk_gb = ${var.database_disk_gb}. Allowed are 10 to 65536, whole GB."
  }
}

variable "database_high_availability" {
  description = "A standby of the database in another zone, for twice the price."
  type        = bool
  default     = false
  nullable    = false
}

variable "database_iam_login" {
  description = "The accounts of batches and Cloud Run jobs log in to the database by IAM, with an access token in place of the password."
  type        = bool
  default     = false
  nullable    = false
}

variable "database_instance" {
  description = "Name of the Cloud SQL instance. A restored one has another name; Google keeps a deleted name for a week."
  type        = string
  default     = "yieldspark"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,79}$", var.database_instance))
    error_message = "database_instance = ${jsonencode(var.database_instance)}. Allowed are up to 80 of a-z, 0-9 and -, beginning with a letter."
  }
}

variable "database_password_secret" {
  description = "Name of the secret with the database's password, which bootstrap.sh makes."
  type        = string
  default     = "yieldspark-database-password"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,255}$", var.database_password_secret))
    error_message = "database_password_secret = ${jsonencode(var.database_password_secret)}. Allowed is the name of a secret of this project: up to 255 letters, digits, _ and -."
  }
}

variable "database_password_version" {
  description = "Raise it by one after `bootstrap.sh PROJECT REGION --rotate`: the database then gets the secret's latest version."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.database_password_version >= 1 && floor(var.database_password_version) == var.database_password_version
    error_message = "database_password_version = ${var.database_password_version}. Allowed is a whole number from 1."
  }
}

variable "database_tier" {
  description = "Machine of the database, edition ENTERPRISE: db-custom-VCPUS-MIB or db-g1-small. db-f1-micro has too few connections for one batch."
  type        = string
  default     = "db-custom-1-3840"
  nullable    = false

  validation {
    condition     = can(regex("^db-(g1-small|custom-(1|[2468]|[1-8][02468]|9[0246])-\\d+)$", var.database_tier))
    error_message = "database_tier = ${jsonencode(var.database_tier)}. Allowed are db-g1-small, and db-custom-VCPUS-MIB with 1 or an even number up to 96 of vCPUs."
  }
  validation {
    condition = !startswith(var.database_tier, "db-custom-") || try(alltrue([
      tonumber(split("-", var.database_tier)[3]) >= 3840,
      tonumber(split("-", var.database_tier)[3]) % 256 == 0,
      tonumber(split("-", var.database_tier)[3]) >= 922 * tonumber(split("-", var.database_tier)[2]),
      tonumber(split("-", var.database_tier)[3]) <= 6656 * tonumber(split("-", var.database_tier)[2]),
    ]), true)
    error_message = "database_tier = ${jsonencode(var.database_tier)}. Allowed are at least 3840 MiB, in steps of 256, and 922 to 6656 for each vCPU."
  }
}

variable "database_version" {
  description = "PostgreSQL version of the database. The test suite runs on 18."
  type        = string
  default     = "POSTGRES_16"
  nullable    = false

  validation {
    condition     = contains(["POSTGRES_14", "POSTGRES_15", "POSTGRES_16", "POSTGRES_17", "POSTGRES_18"], var.database_version)
    error_message = "database_version = ${jsonencode(var.database_version)}. Allowed are POSTGRES_14 to POSTGRES_18."
  }
}

variable "deletion_protection" {
  description = "Refuses to destroy the database, the workflow and the Cloud Run jobs. To destroy them: false, apply, destroy."
  type        = bool
  default     = true
  nullable    = false
}

variable "engine" {
  description = "Which LightGBM makes the forecasts: lightgbm, or synapseml on a runtime that Google no longer supports."
  type        = string
  default     = "lightgbm"
  nullable    = false

  validation {
    condition     = contains(["lightgbm", "synapseml"], var.engine)
    error_message = "engine = ${jsonencode(var.engine)}. Allowed are lightgbm and synapseml."
  }
}

variable "expected_rows" {
  description = "Rows that a run reads; the batches of a release are sized for them."
  type        = number
  default     = 1000000
  nullable    = false

  validation {
    condition     = var.expected_rows >= 0 && floor(var.expected_rows) == var.expected_rows
    error_message = "expected_rows = ${var.expected_rows}. Allowed is a whole number from 0."
  }
}

variable "ingest_arguments" {
  description = "Which pools the scheduled ingest fetches, as options of `run_spark_local.py ingest`."
  type        = list(string)
  default     = ["--min-tvl", "10000000"]
  nullable    = false
}

variable "ingest_schedule" {
  description = "When the pools' history is fetched, before the nightly run; cron, UTC. null: something else fills the raw tables."
  type        = string
  default     = null

  validation {
    condition     = var.ingest_schedule == null || can(regex(local.cron, var.ingest_schedule))
    error_message = "ingest_schedule = ${jsonencode(var.ingest_schedule)}. Allowed is ${local.cron_words}, or null."
  }
}

variable "max_executors" {
  description = "Most executors of one batch. The database takes 4 connections for each, and 20 more."
  type        = number
  default     = 20
  nullable    = false

  validation {
    condition     = var.max_executors >= 2 && var.max_executors <= 2000 && floor(var.max_executors) == var.max_executors
    error_message = "max_executors = ${var.max_executors}. Allowed are 2 to 2000."
  }
}

variable "model_age_limit_days" {
  description = "Days after its fit, over which the model of the forecasts fires the alert model-age. A fit comes every REFIT_DAYS, 7 by default."
  type        = number
  default     = 21
  nullable    = false

  validation {
    condition     = var.model_age_limit_days >= 1 && var.model_age_limit_days <= 365
    error_message = "model_age_limit_days = ${var.model_age_limit_days}. Allowed are 1 to 365 days."
  }
}

variable "month_budget_usd" {
  description = "Cost of a month's batches, by list prices, over which the alert cost fires."
  type        = number
  default     = 20
  nullable    = false

  validation {
    condition     = var.month_budget_usd > 0
    error_message = "month_budget_usd = ${var.month_budget_usd}. Allowed is an amount over 0."
  }
}

variable "more_settings" {
  description = "Further settings of the product for every release, such as { TRAIN_DAYS = \"180\" }: docs/reference/settings.md lists them."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in keys(var.more_settings) : can(regex("^[A-Z][A-Z0-9_]*$", name)) && !can(regex("(PASSWORD|TOKEN|CREDENTIALS?|KEY)$", name))])
    error_message = "more_settings has ${join(", ", keys(var.more_settings))}. Allowed are names of settings in upper case, and none that holds a secret."
  }
  validation {
    condition     = alltrue([for value in values(var.more_settings) : can(regex("^[^\\s\"'#]*$", value))])
    error_message = "more_settings has a value with a space, a quote or a #. Allowed are values of one word."
  }
}

variable "nightly_schedule" {
  description = "When the pipeline runs; cron, UTC."
  type        = string
  default     = "15 2 * * *"
  nullable    = false

  validation {
    condition     = can(regex(local.cron, var.nightly_schedule))
    error_message = "nightly_schedule = ${jsonencode(var.nightly_schedule)}. Allowed is ${local.cron_words}."
  }
}

variable "notification_channels" {
  description = "Existing channels of Cloud Monitoring that alerts also go to, such as projects/PROJECT/notificationChannels/1234567890."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for channel in var.notification_channels : can(regex("^projects/[^/]+/notificationChannels/[^/]+$", channel))])
    error_message = "notification_channels = ${jsonencode(var.notification_channels)}. Allowed are projects/PROJECT/notificationChannels/ID."
  }
}

variable "operators" {
  description = "People who run the pipeline and the operator's commands, such as user:ann@example.com or group:data@example.com."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for operator in var.operators : can(regex("^(user|group|serviceAccount):[^@ ]+@[^@ ]+\\.[^@ ]+$", operator))])
    error_message = "operators = ${jsonencode(var.operators)}. Allowed are user:ADDRESS, group:ADDRESS and serviceAccount:ADDRESS."
  }
}

variable "persistence_share_limit" {
  description = "Share of APY forecasts on persistence, over which the alert persistence-share fires; 0 to 1."
  type        = number
  default     = 0.9
  nullable    = false

  validation {
    condition     = var.persistence_share_limit > 0 && var.persistence_share_limit < 1
    error_message = "persistence_share_limit = ${var.persistence_share_limit}. Allowed is a share between 0 and 1."
  }
}

variable "project_budget_usd" {
  description = "Budget of the whole project for a month, in USD, if billing_account is set: mails at 50, 90 and 100 %."
  type        = number
  default     = 100
  nullable    = false

  validation {
    condition     = var.project_budget_usd >= 1 && floor(var.project_budget_usd) == var.project_budget_usd
    error_message = "project_budget_usd = ${var.project_budget_usd}. Allowed is a whole number from 1."
  }
}

variable "project_id" {
  description = "The Google Cloud project, which bootstrap.sh has prepared."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id = ${jsonencode(var.project_id)}. Allowed is the project's id, 6 to 30 of a-z, 0-9 and -, not its name or number."
  }
}

variable "quarantine_share_limit" {
  description = "Share of a run's rows in quarantine, over which the alert quarantine-share fires; 0 to 1."
  type        = number
  default     = 0.05
  nullable    = false

  validation {
    condition     = var.quarantine_share_limit > 0 && var.quarantine_share_limit < 1
    error_message = "quarantine_share_limit = ${var.quarantine_share_limit}. Allowed is a share between 0 and 1."
  }
}

variable "region" {
  description = "Google Cloud region of everything."
  type        = string
  nullable    = false

  validation {
    condition     = contains(local.regions, var.region)
    error_message = "region = ${jsonencode(var.region)}. Allowed are ${join(", ", local.regions)}."
  }
}

variable "repository" {
  description = "The repository whose merges are released, as Cloud Build's connection has it; null: no trigger."
  type        = string
  default     = null

  validation {
    condition     = var.repository == null || can(regex("^projects/[^/]+/locations/${var.region}/connections/[^/]+/repositories/[^/]+$", var.repository))
    error_message = "repository = ${jsonencode(var.repository)}. Allowed is projects/PROJECT/locations/${var.region}/connections/CONNECTION/repositories/REPOSITORY, or null."
  }
}

variable "repository_branch" {
  description = "The branch whose merges are released."
  type        = string
  default     = "main"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9/_-]*$", var.repository_branch))
    error_message = "repository_branch = ${jsonencode(var.repository_branch)}. Allowed is one branch's name: letters, digits, /, _ and -."
  }
}

variable "run_budget_usd" {
  description = "Cost of one batch, by list prices, over which the alert cost fires."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.run_budget_usd > 0
    error_message = "run_budget_usd = ${var.run_budget_usd}. Allowed is an amount over 0."
  }
}

variable "run_cidr" {
  description = "IPv4 range of the Cloud Run jobs' subnet: Cloud Run takes addresses in blocks of 16."
  type        = string
  default     = "10.20.1.0/26"
  nullable    = false

  validation {
    condition     = can(regex(local.private_range, var.run_cidr)) && try(cidrhost(var.run_cidr, 0) == split("/", var.run_cidr)[0], false) && try(tonumber(split("/", var.run_cidr)[1]) <= 26, false)
    error_message = "run_cidr = ${jsonencode(var.run_cidr)}. Allowed is ${local.private_range_words}, /26 or larger."
  }
}

variable "schedule_paused" {
  description = "Keeps the schedules from starting anything. Set it to false after the first release."
  type        = bool
  default     = true
  nullable    = false
}

variable "schedule_zone" {
  description = "Time zone of the schedules. A day of the data is a UTC day: a zone with summer time would move the runs against it."
  type        = string
  default     = "Etc/UTC"
  nullable    = false

  validation {
    condition     = contains(["Etc/UTC", "UTC"], var.schedule_zone)
    error_message = "schedule_zone = ${jsonencode(var.schedule_zone)}. Allowed are Etc/UTC and UTC."
  }
}

variable "services_cidr" {
  description = "IPv4 range that Google takes the database's address from."
  type        = string
  default     = "10.20.16.0/20"
  nullable    = false

  validation {
    condition     = can(regex(local.private_range, var.services_cidr)) && try(cidrhost(var.services_cidr, 0) == split("/", var.services_cidr)[0], false) && try(tonumber(split("/", var.services_cidr)[1]) <= 24, false)
    error_message = "services_cidr = ${jsonencode(var.services_cidr)}. Allowed is ${local.private_range_words}, /24 or larger."
  }
}

variable "workflow_name" {
  description = "Name of the Cloud Workflow."
  type        = string
  default     = "yieldspark-pipeline"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]([a-z0-9_-]{0,62}[a-z0-9])?$", var.workflow_name))
    error_message = "workflow_name = ${jsonencode(var.workflow_name)}. Allowed are up to 64 of a-z, 0-9, - and _, beginning with a letter and without - or _ at the end."
  }
}
