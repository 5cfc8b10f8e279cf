output "accounts" {
  description = "E-mail address of each service account."
  value       = local.emails
}

output "buckets" {
  description = "Names of the buckets."
  value       = local.buckets
}

output "grants" {
  description = "Every right that is given to anyone, with its reason."
  value       = local.grants
}

output "jobs" {
  description = "Names of the Cloud Run jobs."
  value       = { for name, job in google_cloud_run_v2_job.jobs : name => job.name }
}

output "registry" {
  description = "Where the images are pushed to: REGISTRY/batch and REGISTRY/cloud-run."
  value       = local.registry
}

output "settings" {
  description = "The product's settings in this project, as settings.env has them."
  value       = local.settings
}

output "settings_object" {
  description = "Address of settings.env."
  value       = "gs://${google_storage_bucket_object.settings.bucket}/${google_storage_bucket_object.settings.name}"
}
