"""Tests `submit`, `wait`, `status`, `list`, `cancel`, `cost` and `logs` against the fakes over
HTTP, and gcloud against the same fakes.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select

from config_spark import Settings, load_settings
from database.schema.own_tables import run_ledger
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.fake_dataproc import FakeDataproc
from emulator.services.fake_executions import FakeExecutions
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from emulator.services.http_service import Service
from emulator.services.object_store import Conditions, md5_hash
from emulator.workflow_engine import WorkflowFailed
from tests.support.dataproc_cases import (
    PARENT,
    PASSWORD,
    WorkflowsHere,
    batch_request,
    cloud_variables,
)
from tests.support.processes import PROJECT, environment_of
from workflows.clients import dataproc
from workflows.clients.dataproc import Batches
from workflows.clients.executions import ExecutionNotSucceeded
from workflows.commands.run_commands import run_pipeline

VERSION = "2158279" + "0" * 33
JARS = ("postgresql-42.7.14.jar",)
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

AT_ONCE = BatchScript(
    pending_seconds=0,
    running_seconds=0,
    usage_delay_seconds=0,
    output="first line\nlast line, ü\n".encode(),
)
FAILS = BatchScript(
    pending_seconds=0,
    running_seconds=0,
    usage_delay_seconds=0,
    end="FAILED",
    message="exit code 3",
    output=b"the login was refused\n",
)
STAYS = BatchScript(pending_seconds=0, end=None, cancelling_seconds=0, usage_delay_seconds=0)


@dataclass
class Cloud:
    url: str
    dataproc: FakeDataproc
    run: WorkflowsHere

    def created(self) -> list[Any]:
        return [
            request
            for request in self.dataproc.requests
            if request.method == "POST" and request.path.endswith("/batches")
        ]


@contextmanager
def served(folder: Path, script: BatchScript, *more: Service) -> Iterator[Cloud]:
    """Serve both fakes with a small release in the code bucket. `more` are other fakes."""
    storage = FakeStorage(folder / "storage", ["acme-code", "acme-staging"])

    def put(uri: str, content: bytes) -> None:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        storage.store.write(bucket, name, content, {"contentType": "text/plain"}, Conditions(), {})

    names = (
        "yieldspark.zip",
        "calculate_metrics.py",
        "forecast_pools.py",
        *(f"jars/{jar}" for jar in JARS),
    )
    files = {name: {"sha256": "0" * 64, "bytes": 1, "md5": md5_hash(b"x")} for name in names}
    for name in names:
        put(f"gs://acme-code/versions/{VERSION}/{name}", b"x")
    manifest = json.dumps({"version": VERSION, "commit": VERSION, "files": files}).encode()
    put(f"gs://acme-code/versions/{VERSION}/manifest.json", manifest)
    put(
        "gs://acme-code/latest.json",
        json.dumps({"version": VERSION, "manifest_sha256": sha256(manifest).hexdigest()}).encode(),
    )
    service = FakeDataproc(script, write_output=put)
    with serving([storage, service, *more]) as url:
        yield Cloud(url, service, WorkflowsHere(folder, cloud_variables(url)))


def _reaching(database: Settings) -> dict[str, str]:
    return {
        name: value for name, value in environment_of(database).items() if name.startswith("DB_")
    }


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataproc, "FIRST_POLL_SECONDS", 0.02)
    monkeypatch.setattr(dataproc, "USAGE_POLL_SECONDS", 0.02)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with served(tmp_path, AT_ONCE) as actual:
        yield actual


SUBMIT = ("submit", "calculate_metrics", "--rows", "1000000")


def test_a_failed_batch_fails_the_run_with_its_last_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A workflow in place of pipeline.yaml raises the error that pipeline.yaml raises for a failed
    batch.
    """
    settings: list[Settings] = []

    def batch_fails(_execution: str, _argument: Any) -> None:
        Batches(settings[0]).submit(batch_request(), "metrics-1", "m-1")
        failed = {"job": "calculate_metrics", "batch": "metrics-1", "state": "FAILED"}
        raise WorkflowFailed(failed | {"message": "exit code 3"}, [])

    with served(tmp_path, FAILS, FakeExecutions(batch_fails)) as cloud:
        variables = cloud_variables(cloud.url).items()
        settings.append(
            load_settings(_env_file=None, **{name.lower(): value for name, value in variables})
        )
        with pytest.raises(ExecutionNotSucceeded, match="ended FAILED: exit code 3") as error:
            run_pipeline(settings[0], {}, seconds_between=0.02)
    document = error.value.document
    assert (document["state"], document["raised"]["batch"]) == ("FAILED", "metrics-1")
    assert document["driver_output"] == ["the login was refused"]
    assert "the login was refused" in capsys.readouterr().err


def test_commands_on_an_ended_batch(cloud: Cloud) -> None:
    name = cloud.run.json(*SUBMIT, "--no-wait")["batch"]
    assert cloud.run.json("status", name)["state"] == "SUCCEEDED"
    assert cloud.run.json("wait", f"{PARENT}/batches/{name}")["state"] == "SUCCEEDED"
    assert [
        entry["batch"]
        for entry in cloud.run.json("list", "--job", "calculate_metrics", "--state", "SUCCEEDED")[
            "batches"
        ]
    ] == [name]
    assert cloud.run.json("list", "--state", "RUNNING") == {"batches": []}
    result = cloud.run("cancel", name)
    assert (
        result.returncode,
        f"{name} is SUCCEEDED already; nothing was cancelled" in result.stderr,
    ) == (0, True)
    assert (
        cloud.run("logs", name).stdout
        == cloud.run("logs", name, "--follow").stdout
        == "first line\nlast line, ü\n"
    )
    assert name in cloud.run("list").stdout
    output = cloud.run("status", name).stdout
    assert re.search(r"^gs://acme-staging/.*/driveroutput$", output, re.MULTILINE)
    assert (
        f"https://console.cloud.google.com/dataproc/batches/europe-west1/{name}?project=acme"
        in output.splitlines()
    )


def test_a_running_batch_is_cancelled(tmp_path: Path) -> None:
    with served(tmp_path, STAYS) as cloud:
        name = cloud.run.json(*SUBMIT, "--no-wait")["batch"]
        assert cloud.run.json("cancel", name)["state"] == "CANCELLED"
        result = cloud.run("wait", name)
        assert (result.returncode, f"batch {name} is CANCELLED" in result.stderr) == (1, True)


def test_reports_a_missing_batch(cloud: Cloud) -> None:
    result = cloud.run("status", "metrics-nowhere", "--json")
    assert result.returncode == 1
    assert "Not found: Batch" in json.loads(result.stdout)["error"]


def test_costs_are_summed_and_go_into_the_ledger(
    tmp_path: Path, database: Settings, engine: Engine
) -> None:
    with served(tmp_path, AT_ONCE) as cloud:
        cloud.run.environment |= _reaching(database)
        name = cloud.run.json(*SUBMIT, "--no-wait")["batch"]
        row = {
            "run_id": "r",
            "job": "calculate_metrics",
            "status": "succeeded",
            "code_version": "v",
            "rows": {},
            "stages": {},
            "checks": [],
        }
        with engine.begin() as connection:
            connection.execute(
                insert(run_ledger).values(row | {"batch_id": name, "jvm_started": True})
            )
        entry = cloud.run.json("wait", name)
        assert 0.01 < entry["cost_usd"] < 0.1
        with engine.connect() as connection:
            assert connection.execute(select(run_ledger.c.cost_usd)).scalar() == pytest.approx(
                entry["cost_usd"], abs=1e-6
            )
        month = cloud.run.json("cost")
        assert (month["usd"], month["without_usage"]) == (round(entry["cost_usd"], 4), 0)
        assert cloud.run.json("cost", name)["cost_usd"] == entry["cost_usd"]
        assert cloud.run.json("cost", "--day", "2020-01-31")["batches"] == []
        assert cloud.run.json("cost", "--month", "2020-12")["to"] == "2021-01-01"
        assert cloud.run("cost", name, "--day", "2020-01-31").returncode == 2


def test_a_months_bill_by_the_model_names_its_inputs(cloud: Cloud) -> None:
    bill = cloud.run.json("cost", "--pools", "2000", ENGINE="lightgbm")
    assert (bill["inputs"]["pools"], bill["inputs"]["region"]) == (2000, "europe-west1")
    assert [entry["platform"] for entry in bill["platforms"]] == ["dataproc", "cloud_run"]
    assert bill["sources"]["region"] == "REGION"
    output = cloud.run("cost", "--pools", "2000", ENGINE="lightgbm").stdout
    for fragment in (
        "cloud_run",
        f"{bill['database']['instance_usd']:.2f}",
        "database_tier",
        "terraform's default",
        "2026-11-29",
    ):
        assert fragment in output


def test_an_unreachable_ledger_fails_no_batch(tmp_path: Path) -> None:
    with served(tmp_path, AT_ONCE) as cloud:
        result = cloud.run(*SUBMIT)
        assert result.returncode == 0, result.stderr
        assert "the cost of metrics-" in result.stderr
        assert PASSWORD not in result.stdout + result.stderr
        assert cloud.run("cost").returncode == 0
        inside = cloud.run.json("cost", code=1, ENVIRONMENT="production")
        assert "the costs of 1 batches of " in inside["error"]


@contextmanager
def _waiting(cloud: Cloud, name: str, stdin: int) -> Iterator[subprocess.Popen[str]]:
    """Start `wait` as a process and wait for its first line of progress."""
    variables = cloud.run.environment | {"PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(
        [sys.executable, "-c", "from workflows.commands.main import main; main()", "wait", name],
        cwd=cloud.run.folder,
        env=variables,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    if not re.search(rf"{name}: RUNNING, \d+ s, about 0\.\d+ USD so far$", line):
        process.kill()
        pytest.fail(line + process.stderr.read())
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("processes")
def test_ctrl_c_without_a_terminal_keeps_the_batch_and_prints_the_cancel_command(
    tmp_path: Path,
) -> None:
    with served(tmp_path, STAYS) as cloud:
        name = cloud.run.json(*SUBMIT, "--no-wait")["batch"]
        with _waiting(cloud, name, subprocess.DEVNULL) as process:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert f"python -m workflows cancel {name}" in errors
        assert cloud.dataproc.states() == {name: "RUNNING"}


@pytest.mark.parametrize(("answer", "state"), [("n", "RUNNING"), ("y", "CANCELLED")])
@pytest.mark.usefixtures("processes")
def test_ctrl_c_at_a_terminal_asks(tmp_path: Path, answer: str, state: str) -> None:
    with served(tmp_path, STAYS) as cloud:
        name = cloud.run.json(*SUBMIT, "--no-wait")["batch"]
        ours, theirs = pty.openpty()
        try:
            with _waiting(cloud, name, theirs) as process:
                process.send_signal(signal.SIGINT)
                os.write(ours, f"{answer}\n".encode())
                process.communicate(timeout=30)
            assert process.returncode == 130
            assert cloud.dataproc.states() == {name: state}
        finally:
            os.close(ours)
            os.close(theirs)


@pytest.fixture
def gcloud(processes: None, tmp_path: Path) -> dict[str, str]:
    """Yield the variables that direct gcloud to a fake.

    Skips if gcloud is not installed.
    """
    if not shutil.which("gcloud"):
        pytest.skip("gcloud is not installed here")
    return os.environ | {
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
        "CLOUDSDK_CORE_PROJECT": "acme",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
    }


def test_gcloud_itself_submits_lists_and_describes(cloud: Cloud, gcloud: dict[str, str]) -> None:
    def run_gcloud(*arguments: str) -> Any:
        command = [
            "gcloud",
            "dataproc",
            "batches",
            *arguments,
            "--region=europe-west1",
            "--format=json",
        ]
        variables = gcloud | {"CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAPROC": f"{cloud.url}/"}
        result = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    main = batch_request()["pysparkBatch"]["mainPythonFileUri"]
    submitted = run_gcloud(
        "submit",
        "pyspark",
        main,
        "--batch=metrics-by-hand",
        "--version=2.3",
        "--ttl=2h",
        "--labels=app=yieldspark",
        "--async",
    )
    assert submitted["metadata"]["batch"] == f"{PARENT}/batches/metrics-by-hand"
    assert [batch["name"] for batch in run_gcloud("list")] == [f"{PARENT}/batches/metrics-by-hand"]
    described = run_gcloud("describe", "metrics-by-hand")
    assert (described["state"], described["environmentConfig"]["executionConfig"]["ttl"]) == (
        "SUCCEEDED",
        "7200s",
    )
    assert cloud.run.json("status", "metrics-by-hand")["state"] == "SUCCEEDED"
