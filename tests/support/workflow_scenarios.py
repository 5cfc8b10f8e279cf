"""What the workflow must do, scenario by scenario: each runs a source in a world and asserts.
Shared by the tests of the workflow and of its faults.

A scenario takes a folder, what executes, and the source, which is pipeline.yaml or a copy with a
fault put in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from emulator.services.batch_lifecycle import BatchScript
from tests.support.third_job import THIRD_JOB, one_more_job
from tests.support.workflow_services import (
    NEW,
    OLD,
    PROJECT,
    REGION,
    WORKFLOW_PATH,
    Executor,
    Outcome,
    World,
    release_batches,
    world,
)

Scenario = Callable[[Path, Executor, str], None]

METRICS, FORECAST = "calculate_metrics", "forecast_pools"
ON_CLOUD_RUN = {METRICS: "cloud_run", FORECAST: "cloud_run"}
BATCHES = f"/v1/projects/{PROJECT}/locations/{REGION}/batches"


def console(batch: str) -> str:
    return f"https://console.cloud.google.com/dataproc/batches/{REGION}/{batch}/summary?project={PROJECT}"


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
    told = {name: expected[name] for name in ("job", "batch", "state") if name in expected}
    assert {**last["jsonPayload"], **told, "message": outcome.error["message"]} == last[
        "jsonPayload"
    ]


def nothing_started(cloud: World) -> None:
    assert cloud.dataproc.requests == []
    assert cloud.cloud_run.requests == []


def success(folder: Path, executor: Executor, source: str) -> None:
    with world(
        folder,
        executor,
        source,
        dataproc=BatchScript(pending_seconds=40, running_seconds=600, usage_delay_seconds=0),
    ) as cloud:
        outcome = cloud.run()
        assert_succeeded(outcome)
        execution = outcome.execution
        wanted = [
            {"batchId": f"{job}-{execution}", "requestId": f"{job[0]}-{execution}"}
            for job in ("metrics", "forecast")
        ]
        assert [dict(request.query) for request in cloud.created] == wanted
        batches = release_batches(NEW)["batches"]
        for request, key in zip(cloud.created, (METRICS, f"{FORECAST}/synapseml"), strict=True):
            body = request.json()
            assert body["pysparkBatch"].pop("args") == [
                *batches[key]["pysparkBatch"].pop("args"),
                "--batch",
                request.query["batchId"],
            ]
            assert body == batches[key]
        steps = outcome.result["steps"]
        assert outcome.result["version"] == NEW
        assert all(int(step["usage"]["milliDcuSeconds"]) > 0 for step in steps)
        assert [step["console"] for step in steps] == [console(step["batch"]) for step in steps]
        assert all(640 <= step["seconds"] <= 700 for step in steps)
        assert cloud.clock.slept[:7] == [10, 20, 30, 40, 50, 60, 60]
        assert cloud.cancels == []
        assert outcome.events == [
            "run_began",
            *["batch_state", "batch_state", "batch_ended"] * 2,
            "run_succeeded",
        ]
        told = [(entry["severity"], entry["jsonPayload"]) for entry in outcome.log]
        assert told[2][1] == {
            "event": "batch_state",
            "job": METRICS,
            "batch": f"metrics-{execution}",
            "state": "RUNNING",
            "version": NEW,
            "seconds": 60,
            "message": "",
        }
        assert {severity for severity, _ in told} == {"INFO"}


def usage_comes_later(folder: Path, executor: Executor, source: str) -> None:
    """The service reports usage after the end. The metrics' usage is there when the forecast has
    ended; the forecast's is waited for.
    """
    with world(folder, executor, source, dataproc=BatchScript(usage_delay_seconds=100)) as cloud:
        outcome = cloud.run()
        assert_succeeded(outcome)
        assert all(
            step["usage"] and int(step["usage"]["milliDcuSeconds"]) > 0
            for step in outcome.result["steps"]
        )
        assert outcome.events[-3:] == ["batch_used", "batch_used", "run_succeeded"]
        assert outcome.log[-2]["jsonPayload"]["batch"] == f"forecast-{outcome.execution}"
        assert "milliDcuSeconds" in outcome.log[-2]["jsonPayload"]["message"]
        assert 90 <= sum(cloud.clock.slept[-4:]) <= 120


def usage_never_comes(folder: Path, executor: Executor, source: str) -> None:
    with world(
        folder, executor, source, dataproc=BatchScript(usage_delay_seconds=100_000)
    ) as cloud:
        outcome = cloud.run()
        assert_succeeded(outcome)
        assert [step["usage"] for step in outcome.result["steps"]] == [None, None]
        assert cloud.clock.slept[-12:] == [30] * 12


def arguments_reach_the_jobs(folder: Path, executor: Executor, source: str) -> None:
    with world(folder, executor, source) as cloud:
        assert_succeeded(
            cloud.run(
                {"start": "2025-01-01", "end": "2025-02-01", "engine": "lightgbm", "dry_run": True}
            )
        )
        bodies = [request.json() for request in cloud.created]
        given = [body["pysparkBatch"]["args"][:-2] for body in bodies]
        assert given == [
            ["--start", "2025-01-01", "--end", "2025-02-01", "--dry-run"],
            ["--dry-run"],
        ]
        assert (
            bodies[1]["runtimeConfig"]
            == release_batches(NEW)["batches"][f"{FORECAST}/lightgbm"]["runtimeConfig"]
        )
        assert_succeeded(cloud.run({"full_refresh": True, "version": None, "platform": {}}))
        assert [request.json()["pysparkBatch"]["args"][:-2] for request in cloud.created[2:]] == [
            ["--full-refresh"],
            [],
        ]
        cloud.put_release(NEW, {**release_batches(NEW), "engine": "lightgbm"})
        assert_succeeded(cloud.run({"engine": None}))
        runtimes = [request.json()["runtimeConfig"]["version"] for request in cloud.created[3::2]]
        assert runtimes == [
            release_batches(NEW)["batches"][f"{FORECAST}/{engine}"]["runtimeConfig"]["version"]
            for engine in ("synapseml", "lightgbm")
        ]


def failed(folder: Path, executor: Executor, source: str) -> None:
    """The second step does not start after a failed first one."""
    with world(
        folder, executor, source, dataproc=BatchScript(end="FAILED", message="out of memory")
    ) as cloud:
        outcome = cloud.run()
        batch = f"metrics-{outcome.execution}"
        assert_failed(
            outcome,
            code=500,
            job=METRICS,
            batch=batch,
            state="FAILED",
            version=NEW,
            console=console(batch),
            message="out of memory",
        )
        assert len(cloud.created) == 1
        assert cloud.cancels == []


def second_failed(folder: Path, executor: Executor, source: str) -> None:
    def script(batch: str) -> BatchScript:
        return BatchScript(end="FAILED" if batch.startswith("forecast-") else "SUCCEEDED")

    with world(folder, executor, source, dataproc=script) as cloud:
        outcome = cloud.run()
        assert_failed(
            outcome,
            job=FORECAST,
            batch=f"forecast-{outcome.execution}",
            state="FAILED",
            message="job failure",
        )
        assert outcome.events.count("batch_ended") == 2


def cancelled(folder: Path, executor: Executor, source: str) -> None:
    """Somebody else or the ttl cancelled the batch; the workflow sends no cancel."""
    with world(
        folder, executor, source, dataproc=BatchScript(end="CANCELLED", message="by hand")
    ) as cloud:
        outcome = cloud.run()
        assert_failed(
            outcome,
            code=500,
            job=METRICS,
            batch=f"metrics-{outcome.execution}",
            state="CANCELLED",
            message="ended CANCELLED: by hand",
        )
        assert len(cloud.created) == 1
        assert cloud.cancels == []


def unavailable_twice(folder: Path, executor: Executor, source: str) -> None:
    with world(folder, executor, source) as cloud:
        cloud.dataproc.fail_next("create", 503, 2)
        cloud.dataproc.fail_next("get", 429, 1)
        cloud.dataproc.fail_next("get", 500, 1)
        assert_succeeded(cloud.run())
        assert len(cloud.created) == 4
        assert len({request.query["batchId"] for request in cloud.created}) == 2
        assert len(cloud.dataproc.states()) == 2


def lost_answer(folder: Path, executor: Executor, source: str) -> None:
    """The batch was created and the response lost: the retry finds it."""
    with world(folder, executor, source) as cloud:
        cloud.dataproc.fail_next("create", "lost answer")
        cloud.dataproc.fail_next("get", "cut")
        assert_succeeded(cloud.run())
        assert len(cloud.dataproc.states()) == 2


def batch_is_there_already(folder: Path, executor: Executor, source: str) -> None:
    """A 409 for our own id: the workflow waits for that batch."""
    with world(folder, executor, source) as cloud:

        def create(execution: str) -> None:
            cloud.ask(
                "POST",
                f"{BATCHES}?batchId=metrics-{execution}&requestId=other",
                release_batches(NEW)["batches"][METRICS],
            )

        cloud.before = create
        assert_succeeded(cloud.run())
        assert len(cloud.created) == 3
        assert len(cloud.dataproc.states()) == 2


def create_is_aborted(folder: Path, executor: Executor, source: str) -> None:
    """A 409 without a batch of our id: the request is sent again a few times."""
    with world(folder, executor, source) as cloud:
        cloud.dataproc.fail_next("create", 409, 2)
        assert_succeeded(cloud.run())
        assert len(cloud.created) == 4
        assert len({request.query["requestId"] for request in cloud.created}) == 2
        assert len(cloud.dataproc.states()) == 2
        cloud.dataproc.fail_next("create", 409, 100)
        outcome = cloud.run()
        assert_failed(
            outcome,
            code=409,
            job=METRICS,
            batch=f"metrics-{outcome.execution}",
            state="NOT_CREATED",
            message="was not created: ",
        )
        assert "aborted" in outcome.error["message"]
        assert len(cloud.created) == 4 + 7


def not_created(folder: Path, executor: Executor, source: str) -> None:
    with world(folder, executor, source) as cloud:
        cloud.dataproc.fail_next("create", 403)
        outcome = cloud.run()
        assert_failed(
            outcome,
            code=403,
            job=METRICS,
            batch=f"metrics-{outcome.execution}",
            state="NOT_CREATED",
            message="Failure asked for.",
        )
        assert len(cloud.created) == 1


def deadline(folder: Path, executor: Executor, source: str) -> None:
    with world(
        folder,
        executor,
        source,
        dataproc=BatchScript(end=None, cancelling_seconds=45),
        deadline=1800,
    ) as cloud:
        outcome = cloud.run()
        batch = f"metrics-{outcome.execution}"
        assert_failed(
            outcome,
            code=504,
            job=METRICS,
            batch=batch,
            state="CANCELLED",
            console=console(batch),
            message="longer than 1800 s",
        )
        assert len(cloud.cancels) == 1
        operation = cloud.ask("GET", f"{BATCHES}/{batch}")["operation"]
        assert cloud.cancels == [f"/v1/{operation}:cancel"]
        assert cloud.dataproc.states() == {batch: "CANCELLED"}
        assert 1800 <= sum(cloud.clock.slept) <= 1800 + 60 + 45 + 60
        assert len(cloud.created) == 1
        assert "cancel_requested" in outcome.events


def deadline_without_an_end(folder: Path, executor: Executor, source: str) -> None:
    """The wait after a cancel has a limit; a cancel is retried when the service is busy, and
    reported when it is rejected.
    """
    with world(
        folder,
        executor,
        source,
        dataproc=BatchScript(end=None, cancelling_seconds=1e6),
        deadline=1800,
    ) as cloud:
        cloud.dataproc.fail_next("cancel", 503)
        outcome = cloud.run()
        assert_failed(
            outcome, code=504, state="CANCELLING", message="did not end; it ran longer than 1800 s"
        )
        assert len(cloud.cancels) == 2
        assert 2400 <= sum(cloud.clock.slept) <= 2600
    with world(
        folder / "refused", executor, source, dataproc=BatchScript(end=None), deadline=1800
    ) as cloud:
        cloud.dataproc.fail_next("cancel", 403)
        outcome = cloud.run()
        assert_failed(outcome, code=504, state="RUNNING", message="did not end")
        assert len(cloud.cancels) == 1
        assert "cancel_refused" in outcome.events


def ended_well_while_cancelled(folder: Path, executor: Executor, source: str) -> None:
    """A batch that succeeds before its cancel has succeeded."""

    def script(batch: str) -> BatchScript:
        return BatchScript(
            pending_seconds=0, running_seconds=1835 if batch.startswith("metrics-") else 60
        )

    with world(folder, executor, source, dataproc=script, deadline=1800) as cloud:
        cloud.dataproc.fail_next("cancel", 400)
        assert_succeeded(cloud.run())
        assert len(cloud.cancels) == 1


def rollback(folder: Path, executor: Executor, source: str) -> None:
    with world(folder, executor, source) as cloud:
        outcome = cloud.run({"version": OLD})
        assert_succeeded(outcome)
        assert outcome.result["version"] == OLD
        uris = [request.json()["pysparkBatch"]["mainPythonFileUri"] for request in cloud.created]
        assert [uri.split("/")[4] for uri in uris] == [OLD, OLD]


def on_cloud_run(folder: Path, executor: Executor, source: str) -> None:
    """One job on Cloud Run and the other on Dataproc, then both on Cloud Run."""
    with world(folder, executor, source) as cloud:
        outcome = cloud.run(
            {"platform": {FORECAST: "cloud_run"}, "engine": "lightgbm", "dry_run": True}
        )
        assert_succeeded(outcome, "dataproc", "cloud_run")
        assert len(cloud.created) == 1
        (asked,) = [request for request in cloud.cloud_run.requests if request.method == "POST"]
        assert (
            asked.path
            == f"/v2/projects/{PROJECT}/locations/{REGION}/jobs/yieldspark-forecast-pools:run"
        )
        words = [
            FORECAST,
            "--version",
            NEW,
            "--engine",
            "lightgbm",
            "--dry-run",
            "--batch",
            f"cloud-run-forecast-{outcome.execution}",
        ]
        assert asked.json() == {
            "overrides": {"containerOverrides": [{"args": words}], "timeout": "7800s"}
        }
        assert "execution_name" in outcome.result["steps"][1]["console"]
        outcome = cloud.run(
            {"platform": ON_CLOUD_RUN, "version": OLD, "start": "2025-01-01", "end": "2025-01-02"}
        )
        assert_succeeded(outcome, "cloud_run", "cloud_run")
        words = [
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
        asked = [request for request in cloud.cloud_run.requests if request.method == "POST"][1]
        assert asked.json()["overrides"]["containerOverrides"] == [{"args": words}]
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
        wanted = {METRICS: "dataproc", FORECAST: "dataproc"}
        assert_succeeded(cloud.run({"platform": wanted}), *wanted.values())
        asked = len(cloud.cloud_run.requests)
        for unknown in ("auto", 5, ["cloud_run"]):
            cloud.put_release(NEW, release_batches(NEW) | {"platform": unknown})
            assert_failed(cloud.run(), code=500, version=NEW, message="allowed is dataproc or")
        assert (len(cloud.created), len(cloud.cloud_run.requests)) == (7, asked)


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


def second_execution(folder: Path, executor: Executor, source: str) -> None:
    with world(folder, executor, source) as cloud:
        first = cloud.start("hold")["name"].rpartition("/")[2]
        cloud.clock.sleep(5)
        outcome = cloud.run()
        assert_failed(outcome, code=409, message=f"execution {first} is running since ")
        nothing_started(cloud)
        cloud.hold.set()
        while cloud.ask("GET", f"/v1/{WORKFLOW_PATH}/executions/{first}")["state"] == "ACTIVE":
            pass
        assert_succeeded(cloud.run())


def batch_is_gone(folder: Path, executor: Executor, source: str) -> None:
    with world(folder, executor, source) as cloud:
        cloud.dataproc.fail_next("get", 404)
        outcome = cloud.run()
        assert_failed(
            outcome,
            code=404,
            job=METRICS,
            batch=f"metrics-{outcome.execution}",
            state="UNKNOWN",
            message="can not be read",
        )
        assert len(cloud.created) == 1


def long_silence(folder: Path, executor: Executor, source: str) -> None:
    """The service is unavailable for longer than all retries of one poll: the batch is kept until
    its deadline.
    """
    with world(folder, executor, source) as cloud:
        cloud.dataproc.fail_next("get", 503, 10)
        outcome = cloud.run()
        assert_succeeded(outcome)
        assert outcome.events.count("batch_not_seen") == 1


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
        asked = len(cloud.dataproc.requests)
        outside = release_batches(NEW)
        main = outside["batches"][METRICS]["pysparkBatch"]
        main["mainPythonFileUri"] = f"gs://evil/versions/{NEW}/{METRICS}.py"
        cloud.put_release(NEW, outside)
        assert_failed(cloud.run(), code=500, message="which is no file of it; release again")
        assert len(cloud.dataproc.requests) == asked


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
]


def wrong_argument(folder: Path, executor: Executor, source: str) -> None:
    with world(folder, executor, source) as cloud:
        for argument, message in WRONG_ARGUMENTS:
            assert_failed(cloud.run(argument), code=400, message=message)
        nothing_started(cloud)


def third_job(folder: Path, executor: Executor, source: str) -> None:
    """A job that is one more entry of the table runs after the others, with its own options."""
    with one_more_job(), world(folder, executor, source) as made:
        argument = {"start": "2025-01-01", "end": "2025-02-01", "full_refresh": False}
        outcome = made.run(argument)
        assert outcome.state == "SUCCEEDED", outcome.error
        batches = [step["batch"] for step in outcome.result["steps"]]
        assert batches == [
            f"{job}-{outcome.execution}" for job in ("metrics", "forecast", "scores")
        ]
        request = made.created[2]
        assert request.query["requestId"] == f"s-{outcome.execution}"
        body = request.json()
        assert body["labels"]["job"] == THIRD_JOB.name
        assert body["pysparkBatch"]["args"] == ["--start", "2025-01-01", "--batch", batches[2]]
        outcome = made.run({"platform": {THIRD_JOB.name: "cloud_run"}, "dry_run": True})
        assert outcome.state == "FAILED", "the emulator has no Cloud Run job of this name"
        assert outcome.error["job"] == THIRD_JOB.name
        (request,) = [request for request in made.cloud_run.requests if request.method == "POST"]
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


SCENARIOS: tuple[Scenario, ...] = (
    success,
    usage_comes_later,
    usage_never_comes,
    arguments_reach_the_jobs,
    failed,
    second_failed,
    cancelled,
    unavailable_twice,
    lost_answer,
    batch_is_there_already,
    create_is_aborted,
    not_created,
    deadline,
    deadline_without_an_end,
    ended_well_while_cancelled,
    rollback,
    on_cloud_run,
    platform_of_the_release,
    failed_on_cloud_run,
    deadline_on_cloud_run,
    job_is_missing_on_cloud_run,
    second_execution,
    batch_is_gone,
    long_silence,
    broken_release,
    changed_release,
    wrong_argument,
    third_job,
)
