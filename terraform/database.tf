# Cloud SQL for PostgreSQL on a private address: the pools, the metrics and the forecasts, and MLflow's model versions in a database of their own.

locals {
  # each executor has 4 cores, and each core reads and writes through one connection; 20 are for drivers, Cloud Run jobs and people
  connections = var.max_executors * 4 + 20

  # MiB of the tier, and the connections that Cloud SQL itself sets for that much memory: it takes more, which leave less memory for queries.
  # https://cloud.google.com/sql/docs/postgres/flags (max_connections)
  shared_core_mib = { "db-g1-small" = 1740 }
  tier_mib        = try(tonumber(regex("^db-custom-\\d+-(\\d+)$", var.database_tier)[0]), local.shared_core_mib[var.database_tier], 0)
  connections_by_mib = {
    "1740"   = 50
    "3840"   = 100
    "6144"   = 200
    "7680"   = 400
    "15360"  = 500
    "30720"  = 600
    "61440"  = 800
    "122880" = 1000
  }
  tier_connections = max(0, [for mib, connections in local.connections_by_mib : connections if local.tier_mib >= tonumber(mib)]...)
  enough_mib       = [for mib, connections in local.connections_by_mib : tonumber(mib) if connections >= local.connections]
}

resource "google_sql_database_instance" "main" {
  name             = var.database_instance
  region           = var.region
  database_version = var.database_version

  deletion_protection = var.deletion_protection

  settings {
    # from PostgreSQL 16 on the service's default is ENTERPRISE_PLUS, which has no small tiers
    edition                     = "ENTERPRISE"
    tier                        = var.database_tier
    availability_type           = var.database_high_availability ? "REGIONAL" : "ZONAL"
    disk_type                   = "PD_SSD"
    disk_size                   = var.database_disk_gb
    disk_autoresize             = true
    deletion_protection_enabled = var.deletion_protection

    # a backup outlives an instance that was deleted by mistake
    retain_backups_on_delete = true

    ip_configuration {
      ipv4_enabled       = false
      private_network    = google_compute_network.main.id
      allocated_ip_range = google_compute_global_address.services.name
      ssl_mode           = "ENCRYPTED_ONLY"
    }

    backup_configuration {
      enabled                        = true
      start_time                     = "22:00"
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = var.database_backups
        retention_unit   = "COUNT"
      }
    }

    maintenance_window {
      day          = 7
      hour         = 12
      update_track = "stable"
    }

    database_flags {
      name  = "max_connections"
      value = tostring(local.connections)
    }

    dynamic "database_flags" {
      for_each = var.database_iam_login ? ["cloudsql.iam_authentication"] : []

      content {
        name  = database_flags.value
        value = "on"
      }
    }

    # who connected, and what waited for a lock: some lines a day
    dynamic "database_flags" {
      for_each = toset(["log_checkpoints", "log_connections", "log_disconnections", "log_lock_waits"])

      content {
        name  = database_flags.value
        value = "on"
      }
    }
  }

  lifecycle {
    # autoresize makes the disk larger, and no disk can be made smaller
    ignore_changes = [settings[0].disk_size]

    precondition {
      condition     = local.tier_connections >= local.connections
      error_message = "database_tier = ${jsonencode(var.database_tier)} takes ${local.tier_connections} connections, and max_executors = ${var.max_executors} needs ${local.connections}. Allowed is ${length(local.enough_mib) > 0 ? "a tier of at least ${min(local.enough_mib...)} MiB (db-custom-VCPUS-MIB)" : "max_executors up to 245"}, or max_executors up to ${floor((local.tier_connections - 20) / 4)} with this tier."
    }
  }

  depends_on = [google_service_networking_connection.services]
}

resource "google_sql_database" "yieldspark" {
  name     = "yieldspark"
  instance = google_sql_database_instance.main.name

  # the instance's protection does not cover its databases: `terraform destroy` forgets them and drops nothing
  deletion_policy = "ABANDON"
}

resource "google_sql_database" "mlflow" {
  name            = "mlflow"
  instance        = google_sql_database_instance.main.name
  deletion_policy = "ABANDON"
}

# The plan of an empty project does not read the password: the version is asked for once the API is known to be on.
ephemeral "google_secret_manager_secret_version" "database_password" { # made by terraform/bootstrap.sh: run it where the version is missing
  provider = google.secrets

  project = split("/", google_project_service.apis["secretmanager.googleapis.com"].id)[0]
  secret  = var.database_password_secret
  version = "latest"
}

resource "google_sql_user" "yieldspark" {
  name                = "yieldspark"
  instance            = google_sql_database_instance.main.name
  password_wo         = ephemeral.google_secret_manager_secret_version.database_password.secret_data
  password_wo_version = var.database_password_version

  # PostgreSQL refuses to drop a role that owns tables
  deletion_policy = "ABANDON"
}

# by account: the name of a service account's database user lacks the end of its address
locals {
  iam_users = { for name in ["batch", "container"] : name => trimsuffix(local.emails[name], ".gserviceaccount.com") }
}

resource "google_sql_user" "iam" {
  for_each = { for name, user in local.iam_users : name => user if var.database_iam_login }

  name     = each.value
  instance = google_sql_database_instance.main.name
  type     = "CLOUD_IAM_SERVICE_ACCOUNT"

  # Cloud Run jobs migrate, and own the tables then; `db grant job` gives the batches their rights
  database_roles = each.key == "container" ? ["cloudsqlsuperuser"] : null

  # PostgreSQL refuses to drop a role that owns tables
  deletion_policy = "ABANDON"

  # the service refuses the user of an account that does not exist
  depends_on = [google_service_account.accounts]
}
