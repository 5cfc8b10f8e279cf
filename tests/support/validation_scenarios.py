"""Scenarios of the workflow's last step, the validation of the tables in a container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emulator.services.batch_lifecycle import BatchScript
from emulator.services.http_service import Request
from tests.support.scenario_checks import assert_succeeded
from tests.support.workflow_services import (
    NEW,
    PROJECT,
    REGION,
    Executor,
    Outcome,
    World,
    release_batches,
    world,
)

JOB = f"/v2/projects/{PROJECT}/locations/{REGION}/jobs/yieldspark-validate:run"


def _starts(cloud: World) -> list[Request]:
    return [request for request in cloud.cloud_run.requests if request.method == "POST"]


def _failures(outcome: Outcome) -> list[dict[str, Any]]:
    return [entry for entry in outcome.log if entry["jsonPayload"]["event"] == "validation_failed"]


def validated(folder: Path, executor: Executor, source: str) -> None:
    """After the jobs, by the release's own code; never after a dry run."""
    with world(folder, executor, source) as cloud:
        outcome = cloud.run()
        assert_succeeded(outcome)
        (start,) = _starts(cloud)
        batch = f"cloud-run-validate-{outcome.execution}"
        arguments = ["operator", "--version", NEW, "--", "validate"]
        variables = [{"name": "BATCH_ID", "value": batch}]
        assert start.path == JOB
        assert start.json() == {
            "overrides": {
                "containerOverrides": [{"args": arguments, "env": variables}],
                "timeout": "7800s",
            }
        }
        validation = outcome.result["validation"]
        assert (validation["job"], validation["batch"]) == ("validate", batch)
        assert (validation["state"], validation["platform"]) == ("SUCCEEDED", "cloud_run")
        assert_succeeded(cloud.run({"validate_as_of": "2025-10-05"}))
        (container,) = _starts(cloud)[1].json()["overrides"]["containerOverrides"]
        assert container["args"] == [*arguments, "--as-of", "2025-10-05"]
        planned = cloud.run({"dry_run": True})
        assert_succeeded(planned)
        assert planned.result["validation"] is None
        earlier = release_batches(NEW)
        del earlier["validation_job"]
        cloud.put_release(NEW, earlier)
        assert_succeeded(cloud.run())
        assert len(_starts(cloud)) == 2


def validation_failed(folder: Path, executor: Executor, source: str) -> None:
    """The rows are committed: the execution succeeds, and its event counts for an alert."""
    script = BatchScript(end="FAILED", message="the container exited with 1")
    with world(folder, executor, source, cloud_run=script) as cloud:
        outcome = cloud.run()
        assert_succeeded(outcome)
        validation = outcome.result["validation"]
        assert validation["state"] == "FAILED"
        assert "the container exited with 1" in validation["message"]
        assert len(_failures(outcome)) == 1
        event = _failures(outcome)[0]
        assert event["severity"] == "ERROR"
        assert event["jsonPayload"]["batch"] == validation["batch"]
        assert event["jsonPayload"]["message"] == validation["message"]
        assert "run_failed" not in outcome.events


def validation_not_started(folder: Path, executor: Executor, source: str) -> None:
    with world(folder, executor, source) as cloud:
        cloud.put_release(NEW, release_batches(NEW) | {"validation_job": "another-name"})
        outcome = cloud.run()
        assert_succeeded(outcome)
        validation = outcome.result["validation"]
        assert validation["state"] == "NOT_CREATED"
        assert "'another-name' of kind 'JOB'" in validation["message"]
        assert len(_failures(outcome)) == 1
