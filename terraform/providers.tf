# The versions that this configuration is written for, where its state is, and the project that it works on.

terraform {
  # 1.11 is the first with write-only arguments: the database's password reaches no plan and no state
  required_version = ">= 1.11"

  # 7.11 is the first that finds an ephemeral secret by its project and short name
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 7.11, < 9.0"
    }
  }

  # bootstrap.sh makes the bucket; `terraform init -backend-config=bucket=..` names it
  backend "gcs" {
    prefix = "yieldspark"
  }
}

provider "google" {
  project = var.project_id
  region  = var.region

  default_labels = {
    app = "yieldspark"
  }
}

# Reads the database's password. It is apart from the other one, which `terraform test` mocks: no mocked provider has ephemeral resources.
provider "google" {
  alias   = "secrets"
  project = var.project_id
  region  = var.region
}
