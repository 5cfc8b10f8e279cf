# What the variables' rules compare with.

locals {
  # regions with Cloud SQL in edition ENTERPRISE (https://cloud.google.com/sql/docs/postgres/locations)
  # and with Cloud Scheduler (https://cloud.google.com/scheduler/docs/locations); copies read 2026-11-29
  regions = [
    "africa-south1",
    "asia-east1", "asia-east2", "asia-northeast1", "asia-northeast2", "asia-northeast3",
    "asia-south1", "asia-south2", "asia-southeast1", "asia-southeast2",
    "australia-southeast1", "australia-southeast2",
    "europe-central2", "europe-north1", "europe-north2", "europe-southwest1",
    "europe-west1", "europe-west2", "europe-west3", "europe-west4", "europe-west6",
    "europe-west8", "europe-west9", "europe-west10", "europe-west12",
    "me-central1", "me-central2", "me-west1",
    "northamerica-northeast1", "northamerica-northeast2",
    "southamerica-east1",
    "us-central1", "us-east1", "us-east4", "us-east5", "us-south1",
    "us-west1", "us-west2", "us-west3", "us-west4",
  ]

  # RFC 1918: what Cloud Run's egress calls private, and sends into the network
  private_range       = "^(10\\.\\d+\\.\\d+\\.\\d+|172\\.(1[6-9]|2\\d|3[01])\\.\\d+\\.\\d+|192\\.168\\.\\d+\\.\\d+)/(8|9|1\\d|2[0-9])$"
  private_range_words = "a private IPv4 range (of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16) from its first address, such as 10.20.0.0/24, up to /29"

  # five fields; each a list of *, N or N-M, with /STEP behind it
  cron_fields = [
    "[0-5]?\\d",
    "(?:[01]?\\d|2[0-3])",
    "(?:0?[1-9]|[12]\\d|3[01])",
    "(?:0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)",
    "(?:[0-7]|sun|mon|tue|wed|thu|fri|sat)",
  ]
  cron_items = [for values in local.cron_fields : "(?:\\*|${values}(?:-${values})?)(?:/[1-9]\\d?)?"]
  cron       = "(?i)^${join(" ", [for item in local.cron_items : "${item}(?:,${item})*"])}$"
  cron_words = "cron with five fields (minute, hour, day of the month, month, day of the week), such as 15 2 * * *"
}
