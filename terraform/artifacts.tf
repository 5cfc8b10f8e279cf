# The registry of both images. It has no clean-up policy: a release names its image for as long as it can be rolled back to.

resource "google_artifact_registry_repository" "images" {
  repository_id = "yieldspark"
  location      = var.region
  format        = "DOCKER"
  description   = "Images of the batches and of the Cloud Run jobs"

  # an image's tag is the hash of what it is made of, and never moves
  docker_config {
    immutable_tags = true
  }

  depends_on = [google_project_service.apis]
}

locals {
  registry = "${var.region}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.images.repository_id}"
}
