# The grants of identities.tf as bindings, one for each grant, resource and member. Each adds a member and leaves others alone.

locals {
  # put together here, so that a plan of an empty project shows them
  emails = { for name, account in google_service_account.accounts : name => "${account.account_id}@${var.project_id}.iam.gserviceaccount.com" }

  members = merge(
    { for name, email in local.emails : name => { (name) = "serviceAccount:${email}" } },
    { operators = { for operator in var.operators : operator => operator } },
  )

  # by the name that a grant has: a role of Google's, or one of ours
  roles = {
    for name in distinct([for grant in local.grants : grant.role]) : name => startswith(lookup(local.replaced_roles, name, name), "roles/") ? name
    : "projects/${var.project_id}/roles/${google_project_iam_custom_role.roles[lookup(local.replaced_roles, name, name)].role_id}"
  }

  # a job that no schedule runs does not exist
  existing = { job = keys(google_cloud_run_v2_job.jobs) }

  bindings = {
    for binding in flatten([
      for key, grant in local.grants : [
        for pair in setproduct(grant.names, keys(local.members[grant.to])) : {
          key    = grant.to == "operators" ? "${key}/${pair[0]}/${pair[1]}" : "${key}/${pair[0]}"
          on     = grant.on
          name   = pair[0]
          member = local.members[grant.to][pair[1]]
          role   = local.roles[grant.role]
          only   = try(grant.only, null)
        } if contains(lookup(local.existing, grant.on, [pair[0]]), pair[0])
      ]
    ]) : binding.key => binding
  }
}

resource "google_project_iam_member" "grants" {
  for_each = { for key, binding in local.bindings : key => binding if binding.on == "project" }

  project = var.project_id
  role    = each.value.role
  member  = each.value.member
}

resource "google_service_account_iam_member" "grants" {
  for_each = { for key, binding in local.bindings : key => binding if binding.on == "account" }

  service_account_id = "projects/${var.project_id}/serviceAccounts/${local.emails[each.value.name]}"
  role               = each.value.role
  member             = each.value.member
}

resource "google_storage_bucket_iam_member" "grants" {
  for_each = { for key, binding in local.bindings : key => binding if binding.on == "bucket" }

  bucket = local.buckets[each.value.name]
  role   = each.value.role
  member = each.value.member

  dynamic "condition" {
    for_each = each.value.only == null ? [] : [each.value.only]

    content {
      title       = "only ${condition.value}"
      description = "Of the bucket's objects this one alone"
      expression  = "resource.name == 'projects/_/buckets/${local.buckets[each.value.name]}/objects/${condition.value}'"
    }
  }
}

resource "google_secret_manager_secret_iam_member" "grants" {
  for_each = { for key, binding in local.bindings : key => binding if binding.on == "secret" }

  project   = var.project_id
  secret_id = var.database_password_secret
  role      = each.value.role
  member    = each.value.member
}

resource "google_cloud_run_v2_job_iam_member" "grants" {
  for_each = { for key, binding in local.bindings : key => binding if binding.on == "job" }

  project  = var.project_id
  location = var.region
  name     = google_cloud_run_v2_job.jobs[each.value.name].name
  role     = each.value.role
  member   = each.value.member
}

resource "google_artifact_registry_repository_iam_member" "grants" {
  for_each = { for key, binding in local.bindings : key => binding if binding.on == "repository" }

  project    = var.project_id
  location   = var.region
  repository = google_artifact_registry_repository.images.repository_id
  role       = each.value.role
  member     = each.value.member
}
