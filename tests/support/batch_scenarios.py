"""Scenarios of the workflow on Dataproc: states, failures and interrupts of batches."""

from __future__ import annotations

from pathlib import Path

from emulator.services.batch_lifecycle import BatchScript
from tests.support.scenario_checks import (
    FORECAST,
    METRICS,
    assert_failed,
    assert_skipped,
    assert_succeeded,
    console,
    nothing_started,
)
from tests.support.workflow_services import (
    NEW,
    PROJECT,
    REGION,
    WORKFLOW_PATH,
    Executor,
    release_batches,
    world,
)

BATCHES = f"/v1/projects/{PROJECT}/locations/{REGION}/batches"


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
        expected = [
            {"batchId": f"{job}-{execution}", "requestId": f"{job[0]}-{execution}"}
            for job in ("metrics", "forecast")
        ]
        assert [dict(request.query) for request in cloud.created] == expected
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
            # the validation, in a container
            *["batch_state", "batch_ended"],
            "run_succeeded",
        ]
        events = [(entry["severity"], entry["jsonPayload"]) for entry in outcome.log]
        assert events[2][1] == {
            "event": "batch_state",
            "job": METRICS,
            "batch": f"metrics-{execution}",
            "state": "RUNNING",
            "version": NEW,
            "seconds": 60,
            "message": "",
        }
        assert {severity for severity, _ in events} == {"INFO"}


def usage_comes_later(folder: Path, executor: Executor, source: str) -> None:
    """The service reports usage after the end.

    The metrics' usage is reported before the forecast ends; the workflow waits for the forecast's.
    """
    # a validation of minutes would give the service the time
    at_once = BatchScript(pending_seconds=0, running_seconds=0)
    late = BatchScript(usage_delay_seconds=100)
    with world(folder, executor, source, dataproc=late, cloud_run=at_once) as cloud:
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
        arguments = [body["pysparkBatch"]["args"][:-2] for body in bodies]
        assert arguments == [
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
    """A 409 without a batch of our id: the request is repeated a few times."""
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
    """The wait after a cancel is limited.

    A cancel is retried if the service is busy, and reported if it is rejected.
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


def second_execution(folder: Path, executor: Executor, source: str) -> None:
    with world(folder, executor, source) as cloud:
        first = cloud.start("hold")["name"].rpartition("/")[2]
        cloud.clock.sleep(5)
        outcome = cloud.run()
        assert_skipped(outcome, f"execution {first} is running since ")
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
