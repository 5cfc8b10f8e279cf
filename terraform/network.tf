# The network that batches, Cloud Run jobs and the database share. It has no NAT: a batch reaches Google's APIs and the database, and nothing else.

locals {
  database_host = "db.${trimsuffix(google_dns_managed_zone.private.dns_name, ".")}"

  cidr_pairs = {
    "batch_cidr and run_cidr"      = [var.batch_cidr, var.run_cidr]
    "batch_cidr and services_cidr" = [var.batch_cidr, var.services_cidr]
    "run_cidr and services_cidr"   = [var.run_cidr, var.services_cidr]
  }

  # two ranges overlap where they are the same network by the shorter of both prefixes
  overlapping = [
    for names, pair in local.cidr_pairs : "${names} (${join(", ", pair)})"
    if length(distinct([
      for cidr in pair :
      try(cidrhost("${split("/", cidr)[0]}/${min([for other in pair : tonumber(split("/", other)[1])]...)}", 0), cidr)
    ])) == 1
  ]
}

resource "google_compute_network" "main" {
  name                    = "yieldspark"
  auto_create_subnetworks = false
  routing_mode            = "REGIONAL"

  # Private Google Access goes by the default route
  delete_default_routes_on_create = false

  lifecycle {
    precondition {
      condition     = length(local.overlapping) == 0
      error_message = "Overlapping ranges: ${join("; ", local.overlapping)}. Allowed are three ranges that share no address."
    }
  }

  depends_on = [google_project_service.apis]
}

resource "google_compute_subnetwork" "batches" {
  name                     = "yieldspark-batches"
  network                  = google_compute_network.main.id
  region                   = var.region
  ip_cidr_range            = var.batch_cidr
  private_ip_google_access = true
}

resource "google_compute_subnetwork" "run" {
  name                     = "yieldspark-run"
  network                  = google_compute_network.main.id
  region                   = var.region
  ip_cidr_range            = var.run_cidr
  private_ip_google_access = true
}

# driver and executors of a batch talk to each other on any port
resource "google_compute_firewall" "batches" {
  name               = "yieldspark-batches"
  network            = google_compute_network.main.id
  direction          = "INGRESS"
  source_ranges      = [google_compute_subnetwork.batches.ip_cidr_range]
  destination_ranges = [google_compute_subnetwork.batches.ip_cidr_range]

  allow {
    protocol = "all"
  }
}

resource "google_compute_global_address" "services" {
  name          = "yieldspark-services"
  network       = google_compute_network.main.id
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  address       = split("/", var.services_cidr)[0]
  prefix_length = tonumber(split("/", var.services_cidr)[1])
}

resource "google_service_networking_connection" "services" {
  network                 = google_compute_network.main.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.services.name]

  # Google keeps the peering in use for some days after the last instance is gone, and refuses its deletion
  deletion_policy = "ABANDON"
}

# A release keeps DB_HOST as it was on its day: a name outlives the address of an instance.
resource "google_dns_managed_zone" "private" {
  name        = "yieldspark"
  dns_name    = "yieldspark.internal."
  description = "Name of the database inside the network"
  visibility  = "private"

  private_visibility_config {
    networks {
      network_url = google_compute_network.main.id
    }
  }
}

resource "google_dns_record_set" "database" {
  managed_zone = google_dns_managed_zone.private.name
  name         = "db.${google_dns_managed_zone.private.dns_name}"
  type         = "A"
  ttl          = 60
  rrdatas      = [google_sql_database_instance.main.private_ip_address]
}
