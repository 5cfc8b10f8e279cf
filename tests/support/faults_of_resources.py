"""Faults of APIs, network, database, buckets and the registry of images that must not come back."""

from __future__ import annotations

from tests.support.terraform_faults import Fault

RESOURCE_FAULTS = {
    "code is deleted after 7 days": Fault(
        "terraform/storage.tf",
        '      days_since_noncurrent_time = 90\n      with_state                 = "ARCHIVED"\n',
        "      age = 7\n",
        "google_storage_bucket.code: a lifecycle rule deletes objects that are in use",
    ),
    "one bucket for two things": Fault(
        "terraform/storage.tf",
        '"${local.bucket_prefix}-models"',
        '"${local.bucket_prefix}-staging"',
        "2 buckets have the name acme-yields-yieldspark-staging",
    ),
    "no default route": Fault(
        "terraform/network.tf",
        "  delete_default_routes_on_create = false\n",
        "  delete_default_routes_on_create = true\n",
        "without the default route Private Google Access has no way",
    ),
    "a firewall open to everyone": Fault(
        "terraform/network.tf",
        "  source_ranges      = [google_compute_subnetwork.batches.ip_cidr_range]\n",
        '  source_ranges      = ["0.0.0.0/0"]\n',
        "google_compute_firewall.batches: goes beyond the batches' own range",
    ),
    "the password as a variable": Fault(
        "terraform/database.tf",
        "  password_wo         = ephemeral.google_secret_manager_secret_version"
        ".database_password.secret_data\n  password_wo_version = var.database_password_version\n",
        "  password = var.database_password\n",
        "the password stands in plan and state",
    ),
    "a variable for the password": Fault(
        "terraform/variables.tf",
        'variable "database_tier" {',
        'variable "database_password" {\n  type    = string\n  default = "secret"\n}\n\n'
        'variable "database_tier" {',
        "var.database_password: a secret's value is no variable",
    ),
    "Terraform's protection off": Fault(
        "terraform/database.tf",
        "  deletion_protection = var.deletion_protection\n",
        "  deletion_protection = false\n",
        "google_sql_database_instance.main: deletion_protection is off",
    ),
    "the service's protection off": Fault(
        "terraform/database.tf",
        "    deletion_protection_enabled = var.deletion_protection\n",
        "    deletion_protection_enabled = false\n",
        "the service's own deletion protection is off",
    ),
    "the edition left to the service": Fault(
        "terraform/database.tf",
        '    edition                     = "ENTERPRISE"\n',
        "",
        "not 'ENTERPRISE'",
    ),
    "a database version that does not exist": Fault(
        "terraform/database.tf",
        "  database_version = var.database_version\n",
        '  database_version = "POSTGRES_16_2"\n',
        "POSTGRES_16_2 is no version",
    ),
    "force_destroy": Fault(
        "terraform/storage.tf",
        "  force_destroy               = false\n",
        "  force_destroy               = true\n",
        "google_storage_bucket.code: force_destroy",
    ),
    "public_access_prevention with another value": Fault(
        "terraform/storage.tf",
        '  public_access_prevention    = "enforced"\n',
        '  public_access_prevention    = "enforce"\n',
        "google_storage_bucket.code: public_access_prevention is 'enforce'",
    ),
    "no Dataproc API": Fault(
        "terraform/apis.tf",
        '    "dataproc.googleapis.com",\n',
        "",
        "the API dataproc.googleapis.com is not turned on",
    ),
    "tags that can be moved": Fault(
        "terraform/artifacts.tf",
        "    immutable_tags = true\n",
        "    immutable_tags = false\n",
        "google_artifact_registry_repository.images: a tag can be moved",
    ),
    "a secret's value as a resource": Fault(
        "terraform/database.tf",
        'resource "google_sql_database" "mlflow" {',
        'resource "google_secret_manager_secret_version" "password" {\n'
        '  secret      = "projects/acme-yields/secrets/password"\n'
        '  secret_data = "secret"\n}\n\nresource "google_sql_database" "mlflow" {',
        "google_secret_manager_secret_version.password: the value of a secret stands in the state",
    ),
    "an API turned off by a destroy": Fault(
        "terraform/apis.tf",
        "  disable_on_destroy = false\n",
        "  disable_on_destroy = true\n",
        "a destroy would turn the API off",
    ),
    "rights of single objects": Fault(
        "terraform/storage.tf",
        "  uniform_bucket_level_access = true\n",
        "  uniform_bucket_level_access = false\n",
        "google_storage_bucket.code: without uniform access",
    ),
    "code without versions": Fault(
        "terraform/storage.tf",
        "    enabled = true\n",
        "    enabled = false\n",
        "google_storage_bucket.code: without versioning",
    ),
    "staging kept for a year": Fault(
        "terraform/storage.tf",
        "      age = 30\n",
        "      age = 365\n",
        "google_storage_bucket.staging: objects are deleted after [365] days",
    ),
    "a subnet in every region": Fault(
        "terraform/network.tf",
        "  auto_create_subnetworks = false\n",
        "  auto_create_subnetworks = true\n",
        "google_compute_network.main: has a subnet in every region",
    ),
    "no Private Google Access": Fault(
        "terraform/network.tf",
        "  private_ip_google_access = true\n",
        "  private_ip_google_access = false\n",
        "without Private Google Access a batch reaches no bucket",
    ),
    "a NAT": Fault(
        "terraform/network.tf",
        'resource "google_compute_global_address" "services" {',
        'resource "google_compute_router_nat" "out" {\n  name   = "out"\n  router = "out"\n'
        '  nat_ip_allocate_option             = "AUTO_ONLY"\n'
        '  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"\n}\n\n'
        'resource "google_compute_global_address" "services" {',
        "google_compute_router_nat.out: a NAT gives batches a way to the Internet",
    ),
    "a run subnet below /26": Fault(
        "terraform/network.tf",
        "  ip_cidr_range            = var.run_cidr\n",
        '  ip_cidr_range            = "10.20.1.0/28"\n',
        "google_compute_subnetwork.run: is smaller than /26",
    ),
    "a firewall for one protocol": Fault(
        "terraform/network.tf",
        '    protocol = "all"\n',
        '    protocol = "icmp"\n',
        "driver and executors need all ports",
    ),
    "a public address": Fault(
        "terraform/database.tf",
        "      ipv4_enabled       = false\n",
        "      ipv4_enabled       = true\n",
        "google_sql_database_instance.main: ipv4_enabled is True",
    ),
    "connections without TLS": Fault(
        "terraform/database.tf",
        '"ENCRYPTED_ONLY"',
        '"ALLOW_UNENCRYPTED_AND_ENCRYPTED"',
        "not 'ENCRYPTED_ONLY'",
    ),
    "no point-in-time recovery": Fault(
        "terraform/database.tf",
        "      point_in_time_recovery_enabled = true\n",
        "      point_in_time_recovery_enabled = false\n",
        "point-in-time recovery is False",
    ),
    "the service's own number of connections": Fault(
        "terraform/database.tf",
        "      value = tostring(local.connections)\n",
        '      value = "100000"\n',
        "max_connections is not 100",
    ),
    "images that are cleaned up": Fault(
        "terraform/artifacts.tf",
        "  docker_config {\n",
        '  cleanup_policies {\n    id     = "old"\n    action = "DELETE"\n    condition {\n'
        '      older_than = "30d"\n    }\n  }\n\n  docker_config {\n',
        "a clean-up may delete an image that a release names",
    ),
}
