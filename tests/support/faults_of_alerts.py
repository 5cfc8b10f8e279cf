"""Faults of the alerts that must not come back."""

from __future__ import annotations

from tests.support.terraform_faults import Fault

MONITORING = "terraform/monitoring.tf"

ALERT_FAULTS = {
    "an alert of a series that nobody writes": Fault(
        MONITORING,
        '${local.metric_types["job_duration_seconds"]}',
        "custom.googleapis.com/yieldspark/job_seconds",
        'alerts["no-success"]: reads custom.googleapis.com/yieldspark/job_seconds',
    ),
    "an absence that the service refuses": Fault(
        MONITORING, "seconds = 84600", "seconds = 93600", "an absence of 93600 s is refused"
    ),
    "an alert without its runbook": Fault(
        MONITORING,
        'file("${path.module}/../docs/runbooks/${each.key}.md")',
        '"Call someone."',
        'alerts["cost"]: its documentation is not its runbook',
    ),
    "alerts without a channel": Fault(
        MONITORING,
        "  notification_channels = local.channels\n",
        "",
        'alerts["data-age"]: notifies no channel',
    ),
    "every event of the workflow as a failure": Fault(
        MONITORING,
        ' AND jsonPayload.event=\\"${each.value.event}\\""',
        '"',
        'google_logging_metric.events["run-failures"]: counts other entries than run_failed',
    ),
    "a filter for every resource": Fault(
        MONITORING,
        '"resource.type=\\"global\\""],',
        "],",
        'alerts["model-age"]: the filter does not restrict the resource',
    ),
    "a series without a chart": Fault(
        MONITORING,
        '    { title = "Interval coverage, 14 days", metric = "interval_coverage",'
        ' group_by = ["metric.label.target", "metric.label.horizon_days"] },\n',
        "",
        "yieldspark/interval_coverage has no chart",
    ),
    "jobs that write no series": Fault(
        "terraform/settings.tf",
        '"cloud_monitoring"',
        '"null"',
        "settings.env: no job writes time series",
    ),
}
