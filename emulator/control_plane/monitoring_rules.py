"""Rules of Cloud Monitoring for metric descriptors and alert policies, and of Cloud Billing for
budgets, which notify its channels.

Sources: https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.metricDescriptors,
https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.alertPolicies,
https://cloud.google.com/billing/docs/reference/budget/rest/v1/billingAccounts.budgets,
https://cloud.google.com/monitoring/quotas,
https://cloud.google.com/monitoring/alerts/metric-absence
"""

from __future__ import annotations

import re
from typing import Any

from emulator.control_plane.resource_store import (
    PROJECT_NUMBER,
    Document,
    Names,
    ResourceStore,
)
from emulator.services.http_service import ApiError

USER_DEFINED = re.compile(r"custom\.googleapis\.com/[A-Za-z0-9][A-Za-z0-9_/]{1,99}")
LABEL = re.compile(r"[a-z][a-z0-9_]{0,99}")
MAX_LABELS = 30
MOST_CHANNELS = 5
"""Channels of a budget (https://cloud.google.com/billing/docs/how-to/budgets-notification-recipients)
"""


def check_descriptor(descriptor: Document) -> None:
    """Check a new metric descriptor.

    Raises:
        ApiError: 400.
    """
    if not USER_DEFINED.fullmatch(descriptor.get("type", "")):
        raise ApiError(400, f"{descriptor.get('type')} is no type of a user-defined metric")
    kind, value_type = descriptor.get("metricKind"), descriptor.get("valueType")
    if kind not in ("GAUGE", "CUMULATIVE") or value_type not in (
        *("BOOL", "INT64", "DOUBLE", "DISTRIBUTION"),
    ):
        raise ApiError(400, f"{kind} {value_type} is no kind of a user-defined metric")
    labels = [label.get("key", "") for label in descriptor.get("labels", [])]
    if len(labels) > MAX_LABELS or not all(map(LABEL.fullmatch, labels)):
        raise ApiError(400, f"{labels} are no labels of a metric")


def alert_policy(store: ResourceStore, names: Names, policy: Document) -> None:
    """Fill names of conditions, and check a policy as the service does.

    Raises:
        ApiError: 400; 404 for a metric or a channel that does not exist.
    """
    conditions = policy.get("conditions", [])
    if not 1 <= len(conditions) <= 6:
        raise ApiError(400, f"a policy has 1 to 6 conditions, and this one has {len(conditions)}")
    for number, condition in enumerate(conditions):
        condition.setdefault("name", f"conditions/{number}")
        body = condition.get("conditionThreshold") or condition.get("conditionAbsent")
        if body is None:
            raise ApiError(400, "a condition is of threshold or of absence here")
        _check_filter(store, body.get("filter", ""))
        # an absence of more than 23.5 hours is refused
        most = 84_600 if "conditionAbsent" in condition else 86_400
        _check_seconds("duration", body.get("duration", "0s"), 0, most)
        for aggregation in body.get("aggregations", []):
            period = aggregation.get("alignmentPeriod", "0s")
            # 25 hours is the longest of an alert
            _check_seconds("alignmentPeriod", period, 60, 90_000)
    content = policy.get("documentation", {}).get("content", "")
    if not content or len(content) > 8192 or len(content.encode()) > 10_240:
        raise ApiError(400, "documentation.content has 1 to 8192 characters and 10240 bytes")
    channels = {channel["name"] for channel in store.of_type("monitoring.notificationChannels")}
    for channel in policy.get("notificationChannels", []):
        if channel not in channels:
            raise ApiError(404, f"notification channel {channel} was not found")


def budget(store: ResourceStore, names: Names, resource: Document) -> None:
    """Check a budget as the service does.

    Raises:
        ApiError: 400, 404.
    """
    if not re.fullmatch(r"[0-9A-F]{6}(-[0-9A-F]{6}){2}", names["billingAccount"]):
        raise ApiError(404, f"billing account {names['billingAccount']} was not found")
    for project in resource.get("budgetFilter", {}).get("projects", []):
        # the service returns numbers, so that an id differs in every later plan
        if project != f"projects/{PROJECT_NUMBER}":
            raise ApiError(400, f"budgetFilter.projects has {project}, which is no project number")
    amount = resource.get("amount", {}).get("specifiedAmount", {})
    if not re.fullmatch(r"[1-9][0-9]*", str(amount.get("units", ""))):
        raise ApiError(400, f"amount.specifiedAmount.units is {amount.get('units')}")
    for rule in resource.get("thresholdRules", []):
        if rule.get("thresholdPercent", 0) <= 0:
            raise ApiError(400, "thresholdRules.thresholdPercent must be positive")
    channels = {channel["name"] for channel in store.of_type("monitoring.notificationChannels")}
    notified = resource.get("notificationsRule", {}).get("monitoringNotificationChannels", [])
    if len(notified) > MOST_CHANNELS:
        raise ApiError(400, f"a budget notifies up to {MOST_CHANNELS} channels")
    for channel in notified:
        if channel not in channels:
            raise ApiError(404, f"notification channel {channel} was not found")


def _check_filter(store: ResourceStore, text: str) -> None:
    match = re.search(r'metric\.type="([^"]+)"', text)
    if match is None or "resource.type=" not in text:
        raise ApiError(400, f"the filter {text!r} must restrict metric.type and resource.type")
    log_metrics = {
        f"logging.googleapis.com/user/{metric['name']}"
        for metric in store.of_type("logging.metrics")
    }
    if match[1] not in {*store.metric_descriptors, *log_metrics}:
        raise ApiError(404, f"Cannot find metric that matches type = {match[1]!r}")


def _check_seconds(name: str, value: Any, least: int, most: int) -> None:
    seconds = re.fullmatch(r"(\d+)s", str(value))
    if seconds is None or not least <= int(seconds[1]) <= most or int(seconds[1]) % 60:
        raise ApiError(400, f"{name} is {value}, and must be whole minutes, {least} to {most} s")
