"""docs/reference/monitoring.md and terraform/metric_descriptors.json, from the tables of series and
events.
"""

from __future__ import annotations

import json
from pathlib import Path

from common.events import EVENTS, Event
from docs.generate.marked_table import markdown_table
from monitoring.series import SERIES, Series

DESCRIPTORS = Path(__file__).resolve().parents[2] / "terraform" / "metric_descriptors.json"

INTRODUCTION = """# Monitoring: time series and log events

A job writes the time series below when its run ends, also when it fails, by the emitter that the
setting `MONITORING_EMITTER` names. An interrupted run and a dry run write none. A failure of the
emitter is logged as `metrics_not_emitted`; it never fails a job, and delays it by at most 5
seconds. [Alerts](../guides/cloud-monitoring.md) read these series.
"""

LOG = """## Log

At home, log lines are readable text. With `ENVIRONMENT=production`, the script of a job writes one
JSON line for each record: `severity`, `message`, `time` and `logger`; within a run `run_id`, `job`
and `batch_id`; with a traceback `stack_trace`. A named event adds `event` and its own fields;
`counts` are rows by kind, as in the run ledger. The result of the job is one JSON line on standard
output. No line has a password or a connection string.

If a failure is followed by a refused connection, as after the end of Spark's JVM, the error that is
shown and recorded is the first failure.
"""


def monitoring_page() -> str:
    """The page."""
    series = markdown_table(
        ("type", "labels", "kind", "unit", "a point is"), map(_series_row, SERIES)
    )
    events = markdown_table(
        ("written by", "event", "severity", "when", "own fields"), map(_event_row, EVENTS)
    )
    return "\n".join(
        [INTRODUCTION, f"## Time series\n\n{series}\n", LOG, f"### Events\n\n{events}\n"]
    )


def metric_descriptors() -> str:
    """The JSON that terraform/monitoring.tf makes the metric descriptors from, by name."""
    descriptors = {
        series.name: {
            "type": series.type,
            "kind": series.kind,
            "value_type": series.value_type,
            "unit": series.unit,
            "labels": list(series.labels),
            "description": series.description,
        }
        for series in SERIES
    }
    return json.dumps(descriptors, indent=2) + "\n"


def _series_row(series: Series) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" for label in series.labels)
    kind = f"{series.kind}, {series.value_type}"
    return f"`{series.type}`", labels, kind, f"`{series.unit}`", series.description


def _event_row(event: Event) -> tuple[str, ...]:
    fields = ", ".join(f"`{field}`" for field in event.fields)
    return event.source, f"`{event.name}`", event.severity, event.meaning, fields
