"""`python -m workflows submit`, `wait`, `status`, `list`, `cancel`, `cost`, `logs` against the
doubles, over HTTP, and gcloud beside them.
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
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select

from config_spark import Settings
from database.schema.tables import run_ledger
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.fake_dataproc import FakeDataproc
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_service import serving
from emulator.services.object_store import Conditions, md5_hash
from tests.support.dataproc_cases import (
    PARENT,
    PASSWORD,
    WorkflowsHere,
    batch_request,
    cloud_variables,
)
from tests.support.metrics_oracle import RawRow
from tests.support.metrics_store import put_rows
from tests.support.processes import PROJECT, environment_of
from tests.support.third_job import THIRD_JOB, one_more_job
from workflows.clients import dataproc

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
            for request in self.dataproc.asked
            if request.method == "POST" and request.path.endswith("/batches")
        ]


@contextmanager
def served(folder: Path, script: BatchScript) -> Iterator[Cloud]:
    """Both doubles with one small release in the code bucket."""
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
    with serving([storage, service]) as url:
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
    with served(tmp_path, AT_ONCE) as found:
        yield found


SUBMIT = ("submit", "calculate_metrics", "--rows", "1000000")


def test_a_submit_sees_its_batch_through(cloud: Cloud) -> None:
    found = cloud.run.json(*SUBMIT)
    (create,) = cloud.created()
    assert re.fullmatch(f"metrics-{UUID}", create.query["batchId"])
    assert create.query["requestId"] == create.query["batchId"].replace("metrics-", "m-")
    body = create.json()
    assert body["pysparkBatch"]["args"] == ["--batch", create.query["batchId"]]
    assert body["labels"] == {
        "app": "yieldspark",
        "job": "calculate_metrics",
        "version": VERSION,
    }
    assert (found["batch"], found["state"], found["job"]) == (
        create.query["batchId"],
        "SUCCEEDED",
        "calculate_metrics",
    )
    assert 0.01 < found["cost_usd"] < 0.1, "a minute is billed at least"
    assert (
        found["console"]
        == f"https://console.cloud.google.com/dataproc/batches/europe-west1/{found['batch']}?project=acme"
    )


def test_two_submits_of_one_moment_are_two_batches(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        cloud.run.json(*SUBMIT, "--no-wait")
    ids = [request.query["batchId"] for request in cloud.created()]
    assert len(set(ids)) == 2
    assert not any(
        re.search(r"20\d\d", batch_id.removeprefix("metrics-")[:4]) and batch_id[12:16].isdigit()
        for batch_id in ids
    )


def test_a_dry_run_prints_the_request_and_sends_nothing(cloud: Cloud) -> None:
    done = cloud.run(
        "submit",
        "calculate_metrics",
        "--start",
        "2025-08-01",
        "--end",
        "2025-09-01",
        "--rows",
        "5",
        "--dry-run",
    )
    assert done.returncode == 0, done.stderr
    request = json.loads(done.stdout)
    assert cloud.dataproc.asked == []
    assert request["batch"]["pysparkBatch"]["args"] == [
        "--start",
        "2025-08-01",
        "--end",
        "2025-09-01",
        "--batch",
        request["batchId"],
    ]
    assert (request["parent"], request["rows"], request["rows_from"]) == (PARENT, 5, "--rows")
    assert PASSWORD not in done.stdout + done.stderr


def test_a_forecast_has_its_engine_and_day(cloud: Cloud) -> None:
    words = (
        "submit",
        "forecast_pools",
        "--engine",
        "lightgbm",
        "--as-of",
        "2025-09-30",
        "--rows",
        "5",
        "--dry-run",
    )
    request = json.loads(cloud.run(*words).stdout)
    assert re.fullmatch(f"forecast-{UUID}", request["batchId"])
    assert request["batch"]["pysparkBatch"]["args"][:2] == ["--as-of", "2025-09-30"]
    assert (
        request["batch"]["runtimeConfig"]["properties"]["spark.dataproc.driverEnv.ENGINE"]
        == "lightgbm"
    )


WRONG = {
    "an option of the other job": (
        ["calculate_metrics", "--as-of", "2025-09-30"],
        "--as-of is no option of calculate_metrics; allowed: --start, --end, --full-refresh",
    ),
    "days for a forecast": (
        ["forecast_pools", "--start", "2025-08-01", "--end", "2025-09-01"],
        "--start is no option of forecast_pools; allowed: --as-of",
    ),
    "half an interval": (
        ["calculate_metrics", "--start", "2025-08-01"],
        "--start and --end go together",
    ),
    "no such job": (
        ["calculate_pool_metrics"],
        "calculate_pool_metrics is no job; allowed: calculate_metrics, forecast_pools",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_ends_with_2_before_anything_is_asked(cloud: Cloud, case: str) -> None:
    words, sentence = WRONG[case]
    done = cloud.run("submit", *words, "--json")
    assert done.returncode == 2
    assert sentence in json.loads(done.stdout)["error"]
    assert cloud.dataproc.asked == []


def test_submits_a_third_job_that_is_one_entry_of_the_table(cloud: Cloud) -> None:
    words = ("submit", THIRD_JOB.name, "--rows", "5", "--dry-run")
    with one_more_job():
        done = cloud.run(*words, "--start", "2025-08-01", "--end", "2025-09-01", "--json")
        assert "--end is no option of score_pools; allowed: --start" in done.stdout
        done = cloud.run(*words)
    assert done.returncode == 0, done.stderr
    request = json.loads(done.stdout)
    assert re.fullmatch(f"scores-{UUID}", request["batchId"])
    assert request["batch"]["labels"]["job"] == THIRD_JOB.name
    assert cloud.run(*words).returncode == 2


def test_the_size_is_the_plans_where_there_is_a_database(
    cloud: Cloud, database: Settings, engine: Engine
) -> None:
    put_rows(
        engine,
        [
            RawRow(number, "a", datetime(2025, 9, number), {"apy": 5.0, "tvlUsd": 1e6})
            for number in (1, 2, 3)
        ],
    )
    words = ("submit", "calculate_metrics", "--dry-run")
    done = cloud.run(*words, **_reaching(database))
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)
    assert (planned["rows"], planned["rows_from"]) == (3, "the plan")
    done = cloud.run(*words)
    assert done.returncode == 0, done.stderr
    out_of_reach = json.loads(done.stdout)
    assert out_of_reach["rows"] == 1_000_000
    assert out_of_reach["rows_from"].startswith(
        "EXPECTED_ROWS, as there is no plan from here: no connection to PostgreSQL"
    )


def test_a_plan_that_fails_is_no_batch(cloud: Cloud, database: Settings) -> None:
    done = cloud.run("submit", "forecast_pools", "--engine", "lightgbm", **_reaching(database))
    assert done.returncode == 1
    assert (
        "the plan of forecast_pools fails, and nothing was submitted: pool_daily_metrics has no"
        " observed APY or TVL" in done.stderr
    )
    assert cloud.dataproc.asked == []


def test_without_a_database_nothing_is_planned_or_sent(cloud: Cloud) -> None:
    done = cloud.run("submit", "calculate_metrics", DB_HOST="", STAGING_BUCKET="")
    assert done.returncode == 2
    assert "DB_HOST, STAGING_BUCKET not set" in done.stderr
    assert cloud.dataproc.asked == []


def test_a_failed_batch_fails_the_command_with_all_there_is_to_know(tmp_path: Path) -> None:
    with served(tmp_path, FAILS) as cloud:
        done = cloud.run(*SUBMIT, "--json")
        assert done.returncode == 1
        found = json.loads(done.stdout)
        assert (found["status"], found["state"], found["driver_output"]) == (
            "failed",
            "FAILED",
            ["the login was refused"],
        )
        assert found["error"].startswith(
            f"batch {found['batch']} is FAILED: Google Cloud Dataproc Agent reports job failure:"
            " exit code 3. Look at https"
        )
        assert found["cost_usd"] is not None
        assert "the login was refused" in done.stderr


def test_a_batch_is_looked_at_listed_read_and_left_alone_when_it_has_ended(cloud: Cloud) -> None:
    name = cloud.run.json(*SUBMIT, "--no-wait")["batch"]
    assert cloud.run.json("status", name)["state"] == "SUCCEEDED"
    assert cloud.run.json("wait", f"{PARENT}/batches/{name}")["state"] == "SUCCEEDED"
    assert [
        one["batch"]
        for one in cloud.run.json("list", "--job", "calculate_metrics", "--state", "SUCCEEDED")[
            "batches"
        ]
    ] == [name]
    assert cloud.run.json("list", "--state", "RUNNING") == {"batches": []}
    done = cloud.run("cancel", name)
    assert (
        done.returncode,
        f"{name} is SUCCEEDED already: there is nothing to cancel" in done.stderr,
    ) == (0, True)
    assert (
        cloud.run("logs", name).stdout
        == cloud.run("logs", name, "--follow").stdout
        == "first line\nlast line, ü\n"
    )
    assert name in cloud.run("list").stdout
    shown = cloud.run("status", name).stdout
    assert re.search(r"^gs://acme-staging/.*/driveroutput$", shown, re.MULTILINE)
    assert (
        f"https://console.cloud.google.com/dataproc/batches/europe-west1/{name}?project=acme"
        in shown.splitlines()
    )


def test_a_running_batch_is_cancelled(tmp_path: Path) -> None:
    with served(tmp_path, STAYS) as cloud:
        name = cloud.run.json(*SUBMIT, "--no-wait")["batch"]
        assert cloud.run.json("cancel", name)["state"] == "CANCELLED"
        done = cloud.run("wait", name)
        assert (done.returncode, f"batch {name} is CANCELLED" in done.stderr) == (1, True)


def test_a_batch_that_is_not_there(cloud: Cloud) -> None:
    done = cloud.run("status", "metrics-nowhere", "--json")
    assert done.returncode == 1
    assert "Not found: Batch" in json.loads(done.stdout)["error"]


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
        one = cloud.run.json("wait", name)
        assert 0.01 < one["cost_usd"] < 0.1
        with engine.connect() as connection:
            assert connection.execute(select(run_ledger.c.cost_usd)).scalar() == pytest.approx(
                one["cost_usd"], abs=1e-6
            )
        month = cloud.run.json("cost")
        assert (month["usd"], month["without_usage"]) == (round(one["cost_usd"], 4), 0)
        assert cloud.run.json("cost", name)["cost_usd"] == one["cost_usd"]
        assert cloud.run.json("cost", "--day", "2020-01-31")["batches"] == []
        assert cloud.run.json("cost", "--month", "2020-12")["to"] == "2021-01-01"
        assert cloud.run("cost", name, "--day", "2020-01-31").returncode == 2


def test_a_months_bill_by_the_model_names_its_inputs(cloud: Cloud) -> None:
    bill = cloud.run.json("cost", "--pools", "2000", ENGINE="lightgbm")
    assert (bill["inputs"]["pools"], bill["inputs"]["region"]) == (2000, "europe-west1")
    assert [one["platform"] for one in bill["platforms"]] == ["dataproc", "cloud_run"]
    assert bill["sources"]["region"] == "REGION"
    shown = cloud.run("cost", "--pools", "2000", ENGINE="lightgbm").stdout
    for words in (
        "cloud_run",
        f"{bill['database']['instance_usd']:.2f}",
        "database_tier",
        "terraform's default",
        "2026-11-29",
    ):
        assert words in shown


def test_a_ledger_out_of_reach_fails_no_batch(tmp_path: Path) -> None:
    with served(tmp_path, AT_ONCE) as cloud:
        done = cloud.run(*SUBMIT)
        assert done.returncode == 0, done.stderr
        assert "the ledger does not have the cost of metrics-" in done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        assert cloud.run("cost").returncode == 0
        inside = cloud.run.json("cost", code=1, ENVIRONMENT="production")
        assert "the costs of 1 batches of " in inside["error"]


@contextmanager
def _waiting(cloud: Cloud, name: str, stdin: int) -> Iterator[subprocess.Popen[str]]:
    """`wait` in a process of its own, as far as its first line of progress."""
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
def test_ctrl_c_without_a_terminal_leaves_the_batch_and_says_how_to_cancel_it(
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
    """The variables that lead gcloud to a double. Skips where it is not installed."""
    if not shutil.which("gcloud"):
        pytest.skip("gcloud is not installed here")
    return os.environ | {
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
        "CLOUDSDK_CORE_PROJECT": "acme",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
    }


def test_gcloud_itself_submits_lists_and_describes(cloud: Cloud, gcloud: dict[str, str]) -> None:
    def asked(*words: str) -> Any:
        command = [
            "gcloud",
            "dataproc",
            "batches",
            *words,
            "--region=europe-west1",
            "--format=json",
        ]
        variables = gcloud | {"CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAPROC": f"{cloud.url}/"}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    main = batch_request()["pysparkBatch"]["mainPythonFileUri"]
    submitted = asked(
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
    assert [batch["name"] for batch in asked("list")] == [f"{PARENT}/batches/metrics-by-hand"]
    described = asked("describe", "metrics-by-hand")
    assert (described["state"], described["environmentConfig"]["executionConfig"]["ttl"]) == (
        "SUCCEEDED",
        "7200s",
    )
    assert cloud.run.json("status", "metrics-by-hand")["state"] == "SUCCEEDED"
