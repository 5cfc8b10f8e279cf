"""Checks that the scenarios of the workflow share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.workflow_services import (
    PROJECT,
    REGION,
    Executor,
    Outcome,
    World,
)

Scenario = Callable[[Path, Executor, str], None]
METRICS, FORECAST = "calculate_metrics", "forecast_pools"


def console(batch: str) -> str:
    batches = f"https://console.cloud.google.com/dataproc/batches/{REGION}"
    return f"{batches}/{batch}/summary?project={PROJECT}"


def assert_succeeded(outcome: Outcome, *platforms: str) -> None:
    assert outcome.state == "SUCCEEDED", outcome.error
    steps = outcome.result["steps"]
    where = platforms or ("dataproc", "dataproc")
    batches = [
        f"{'cloud-run-' if platform == 'cloud_run' else ''}{job}-{outcome.execution}"
        for job, platform in zip(("metrics", "forecast"), where, strict=True)
    ]
    expected = list(
        zip(
            (METRICS, FORECAST),
            where,
            batches,
            ("SUCCEEDED", "SUCCEEDED"),
            strict=True,
        )
    )
    assert [
        (step["job"], step["platform"], step["batch"], step["state"]) for step in steps
    ] == expected
    assert outcome.events[0] == "run_began"
    assert outcome.events[-1] == "run_succeeded"


def assert_failed(outcome: Outcome, **expected: Any) -> None:
    """Check entries of the error's map (part of `message`) and the last event."""
    assert outcome.state == "FAILED", outcome.result
    assert outcome.error is not None
    message = expected.pop("message")
    assert message in outcome.error["message"], outcome.error
    assert {name: outcome.error.get(name) for name in expected} == expected
    last = outcome.log[-1]
    assert last["severity"] == "ERROR"
    assert last["jsonPayload"]["event"] == "run_failed"
    reported = {name: expected[name] for name in ("job", "batch", "state") if name in expected}
    assert {**last["jsonPayload"], **reported, "message": outcome.error["message"]} == last[
        "jsonPayload"
    ]


def assert_skipped(outcome: Outcome, message: str) -> None:
    """Check that an execution beside another one fails without the event that fires an alert."""
    assert outcome.state == "FAILED"
    assert outcome.error["code"] == 409
    assert message in outcome.error["message"]
    (entry,) = outcome.log
    assert (entry["severity"], entry["jsonPayload"]["event"]) == ("WARNING", "run_skipped")
    assert entry["jsonPayload"]["message"] == outcome.error["message"]


def nothing_started(cloud: World) -> None:
    assert cloud.dataproc.requests == []
    assert cloud.cloud_run.requests == []
