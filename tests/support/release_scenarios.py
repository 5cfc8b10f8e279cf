"""Scenarios of the workflow with other or faulty releases and arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.scenario_checks import (
    FORECAST,
    METRICS,
    assert_failed,
    assert_succeeded,
    nothing_started,
)
from tests.support.third_job import THIRD_JOB, third_job_added
from tests.support.workflow_services import (
    NEW,
    OLD,
    Executor,
    release_batches,
    world,
)


def rollback(folder: Path, executor: Executor, source: str) -> None:
    with world(folder, executor, source) as cloud:
        outcome = cloud.run({"version": OLD})
        assert_succeeded(outcome)
        assert outcome.result["version"] == OLD
        uris = [request.json()["pysparkBatch"]["mainPythonFileUri"] for request in cloud.created]
        assert [uri.split("/")[4] for uri in uris] == [OLD, OLD]


BROKEN_LATEST: list[tuple[Any, str]] = [
    (b"{", "can not be read"),
    (b"", "can not be read"),
    ({"version": 5}, "names no version"),
    ({"version": "../other"}, "names no version"),
    ({}, "names no version"),
    ([], "names no version"),
    ({"version": "c" * 40}, f"release {'c' * 40} can not be read"),
]


def broken_release(folder: Path, executor: Executor, source: str) -> None:
    with world(folder, executor, source) as cloud:
        for content, message in BROKEN_LATEST:
            cloud.put("latest.json", content)
            assert_failed(cloud.run(), message=message)
        assert_failed(
            cloud.run({"version": "c" * 40}),
            code=404,
            version="c" * 40,
            message=f"release {'c' * 40} can not be read",
        )
        cloud.put_release("c" * 40, release_batches(OLD))
        assert_failed(cloud.run({"version": "c" * 40}), code=500, message="is none")
        cloud.put_release(NEW, {**release_batches(NEW), "batches": {}})
        assert_failed(
            cloud.run({"version": NEW}), code=400, message="has no batch calculate_metrics"
        )
        without_jobs = release_batches(NEW)
        del without_jobs["jobs"]
        cloud.put_release(NEW, without_jobs)
        assert_failed(cloud.run({"version": NEW}), code=500, version=NEW, message="lists no jobs")
        nothing_started(cloud)


CHANGED_FILES = (
    "yieldspark.zip",
    f"{METRICS}.py",
    f"{FORECAST}.py",
    "jars/postgresql-42.7.5.jar",
    "batches.json",
)


def changed_release(folder: Path, executor: Executor, source: str) -> None:
    """Somebody with write access replaces a file of a release."""
    with world(folder, executor, source) as cloud:
        for name in CHANGED_FILES:
            cloud.put_release(NEW, release_batches(NEW))
            changed = (
                release_batches(NEW) | {"project": "another"} if name == "batches.json" else b"evil"
            )
            cloud.put(f"versions/{NEW}/{name}", changed)
            message = f"{name} of release {NEW} was changed: its md5 is "
            assert_failed(cloud.run({"version": NEW}), code=500, version=NEW, message=message)
        assert_succeeded(cloud.run({"version": OLD}))
        requests_before = len(cloud.dataproc.requests)
        outside = release_batches(NEW)
        main = outside["batches"][METRICS]["pysparkBatch"]
        main["mainPythonFileUri"] = f"gs://evil/versions/{NEW}/{METRICS}.py"
        cloud.put_release(NEW, outside)
        assert_failed(cloud.run(), code=500, message="which is no file of it; release again")
        assert len(cloud.dataproc.requests) == requests_before


WRONG_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"versoin": NEW}, "the argument has no key versoin"),
    ({"version": "../x"}, 'version="../x" is wrong; allowed is a released version'),
    ({"version": 5}, "version=5 is wrong"),
    ({"start": "01.01.2025", "end": "2025-01-02"}, 'start="01.01.2025" is wrong; allowed is a day'),
    ({"start": "2025-01-01"}, "start and end go together"),
    ({"end": "2025-01-01"}, "start and end go together"),
    ({"start": "2025-01-01", "end": "2025-01-02", "full_refresh": True}, "give one of them"),
    ({"full_refresh": "yes"}, 'full_refresh="yes" is wrong; allowed is true or false'),
    ({"engine": "spark"}, 'engine="spark" is wrong; allowed is lightgbm or synapseml'),
    ({"platform": "cloud_run"}, 'platform="cloud_run" is wrong; allowed is a map'),
    ({"platform": {"forecast": "cloud_run"}}, "platform names the job forecast; jobs are"),
    (
        {"platform": {FORECAST: "laptop"}},
        'platform of forecast_pools is "laptop"; allowed is dataproc or cloud_run',
    ),
    ({"dry_run": 1}, "dry_run=1 is wrong"),
    ({"validate_as_of": "yesterday"}, 'validate_as_of="yesterday" is wrong; allowed is a day'),
]


def wrong_argument(folder: Path, executor: Executor, source: str) -> None:
    with world(folder, executor, source) as cloud:
        for argument, message in WRONG_ARGUMENTS:
            assert_failed(cloud.run(argument), code=400, message=message)
        nothing_started(cloud)


def third_job(folder: Path, executor: Executor, source: str) -> None:
    """A job that only the table of jobs lists runs after the others, with its own options."""
    with third_job_added(), world(folder, executor, source) as cloud:
        argument = {"start": "2025-01-01", "end": "2025-02-01", "full_refresh": False}
        outcome = cloud.run(argument)
        assert outcome.state == "SUCCEEDED", outcome.error
        batches = [step["batch"] for step in outcome.result["steps"]]
        assert batches == [
            f"{job}-{outcome.execution}" for job in ("metrics", "forecast", "scores")
        ]
        request = cloud.created[2]
        assert request.query["requestId"] == f"s-{outcome.execution}"
        body = request.json()
        assert body["labels"]["job"] == THIRD_JOB.name
        assert body["pysparkBatch"]["args"] == ["--start", "2025-01-01", "--batch", batches[2]]
        outcome = cloud.run({"platform": {THIRD_JOB.name: "cloud_run"}, "dry_run": True})
        assert outcome.state == "FAILED", "the emulator has no Cloud Run job of this name"
        assert outcome.error["job"] == THIRD_JOB.name
        requests = [request for request in cloud.cloud_run.requests if request.method == "POST"]
        # behind the validation of the first run
        request = requests[1]
        assert request.json()["overrides"]["containerOverrides"] == [
            {
                "args": [
                    THIRD_JOB.name,
                    "--version",
                    NEW,
                    "--dry-run",
                    "--batch",
                    f"cloud-run-scores-{outcome.execution}",
                ]
            }
        ]
