# What watches the runs: descriptors of their time series, alerts, their channels, a dashboard, and a budget of the project.

locals {
  # made by `python -m docs.generate` from monitoring/series.py; the jobs create no descriptor
  metric_descriptors = jsondecode(file("${path.module}/metric_descriptors.json"))

  # types by name, known before the apply
  metric_types = { for name, descriptor in local.metric_descriptors : name => descriptor.type }

  # events of the workflow that a log-based metric counts
  counted_events = {
    run-failures        = { event = "run_failed", description = "Executions of the workflow that ended with run_failed" }
    validation-failures = { event = "validation_failed", description = "Executions of the workflow whose validation failed" }
  }
  event_metrics = { for name in keys(local.counted_events) : name => "logging.googleapis.com/user/yieldspark-${name}" }

  # Every alert, by the name of its runbook in docs/runbooks; any one of its conditions fires. A series has a point for each run: `window` is the time
  # that a point counts for, and `seconds` the time that the condition must hold.
  alerts = {
    workflow-failed = {
      title = "YieldSpark: the daily run failed"
      # a delivery that came twice is the event run_skipped, which is not counted
      conditions = {
        "an execution ended with run_failed" = {
          filter     = "metric.type=\"${local.event_metrics["run-failures"]}\" AND resource.type=\"workflows.googleapis.com/Workflow\""
          aligner    = "ALIGN_DELTA"
          comparison = "COMPARISON_GT"
          value      = 0
        }
      }
    }
    validation-failed = {
      title = "YieldSpark: the validation after the daily run failed"
      conditions = {
        "an execution logged validation_failed" = {
          filter     = "metric.type=\"${local.event_metrics["validation-failures"]}\" AND resource.type=\"workflows.googleapis.com/Workflow\""
          aligner    = "ALIGN_DELTA"
          comparison = "COMPARISON_GT"
          value      = 0
        }
      }
    }
    no-success = {
      title = "YieldSpark: no successful run for 26 hours"
      conditions = {
        "no run of a job succeeded" = {
          filter   = "metric.type=\"${local.metric_types["job_duration_seconds"]}\" AND resource.type=\"global\" AND metric.labels.status=one_of(\"succeeded\", \"nothing_to_do\")"
          aligner  = "ALIGN_COUNT"
          group_by = ["metric.label.job"]
          # an absence of more than 23.5 hours is refused: a point counts for 2.5 hours, and then nothing may come for 23.5
          window  = 9000
          seconds = 84600
          absent  = true
        }
      }
    }
    data-age = {
      title = "YieldSpark: the data is older than its objective"
      # one point a day: with an objective of 29 in 30 runs, one late run burns the budget of a month
      conditions = {
        "data_age_seconds over ${var.data_age_limit_hours} h" = {
          metric     = "data_age_seconds"
          comparison = "COMPARISON_GT"
          value      = var.data_age_limit_hours * 3600
        }
      }
    }
    cost = {
      title = "YieldSpark: a run or a month costs more than its budget"
      conditions = {
        "a run costs more than ${var.run_budget_usd} USD" = {
          metric     = "cost_usd"
          comparison = "COMPARISON_GT"
          value      = var.run_budget_usd
        }
        "the month costs more than ${var.month_budget_usd} USD" = {
          metric     = "month_cost_usd"
          comparison = "COMPARISON_GT"
          value      = var.month_budget_usd
        }
      }
    }
    interval-coverage = {
      title = "YieldSpark: the forecast intervals are too narrow or too wide"
      conditions = {
        "coverage of 14 days under 70 %" = {
          metric = "interval_coverage"
          # 14 target days of a longer horizon overlap: too few for an alert
          labels     = { horizon_days = "1" }
          comparison = "COMPARISON_LT"
          value      = 0.7
        }
        "coverage of 14 days over 90 %" = {
          metric     = "interval_coverage"
          labels     = { horizon_days = "1" }
          comparison = "COMPARISON_GT"
          value      = 0.9
        }
      }
    }
    quarantine-share = {
      title = "YieldSpark: many raw rows are quarantined"
      conditions = {
        "quarantine_share over ${var.quarantine_share_limit}" = {
          metric     = "quarantine_share"
          comparison = "COMPARISON_GT"
          value      = var.quarantine_share_limit
        }
      }
    }
    persistence-share = {
      title = "YieldSpark: most APY forecasts are persistence"
      conditions = {
        "persistence_share of APY over ${var.persistence_share_limit}" = {
          metric = "persistence_share"
          # TVL is nearly a random walk: its forecasts are persistence on good days too
          labels     = { target = "apy", horizon_days = "1" }
          comparison = "COMPARISON_GT"
          value      = var.persistence_share_limit
        }
      }
    }
    model-age = {
      title = "YieldSpark: the serving model is old"
      conditions = {
        "model_age_days over ${var.model_age_limit_days}" = {
          metric     = "model_age_days"
          comparison = "COMPARISON_GT"
          value      = var.model_age_limit_days
        }
      }
    }
  }

  channels = concat(
    sort([for channel in google_monitoring_notification_channel.emails : channel.name]),
    sort(var.notification_channels),
  )

  # rows of two charts
  charts = [
    { title = "Data age (s)", metric = "data_age_seconds", group_by = ["metric.label.job"] },
    { title = "Duration of runs (s)", metric = "job_duration_seconds", group_by = ["metric.label.job", "metric.label.status"] },
    { title = "Stages (s)", metric = "stage_seconds", group_by = ["metric.label.job", "metric.label.stage"] },
    { title = "Rows", metric = "rows", group_by = ["metric.label.job", "metric.label.kind"] },
    { title = "Quarantine share", metric = "quarantine_share", group_by = ["metric.label.job"] },
    { title = "Forecasts written", metric = "forecasts_written", group_by = ["metric.label.engine", "metric.label.horizon_days"] },
    { title = "Share of persistence", metric = "persistence_share", group_by = ["metric.label.target", "metric.label.horizon_days"] },
    { title = "Error relative to persistence", metric = "mae_ratio", group_by = ["metric.label.target", "metric.label.horizon_days"] },
    { title = "Interval coverage, 14 days", metric = "interval_coverage", group_by = ["metric.label.target", "metric.label.horizon_days"] },
    { title = "Model age (days)", metric = "model_age_days", group_by = ["metric.label.engine", "metric.label.horizon_days"] },
    { title = "Cost of a run (USD)", metric = "cost_usd", group_by = ["metric.label.job"] },
    { title = "Cost of the month (USD)", metric = "month_cost_usd", group_by = [] },
  ]
}

resource "google_monitoring_metric_descriptor" "series" {
  for_each = local.metric_descriptors

  type         = each.value.type
  metric_kind  = each.value.kind
  value_type   = each.value.value_type
  unit         = each.value.unit
  display_name = "YieldSpark ${each.key}"
  description  = each.value.description

  dynamic "labels" {
    for_each = each.value.labels

    content {
      key        = labels.value
      value_type = "STRING"
    }
  }

  depends_on = [google_project_service.apis]
}

resource "google_logging_metric" "events" {
  for_each = local.counted_events

  name        = "yieldspark-${each.key}"
  description = each.value.description
  filter      = "resource.type=\"workflows.googleapis.com/Workflow\" AND resource.labels.workflow_id=\"${google_workflows_workflow.pipeline.name}\" AND jsonPayload.event=\"${each.value.event}\""

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
  }

  depends_on = [google_project_service.apis]
}

resource "google_monitoring_notification_channel" "emails" {
  for_each = var.alert_emails

  type         = "email"
  display_name = "YieldSpark alerts to ${each.key}"
  labels       = { email_address = each.key }

  depends_on = [google_project_service.apis]
}

resource "google_monitoring_alert_policy" "alerts" {
  for_each = local.alerts

  display_name          = each.value.title
  combiner              = "OR"
  notification_channels = local.channels

  dynamic "conditions" {
    for_each = { for name, condition in each.value.conditions : name => condition if !try(condition.absent, false) }

    content {
      display_name = conditions.key

      condition_threshold {
        filter = try(conditions.value.filter, join(" AND ", concat(
          ["metric.type=\"${local.metric_types[conditions.value.metric]}\"", "resource.type=\"global\""],
          [for label, value in try(conditions.value.labels, {}) : "metric.labels.${label}=\"${value}\""],
        )))
        comparison      = conditions.value.comparison
        threshold_value = conditions.value.value
        duration        = "0s"

        aggregations {
          alignment_period   = "300s"
          per_series_aligner = try(conditions.value.aligner, conditions.value.comparison == "COMPARISON_LT" ? "ALIGN_MIN" : "ALIGN_MAX")
        }
      }
    }
  }

  dynamic "conditions" {
    for_each = { for name, condition in each.value.conditions : name => condition if try(condition.absent, false) }

    content {
      display_name = conditions.key

      condition_absent {
        filter   = conditions.value.filter
        duration = "${conditions.value.seconds}s"

        aggregations {
          alignment_period     = "${conditions.value.window}s"
          per_series_aligner   = conditions.value.aligner
          cross_series_reducer = "REDUCE_SUM"
          group_by_fields      = conditions.value.group_by
        }
      }
    }
  }

  documentation {
    content   = file("${path.module}/../docs/runbooks/${each.key}.md")
    mime_type = "text/markdown"
  }

  # the service refuses a policy of a metric that has no descriptor yet
  depends_on = [google_monitoring_metric_descriptor.series, google_logging_metric.events]
}

resource "google_monitoring_dashboard" "runs" {
  dashboard_json = jsonencode({
    displayName = "YieldSpark"
    mosaicLayout = {
      columns = 48
      tiles = [for index, chart in local.charts : {
        xPos   = index % 2 * 24
        yPos   = floor(index / 2) * 16
        width  = 24
        height = 16
        widget = {
          title = chart.title
          xyChart = {
            dataSets = [{
              plotType = "LINE"
              timeSeriesQuery = {
                timeSeriesFilter = {
                  filter = "metric.type=\"${local.metric_types[chart.metric]}\" AND resource.type=\"global\""
                  aggregation = {
                    alignmentPeriod    = "3600s"
                    perSeriesAligner   = "ALIGN_MEAN"
                    crossSeriesReducer = "REDUCE_MEAN"
                    groupByFields      = chart.group_by
                  }
                }
              }
            }]
          }
        }
      }]
    }
  })

  depends_on = [google_monitoring_metric_descriptor.series]
}

# the budget's filter takes the project's number; the APIs are on before it is read
data "google_project" "this" {
  count = var.billing_account == null ? 0 : 1

  project_id = var.project_id

  depends_on = [google_project_service.apis]
}

# everything that the project is billed for, the database too
resource "google_billing_budget" "project" {
  count = var.billing_account == null ? 0 : 1

  billing_account = var.billing_account
  display_name    = "YieldSpark ${var.project_id}"

  budget_filter {
    projects = ["projects/${data.google_project.this[0].number}"]
  }

  amount {
    specified_amount {
      currency_code = "USD"
      units         = tostring(var.project_budget_usd)
    }
  }

  dynamic "threshold_rules" {
    for_each = [0.5, 0.9, 1]

    content {
      threshold_percent = threshold_rules.value
    }
  }

  dynamic "all_updates_rule" {
    # a budget takes up to five channels
    for_each = length(local.channels) == 0 ? [] : [slice(local.channels, 0, min(5, length(local.channels)))]

    content {
      monitoring_notification_channels = all_updates_rule.value
    }
  }
}
