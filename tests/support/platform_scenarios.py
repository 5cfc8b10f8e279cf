"""Scenarios of the workflow on both platforms, Dataproc and Cloud Run."""

from __future__ import annotations

from pathlib import Path

from emulator.services.batch_lifecycle import BatchScript
from tests.support.scenario_checks import (
    FORECAST,
    METRICS,
    assert_failed,
    assert_succeeded,
)
from tests.support.workflow_services import (
    NEW,
    OLD,
    PROJECT,
    REGION,
    Executor,
    release_batches,
    world,
)

ON_CLOUD_RUN = {METRICS: "cloud_run", FORECAST: "cloud_run"}


def on_cloud_run(folder: Path, executor: Executor, source: str) -> None:
    """One job on Cloud Run and the other on Dataproc, then both on Cloud Run."""
    with world(folder, executor, source) as cloud:
        outcome = cloud.run(
            {"platform": {FORECAST: "cloud_run"}, "engine": "lightgbm", "dry_run": True}
        )
        assert_succeeded(outcome, "dataproc", "cloud_run")
        assert len(cloud.created) == 1
        (request_of_job,) = [
            request for request in cloud.cloud_run.requests if request.method == "POST"
        ]
        assert (
            request_of_job.path
            == f"/v2/projects/{PROJECT}/locations/{REGION}/jobs/yieldspark-forecast-pools:run"
        )
        arguments = [
            FORECAST,
            "--version",
            NEW,
            "--engine",
            "lightgbm",
            "--dry-run",
            "--batch",
            f"cloud-run-forecast-{outcome.execution}",
        ]
        assert request_of_job.json() == {
            "overrides": {"containerOverrides": [{"args": arguments}], "timeout": "7800s"}
        }
        assert "execution_name" in outcome.result["steps"][1]["console"]
        outcome = cloud.run(
            {"platform": ON_CLOUD_RUN, "version": OLD, "start": "2025-01-01", "end": "2025-01-02"}
        )
        assert_succeeded(outcome, "cloud_run", "cloud_run")
        arguments = [
            METRICS,
            "--version",
            OLD,
            "--start",
            "2025-01-01",
            "--end",
            "2025-01-02",
            "--batch",
            f"cloud-run-metrics-{outcome.execution}",
        ]
        request_of_job = [
            request for request in cloud.cloud_run.requests if request.method == "POST"
        ][1]
        assert request_of_job.json()["overrides"]["containerOverrides"] == [{"args": arguments}]
        assert len(cloud.created) == 1


def platform_of_the_release(folder: Path, executor: Executor, source: str) -> None:
    """Each platform of a release, and a release without one; the argument overrides it for the jobs
    it names.
    """
    both: dict[str | None, tuple[str, str]] = {
        None: ("dataproc", "dataproc"),
        "dataproc": ("dataproc", "dataproc"),
        "cloud_run": ("cloud_run", "cloud_run"),
    }
    with world(folder, executor, source) as cloud:
        for platform, expected in both.items():
            cloud.put_release(NEW, release_batches(NEW) | {"platform": platform})
            assert_succeeded(cloud.run(), *expected)
        assert len(cloud.created) == 4
        assert_succeeded(cloud.run({"platform": {FORECAST: "dataproc"}}), "cloud_run", "dataproc")
        platforms = {METRICS: "dataproc", FORECAST: "dataproc"}
        assert_succeeded(cloud.run({"platform": platforms}), *platforms.values())
        requests_before = len(cloud.cloud_run.requests)
        for unknown in ("auto", 5, ["cloud_run"]):
            cloud.put_release(NEW, release_batches(NEW) | {"platform": unknown})
            assert_failed(cloud.run(), code=500, version=NEW, message="allowed is dataproc or")
        assert (len(cloud.created), len(cloud.cloud_run.requests)) == (7, requests_before)


def failed_on_cloud_run(folder: Path, executor: Executor, source: str) -> None:
    with world(
        folder,
        executor,
        source,
        cloud_run=BatchScript(end="FAILED", message="the container exited with 1"),
    ) as cloud:
        outcome = cloud.run({"platform": ON_CLOUD_RUN})
        assert_failed(
            outcome,
            code=500,
            job=METRICS,
            batch=f"cloud-run-metrics-{outcome.execution}",
            state="FAILED",
            message="the container exited with 1",
        )
        assert (
            len([request for request in cloud.cloud_run.requests if request.method == "POST"]) == 1
        )


def deadline_on_cloud_run(folder: Path, executor: Executor, source: str) -> None:
    with world(
        folder, executor, source, cloud_run=BatchScript(end=None, keeps_ttl=False), deadline=1800
    ) as cloud:
        outcome = cloud.run({"platform": ON_CLOUD_RUN})
        assert_failed(
            outcome, code=504, job=METRICS, state="CANCELLED", message="longer than 1800 s"
        )
        assert len(cloud.cancels) == 1
        assert "/jobs/yieldspark-calculate-metrics/executions/" in cloud.cancels[0]


def job_is_missing_on_cloud_run(folder: Path, executor: Executor, source: str) -> None:
    with world(folder, executor, source) as cloud:
        changed = release_batches(NEW)
        changed["cloud_run_jobs"][METRICS] = "another-name"
        cloud.put_release(NEW, changed)
        outcome = cloud.run({"platform": {METRICS: "cloud_run"}})
        assert_failed(
            outcome,
            code=404,
            job=METRICS,
            state="NOT_CREATED",
            message="'another-name' of kind 'JOB'",
        )
        assert len(cloud.cloud_run.requests) == 1
        cloud.put_release(NEW, changed | {"cloud_run_jobs": {}})
        assert_failed(
            cloud.run({"platform": {METRICS: "cloud_run"}}),
            code=400,
            message="knows no Cloud Run job for calculate_metrics",
        )
        assert cloud.dataproc.requests == []
