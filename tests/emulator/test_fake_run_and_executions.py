"""Tests the fakes of Cloud Run jobs and of the Executions API: protocol, rejections, real
processes, and the product's client.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from common.errors import BatchFailed, CloudRefused
from config_spark import Settings
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.fake_cloud_run import FakeCloudRun
from emulator.services.fake_executions import FakeExecutions, UntilCancelled
from emulator.services.http_server import serving
from emulator.services.http_service import Service
from emulator.workflow_engine import VirtualClock, WorkflowFailed, execute, route_to
from workflows.clients.executions import Executions, wait_for_execution

JOB = "/v2/projects/p/locations/r/jobs/yieldspark-forecast-pools"
WORKFLOW = "/v1/projects/p/locations/r/workflows/w/executions"

Ask = Callable[..., tuple[int, Any]]


@contextmanager
def asking(service: Service) -> Iterator[Ask]:
    """Yield a function (method, path, body) -> (status, document)."""
    with serving([service]) as url:

        def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
            request = urllib.request.Request(
                url + path, None if body is None else json.dumps(body).encode(), method=method
            )
            try:
                with urllib.request.urlopen(request) as answer:
                    return answer.status, json.loads(answer.read())
            except urllib.error.HTTPError as error:
                return error.code, json.loads(error.read())

        yield ask


def run_request(*arguments: str, **more: Any) -> dict[str, Any]:
    return {"overrides": {"containerOverrides": [{"args": list(arguments)}], **more}}


def test_a_job_goes_from_its_operation_to_its_execution() -> None:
    clock = VirtualClock()
    with asking(
        FakeCloudRun(BatchScript(pending_seconds=10, running_seconds=60), now=clock.now)
    ) as ask:
        status, operation = ask(
            "POST", f"{JOB}:run", run_request("forecast_pools", "--dry-run", timeout="600s")
        )
        assert status == 200
        assert "state" not in operation
        name = operation["metadata"]["name"]
        assert name.startswith(f"{JOB.removeprefix('/v2/')}/executions/yieldspark-forecast-pools-")
        assert "startTime" not in operation["metadata"]
        clock.sleep(20)
        _, running = ask("GET", f"/v2/{name}")
        assert running["template"]["containers"] == [{"args": ["forecast_pools", "--dry-run"]}]
        assert (running["runningCount"], running["reconciling"], "completionTime" in running) == (
            1,
            True,
            False,
        )
        assert running["conditions"][0]["state"] == "CONDITION_RECONCILING"
        clock.sleep(60)
        _, result = ask("GET", f"/v2/{name}")
        assert (
            result["succeededCount"],
            result["taskCount"],
            "runningCount" in result,
            "failedCount" in result,
        ) == (1, 1, False, False)
        assert (
            result["conditions"][0]["state"],
            result["completionTime"] > result["startTime"],
        ) == (
            "CONDITION_SUCCEEDED",
            True,
        )
        status, refusal = ask("POST", f"/v2/{name}:cancel", {})
        assert (status, refusal["error"]["status"]) == (400, "FAILED_PRECONDITION")


def test_a_job_that_is_cancelled_or_over_its_time() -> None:
    clock = VirtualClock()
    with asking(
        FakeCloudRun(BatchScript(pending_seconds=0, end=None, cancelling_seconds=5), now=clock.now)
    ) as ask:
        first, second = (
            ask("POST", f"{JOB}:run", run_request(timeout="600s"))[1]["metadata"]["name"]
            for _ in range(2)
        )
        assert ask("POST", f"/v2/{first}:cancel", {})[0] == 200
        clock.sleep(10)
        _, cancelled = ask("GET", f"/v2/{first}")
        assert (cancelled["cancelledCount"], cancelled["conditions"][0]["executionReason"]) == (
            1,
            "CANCELLED",
        )
        clock.sleep(700)
        _, over = ask("GET", f"/v2/{second}")
        assert (over["failedCount"], "cancelledCount" in over, over["conditions"][0]["state"]) == (
            1,
            False,
            "CONDITION_FAILED",
        )


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v2/projects/p/locations/r/jobs/other:run", {}, 404, "'other' of kind 'JOB'"),
        (f"{JOB}:run", {"override": {}}, 400, 'Unknown name "override"'),
        (f"{JOB}:run", {"overrides": {"args": []}}, 400, "Unknown name \"args\" at 'overrides'"),
        (
            f"{JOB}:run",
            {"overrides": {"containerOverrides": [{"arguments": []}]}},
            400,
            'Unknown name "arguments"',
        ),
        (f"{JOB}/executions/none:cancel", {}, 404, "'none' of kind 'EXECUTION'"),
    ],
)
def test_what_cloud_run_refuses(path: str, body: Any, status: int, message: str) -> None:
    with asking(FakeCloudRun()) as ask:
        actual, answer = ask("POST", path, body)
        assert actual == status
        assert message in answer["error"]["message"]


class Process:
    """A `RunningBatch`."""

    output = b""

    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", *arguments])
        self.poll = self.process.poll
        self.cancel = self.process.terminate


@pytest.mark.usefixtures("processes")
def test_a_job_really_runs_and_none_outlives_the_service() -> None:
    started: list[tuple[str, Process]] = []

    def run(name: str, arguments: list[str], variables: dict[str, str]) -> Process:
        started.append((name, Process(arguments)))
        return started[-1][1]

    fake = FakeCloudRun(run=run)
    with asking(fake) as ask:
        for job_arguments, count in (
            (["import sys; sys.exit(3)"], "failedCount"),
            (["pass"], "succeededCount"),
        ):
            name = ask("POST", f"{JOB}:run", run_request(*job_arguments))[1]["metadata"]["name"]
            started[-1][1].process.wait()
            assert ask("GET", f"/v2/{name}")[1][count] == 1
            assert name.endswith(f"/{started[-1][0]}")
        ask("POST", f"{JOB}:run", run_request("import time; time.sleep(600)"))
    fake.cancel_all()
    assert started[-1][1].poll() is not None


def executed(execution_id: str, argument: Any) -> Any:
    if argument == "fail":
        raise WorkflowFailed({"code": 500, "batch": "b", "message": "no luck"}, ["a step"])
    if argument == "break":
        raise RuntimeError("the interpreter broke")
    return {"execution": execution_id, "argument": argument}


def settings_at(url: str) -> Settings:
    return Settings(
        _env_file=None, project_id="p", region="r", workflow_name="w", google_api_endpoint=url
    )


def test_the_products_own_client_starts_and_sees_executions() -> None:
    with serving([FakeExecutions(executed)]) as url:
        client = Executions(settings_at(url))
        started = client.start({"dry_run": True})
        assert started["state"] in ("ACTIVE", "SUCCEEDED")
        summary = wait_for_execution(client, started["name"], print, 0.01)
        execution = started["name"].rpartition("/")[2]
        assert summary.state == "SUCCEEDED"
        assert summary.result == {"execution": execution, "argument": {"dry_run": True}}
        with pytest.raises(BatchFailed, match="no luck"):
            wait_for_execution(client, client.start("fail")["name"], print, 0.01)  # type: ignore[arg-type]
        with pytest.raises(BatchFailed, match="the interpreter broke"):
            wait_for_execution(client, client.start("break")["name"], print, 0.01)  # type: ignore[arg-type]
        with pytest.raises(CloudRefused):
            client.get("none")


def test_executions_are_listed_by_state_and_age_and_cancelled() -> None:
    release = threading.Event()
    clock = VirtualClock()
    fake = FakeExecutions(lambda execution_id, argument: release.wait(), now=clock.now)
    with asking(fake) as ask:
        names = []
        for _ in range(3):
            names.append(ask("POST", WORKFLOW, {"argument": "{}"})[1]["name"])
            clock.sleep(1)
        requests = f"{WORKFLOW}?filter=state%3D%22ACTIVE%22"
        assert [entry["name"] for entry in ask("GET", requests)[1]["executions"]] == names[::-1]
        status, cancelled = ask("POST", f"/v1/{names[0]}:cancel", {})
        assert (status, cancelled["state"]) == (200, "CANCELLED")
        assert fake.cancelled(names[0].rpartition("/")[2])
        assert not fake.cancelled(names[1].rpartition("/")[2])
        _, first = ask("GET", f"{requests}&orderBy=createTime&pageSize=1")
        assert [entry["name"] for entry in first["executions"]] == names[1:2]
        assert "argument" not in first["executions"][0]
        _, second = ask(
            "GET",
            f"{requests}&orderBy=createTime&pageSize=1"
            f"&pageToken={first['nextPageToken']}&view=FULL",
        )
        assert [(entry["name"], entry["argument"]) for entry in second["executions"]] == [
            (names[2], "{}")
        ]
        assert "nextPageToken" not in second
        release.set()
        while ask("GET", f"/v1/{names[2]}")[1]["state"] == "ACTIVE":
            pass
        assert ask("GET", f"/v1/{names[0]}")[1]["state"] == "CANCELLED"
        assert ask("GET", f"{WORKFLOW}?filter=state%3DFAILED") == (200, {})


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", WORKFLOW, {"argument": "{"}, 400),
        ("POST", WORKFLOW, {"argument": {"a": 1}}, 400),
        ("POST", WORKFLOW, {"argument": json.dumps("x" * 40_000)}, 400),
        ("GET", f"{WORKFLOW}/none", None, 404),
        ("GET", f"{WORKFLOW}?filter=name%3Dx", None, 400),
        ("GET", f"{WORKFLOW}?orderBy=duration", None, 400),
        ("POST", f"{WORKFLOW}/none:cancel", {}, 404),
    ],
)
def test_what_the_executions_refuse(method: str, path: str, body: Any, status: int) -> None:
    with asking(FakeExecutions(executed)) as ask:
        assert ask(method, path, body)[0] == status


def test_an_execution_that_ended_is_not_cancelled() -> None:
    with asking(FakeExecutions(executed)) as ask:
        name = ask("POST", WORKFLOW, {})[1]["name"]
        while (actual := ask("GET", f"/v1/{name}")[1])["state"] == "ACTIVE":
            pass
        assert json.loads(actual["result"])["argument"] is None
        assert ask("POST", f"/v1/{name}:cancel", {})[0] == 400


ENDLESS = """
main:
  params: [args]
  steps:
    - wait:
        call: sys.sleep
        args: {seconds: 1}
        next: wait
"""


def test_the_workflow_of_a_cancelled_execution_ends_where_it_waits() -> None:
    """Otherwise it would start its next job, which costs money."""
    ended = threading.Event()

    def run(execution_id: str, argument: Any) -> Any:
        clock = UntilCancelled(executions, execution_id, factor=100)
        try:
            return execute(
                ENDLESS,
                argument,
                environment={},
                transport=route_to("http://127.0.0.1:1"),
                clock=clock,
                log=lambda entry: None,
            )
        finally:
            ended.set()

    executions = FakeExecutions(run)
    with asking(executions) as ask:
        name = ask("POST", WORKFLOW, {})[1]["name"]
        assert not ended.wait(0.1)
        assert ask("POST", f"/v1/{name}:cancel", {})[0] == 200
        assert ended.wait(60)
        assert ask("GET", f"/v1/{name}")[1]["state"] == "CANCELLED"
