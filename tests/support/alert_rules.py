"""Rules for the alerts in a plan of `terraform/`. Part of `plan_rules.findings`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.support.plan_document import Plan, Resource
from tests.support.processes import PROJECT

COUNTED_EVENTS = {"run-failures": "run_failed", "validation-failures": "validation_failed"}

LONGEST_ABSENCE = 84_600
"""Seconds; the service refuses more (https://cloud.google.com/monitoring/alerts/metric-absence)."""


def _policies(plan: Plan) -> list[Resource]:
    return plan.of_type("google_monitoring_alert_policy")


def _bodies(plan: Plan) -> Iterator[tuple[Resource, str, dict[str, Any]]]:
    """Yield policy, kind and content of every condition."""
    for policy in _policies(plan):
        for condition in policy.blocks("conditions"):
            for kind in ("condition_threshold", "condition_absent"):
                for body in condition.get(kind) or []:
                    yield policy, kind, body


def _kinds(plan: Plan) -> Iterator[str]:
    for policy in _policies(plan):
        for condition in policy.blocks("conditions"):
            set_blocks = {name for name, value in condition.items() if value}
            kinds = {name for name in set_blocks if name.startswith("condition_")}
            if not kinds or kinds - {"condition_threshold", "condition_absent"}:
                yield f"{policy.address}: {sorted(kinds)} is not of threshold or absence"


def _runbooks(plan: Plan) -> Iterator[str]:
    for policy in _policies(plan):
        path = PROJECT / "docs" / "runbooks" / f"{policy.index}.md"
        (documentation,) = policy.blocks("documentation") or [{}]
        if documentation.get("content") != path.read_text(encoding="utf-8"):
            yield f"{policy.address}: its documentation is not its runbook"
        # the limits of the service
        elif path.stat().st_size > 8192:
            yield f"{policy.address}: its runbook has more than 8192 characters"


def _channels(plan: Plan) -> Iterator[str]:
    for policy in _policies(plan):
        if "local.channels" not in plan.references(policy, "notification_channels"):
            yield f"{policy.address}: notifies no channel"


def _series(plan: Plan) -> Iterator[str]:
    descriptors = plan.of_type("google_monitoring_metric_descriptor")
    types = {descriptor.values["type"] for descriptor in descriptors} | {
        f"logging.googleapis.com/user/{metric.values['name']}"
        for metric in plan.of_type("google_logging_metric")
    }
    for policy, _, body in _bodies(plan):
        match = re.search(r'metric\.type="([^"]+)"', body["filter"])
        if match is None or match[1] not in types:
            yield f"{policy.address}: reads {match and match[1]}, which has no descriptor"
        if "resource.type=" not in body["filter"]:
            yield f"{policy.address}: the filter does not restrict the resource's type"


def _absences(plan: Plan) -> Iterator[str]:
    for policy, kind, body in _bodies(plan):
        seconds = int(body["duration"].removesuffix("s"))
        if kind == "condition_absent" and seconds > LONGEST_ABSENCE:
            yield f"{policy.address}: an absence of {seconds} s is refused"


def _counted_events(plan: Plan) -> Iterator[str]:
    for name, event in COUNTED_EVENTS.items():
        metric = plan.resource("google_logging_metric", "events", name)
        if f'jsonPayload.event="{event}"' not in metric.values["filter"]:
            yield f"{metric.address}: counts other entries than {event}"


def _emitter(plan: Plan) -> Iterator[str]:
    if plan.setting("MONITORING_EMITTER") != "cloud_monitoring":
        yield "settings.env: no job writes time series"


def _dashboard(plan: Plan) -> Iterator[str]:
    """Every series of ours has a chart, and no chart reads another one."""
    dashboard = plan.resource("google_monitoring_dashboard", "runs")
    charted = set(re.findall(r'metric\.type=\\"([^"\\]+)', dashboard.values["dashboard_json"]))
    types = {
        descriptor.values["type"]
        for descriptor in plan.of_type("google_monitoring_metric_descriptor")
    }
    ours = {name for name in types if name.startswith("custom.googleapis.com/yieldspark/")}
    for name in sorted(ours ^ charted):
        yield f"{dashboard.address}: {name} has no chart, or no descriptor"


ALERT_RULES = (
    _kinds,
    _runbooks,
    _channels,
    _series,
    _absences,
    _counted_events,
    _emitter,
    _dashboard,
)
