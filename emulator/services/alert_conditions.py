"""Evaluates the conditions of alert policies, of threshold and absence, over time series in memory.

The semantics are Cloud Monitoring's: at a moment each series is aligned over the period that
ends then, and a condition holds if it holds for its whole duration
(https://cloud.google.com/monitoring/alerts/concepts-indepth). An absence needs a point before it
(https://cloud.google.com/monitoring/alerts/metric-absence).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from emulator.services.fake_monitoring import Key, StoredPoint

Points = Mapping[Key, Sequence[StoredPoint]]
Alerts = Mapping[str, Sequence[Mapping[str, Any]]]
"""Conditions by alert, as the plan of a policy has them."""

ALIGNERS: Mapping[str, Callable[[list[float]], float]] = {
    "ALIGN_COUNT": len,
    "ALIGN_DELTA": sum,
    "ALIGN_MAX": max,
    "ALIGN_MIN": min,
}
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "COMPARISON_GT": operator.gt,
    "COMPARISON_LT": operator.lt,
}

STEP = timedelta(minutes=5)
"""Distance of the moments at which a condition is evaluated."""


def firing(alerts: Alerts, points: Points, since: datetime, until: datetime) -> set[str]:
    """Return the alerts that fire at some moment of `[since, until]`."""
    fired = set()
    for alert, conditions in alerts.items():
        if any(_holds(condition, points, since, until) for condition in conditions):
            fired.add(alert)
    return fired


def _holds(condition: Mapping[str, Any], points: Points, since: datetime, until: datetime) -> bool:
    absent = condition.get("condition_absent")
    (body,) = absent or condition["condition_threshold"]
    (aggregation,) = body["aggregations"]
    period = _seconds(aggregation["alignment_period"])
    if absent:
        grouped = _grouped(points, body["filter"], aggregation.get("group_by_fields", []))
        missing = period + _seconds(body["duration"])
        return any(_is_absent(times, missing, since, until) for times in grouped)
    align = ALIGNERS[aggregation["per_series_aligner"]]
    compare = COMPARISONS[body["comparison"]]
    assert body["duration"] == "0s", "a point of a run holds for no duration"
    threshold = body.get("threshold_value", 0)
    for stored in (series for key, series in points.items() if matches(body["filter"], key)):
        # the aligned value only changes at a point and when a point leaves the period
        for moment in (end for end, _ in stored if since <= end <= until):
            if compare(align(_window(stored, moment, period)), threshold):
                return True
    return False


def _window(stored: Sequence[StoredPoint], moment: datetime, period: timedelta) -> list[float]:
    """Return the values of the period that ends at a moment."""
    return [value for end, value in stored if moment - period < end <= moment]


def _grouped(points: Points, text: str, fields: Sequence[str]) -> Iterable[list[datetime]]:
    """Return the times of the points of each group of matching series, in order."""
    groups: dict[tuple[str, ...], list[datetime]] = {}
    for key, stored in points.items():
        if matches(text, key):
            labels = dict(key[1])
            group = tuple(labels[field.removeprefix("metric.label.")] for field in fields)
            groups.setdefault(group, []).extend(end for end, _ in stored)
    return [sorted(times) for times in groups.values()]


def _is_absent(
    times: Sequence[datetime], missing: timedelta, since: datetime, until: datetime
) -> bool:
    """Return whether some `missing` after a point has no point, and ends inside the interval."""
    ends = [*times[1:], None]
    gaps = [(start + missing, end or until + STEP) for start, end in zip(times, ends, strict=True)]
    return any(fires < end and since <= fires <= until for fires, end in gaps)


def matches(text: str, key: Key) -> bool:
    """Return whether a filter of a condition takes a series.

    Raises:
        AssertionError: the filter has a clause of another form.
    """
    type_, labels = key
    values = {"metric.type": type_, **{f"metric.labels.{name}": value for name, value in labels}}
    for clause in text.split(" AND "):
        match = re.fullmatch(r'([a-z_.]+)=(?:"([^"]*)"|one_of\((.*)\))', clause)
        assert match is not None, f"no rule for the clause {clause}"
        allowed = re.findall(r'"([^"]*)"', match[3]) if match[3] else [match[2]]
        # every series of ours has the resource of its filter
        if match[1] != "resource.type" and values.get(match[1]) not in allowed:
            return False
    return True


def counted_entries(text: str, entries: Iterable[Mapping[str, Any]]) -> int:
    """Return how many log entries of the workflow the filter of a log-based metric counts.

    Raises:
        AssertionError: the filter has a clause of another form.
    """
    clauses = dict(clause.split("=", 1) for clause in text.replace('"', "").split(" AND "))
    assert clauses.pop("resource.type") == "workflows.googleapis.com/Workflow"
    assert clauses.pop("resource.labels.workflow_id") == "yieldspark-pipeline"
    fields = {name.removeprefix("jsonPayload."): value for name, value in clauses.items()}
    assert fields.keys() == {"event"}
    return sum(entry["jsonPayload"].items() >= fields.items() for entry in entries)


def _seconds(text: str) -> timedelta:
    return timedelta(seconds=int(text.removesuffix("s")))
