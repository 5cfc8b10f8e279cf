"""Tests the fake of Dataproc Serverless: names, states, rejections, paging, usage, time to live."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.dataproc_v1 import Batch, BatchControllerClient

from emulator.services.batch_lifecycle import BatchLifecycle, BatchScript
from emulator.services.http_service import ApiError
from tests.support.dataproc_cases import PARENT, START, Cloud, batch_request, served


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with served() as actual:
        yield actual


def _official(cloud: Cloud) -> BatchControllerClient:
    return BatchControllerClient(
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        transport="rest",
        client_options=ClientOptions(api_endpoint=cloud.url),
    )


def _states(cloud: Cloud, *seconds: float, batch_id: str = "metrics-1") -> list[str]:
    actual = []
    for after in seconds:
        cloud.clock.time = START + after
        actual.append(cloud.ask("GET", f"{PARENT}/batches/{batch_id}")[1]["state"])
    return actual


def test_a_create_answers_an_operation_that_has_no_state(cloud: Cloud) -> None:
    status, operation = cloud.create()
    assert status == 200
    assert operation.keys() == {"name", "metadata"}
    assert operation["name"].startswith("projects/acme/regions/europe-west1/operations/")
    metadata = operation["metadata"]
    assert (
        metadata["@type"] == "type.googleapis.com/google.cloud.dataproc.v1.BatchOperationMetadata"
    )
    assert (metadata["batch"], metadata["operationType"], metadata["createTime"]) == (
        f"{PARENT}/batches/metrics-1",
        "BATCH",
        "2025-10-09T08:53:20.000000Z",
    )
    assert metadata["labels"]["job"] == "calculate_metrics"


def test_a_batch_goes_through_its_states_and_keeps_their_times(cloud: Cloud) -> None:
    cloud.create()
    assert _states(cloud, 0, 29, 30, 329, 330) == [
        "PENDING",
        "PENDING",
        "RUNNING",
        "RUNNING",
        "SUCCEEDED",
    ]
    batch = cloud.ask("GET", f"{PARENT}/batches/metrics-1")[1]
    assert batch["stateTime"] == "2025-10-09T08:58:50.000000Z"
    assert batch["stateHistory"] == [
        {"state": "PENDING", "stateStartTime": "2025-10-09T08:53:20.000000Z"},
        {"state": "RUNNING", "stateStartTime": "2025-10-09T08:53:50.000000Z"},
    ]
    assert batch["pysparkBatch"] == batch_request()["pysparkBatch"]
    assert batch["runtimeConfig"]["properties"]["spark:spark.sql.shuffle.partitions"] == "64"
    assert batch["runtimeInfo"]["outputUri"].startswith(
        "gs://acme-staging/google-cloud-dataproc-metainfo/"
    )


def test_usage_comes_a_while_after_the_end_and_int64_is_a_string(cloud: Cloud) -> None:
    cloud.create()
    cloud.clock.time = START + 389
    assert (
        "approximateUsage" not in cloud.ask("GET", f"{PARENT}/batches/metrics-1")[1]["runtimeInfo"]
    )
    cloud.clock.time = START + 390
    usage = cloud.ask("GET", f"{PARENT}/batches/metrics-1")[1]["runtimeInfo"]["approximateUsage"]
    # three machines of 4 cores and 16 GB of heap with what stands beside it, 400 GB of disk each,
    # five minutes
    dcu = 3 * (4 * 0.6 + ((16_384 + 1_220) / 1024 + 4 * 0.72) * 0.1)
    assert usage == {
        "milliDcuSeconds": str(round(dcu * 1000 * 300)),
        "shuffleStorageGbSeconds": str(3 * 400 * 300),
    }


def test_usage_is_what_a_published_batch_used() -> None:
    """The service's answer for batch de934178-..-0 of 2022-10-31, default machines, 305 s in
    RUNNING, as its owner published it.
    """
    life = BatchLifecycle(
        {}, BatchScript(pending_seconds=60, running_seconds=300.667, usage_delay_seconds=0), START
    )
    life.advance(START + 1000)
    used = life.usage(START + 1000)
    assert used is not None
    assert used["milliDcuSeconds"] == pytest.approx(3_608_000, rel=0.002)
    assert used["shuffleStorageGbSeconds"] == pytest.approx(360_800, rel=0.002)


def test_the_same_request_id_answers_the_first_operation_whatever_the_body(cloud: Cloud) -> None:
    first = cloud.create()
    assert cloud.create("metrics-2", "m-1", {"nonsense": 1}) == first
    assert cloud.fake.states() == {"metrics-1": "PENDING"}


def test_a_taken_id_under_another_request_id_is_a_conflict(cloud: Cloud) -> None:
    cloud.create()
    status, refused = cloud.create("metrics-1", "m-2")
    assert (status, refused["error"]["status"]) == (409, "ALREADY_EXISTS")
    assert (
        refused["error"]["message"]
        == f"Already exists: Failed to create batch: Batch {PARENT}/batches/metrics-1"
    )


def test_without_a_batch_id_the_service_makes_one_up(cloud: Cloud) -> None:
    status, operation = cloud.ask("POST", f"{PARENT}/batches?requestId=m-1", batch_request())
    assert status == 200
    assert len(operation["metadata"]["batch"].removeprefix(f"{PARENT}/batches/")) >= 4


def _changed(*path: str, value: Any) -> dict[str, Any]:
    batch = batch_request()
    inner = batch
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return batch


REFUSED = {
    "batchId in the body": (
        _changed("batchId", value="metrics-1"),
        "Unknown name \"batchId\" at 'batch': Cannot find field.",
    ),
    "unknown field deep inside": (
        _changed("environmentConfig", "executionConfig", "subnet", value="x"),
        'Unknown name "subnet"',
    ),
    "a number for a text": (
        _changed("pysparkBatch", "mainPythonFileUri", value=1),
        "Invalid value at 'batch'",
    ),
    "an enum that is none": (
        _changed(
            "environmentConfig",
            "executionConfig",
            "authenticationConfig",
            value={"userWorkloadAuthenticationType": "X"},
        ),
        "X",
    ),
    "a ttl of a minute": (
        _changed("environmentConfig", "executionConfig", "ttl", value="60s"),
        "ttl is 60 s",
    ),
    "idleTtl": (
        _changed("environmentConfig", "executionConfig", "idleTtl", value="600s"),
        "idleTtl is for sessions",
    ),
    "gs:// in stagingBucket": (
        _changed(
            "environmentConfig", "executionConfig", "stagingBucket", value="gs://acme-staging"
        ),
        "bare name",
    ),
    "three cores": (
        _changed("runtimeConfig", "properties", "spark.driver.cores", value="3"),
        "spark.driver.cores=3",
    ),
    "both kinds of network": (
        _changed("environmentConfig", "executionConfig", "networkUri", value="default"),
        "network",
    ),
    "a label in capitals": (_changed("labels", "Job", value="x"), "label 'Job'"),
    "no main file": (_changed("pysparkBatch", value={"args": []}), "main"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses_what_the_service_refuses(cloud: Cloud, case: str) -> None:
    body, sentence = REFUSED[case]
    status, refused = cloud.create(body=body)
    assert (status, refused["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert sentence.lower() in refused["error"]["message"].lower()
    assert refused["error"]["details"][0]["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    assert cloud.fake.states() == {}


def test_rejects_a_body_that_is_no_object(cloud: Cloud) -> None:
    status, refused = cloud.create(body=[1])
    assert (status, refused["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert "Invalid JSON payload" in refused["error"]["message"]


@pytest.mark.parametrize(
    "query",
    [
        "batchId=abc",
        "batchId=Metrics-1",
        f"batchId=metrics-1&requestId={'r' * 41}",
        "batchId=metrics-1&request_body=1",
    ],
)
def test_it_refuses_wrong_parameters(cloud: Cloud, query: str) -> None:
    status, refused = cloud.ask("POST", f"{PARENT}/batches?{query}", batch_request())
    assert (status, refused["error"]["status"]) == (400, "INVALID_ARGUMENT")


def test_lists_are_filtered_ordered_and_paged(cloud: Cloud) -> None:
    for number in range(5):
        cloud.clock.time = START + number * 100
        cloud.create(
            f"metrics-{number}",
            f"m-{number}",
            _changed(
                "labels", "job", value="forecast_pools" if number % 2 else "calculate_metrics"
            ),
        )

    def names(query: str) -> list[str]:
        actual, token = [], ""
        while True:
            status, document = cloud.ask(
                "GET", f"{PARENT}/batches?{query}{f'&pageToken={token}' if token else ''}"
            )
            assert status == 200, document
            actual += [batch["name"].rpartition("-")[2] for batch in document.get("batches", [])]
            token = document.get("nextPageToken", "")
            if not token:
                return actual

    assert names("") == ["0", "1", "2", "3", "4"]
    assert names("pageSize=2&orderBy=create_time%20desc") == ["4", "3", "2", "1", "0"]
    assert names("filter=labels.job%20%3D%20forecast_pools") == ["1", "3"]
    assert names("filter=state%3DSUCCEEDED%20AND%20labels.app%3Dyieldspark") == ["0"]
    assert names('filter=create_time%20%3E%3D%20"2025-10-09T08:56:40Z"') == ["2", "3", "4"]
    assert names("filter=state%20%3D%20SUCCEEDED%20AND%20state%20%3D%20FAILED") == []


@pytest.mark.parametrize(
    "query",
    ["filter=colour%3Dred", "filter=state%20like%20x", "orderBy=name", "pageSize=x", "pageToken=x"],
)
def test_a_list_that_the_service_can_not_make_is_refused(cloud: Cloud, query: str) -> None:
    assert cloud.ask("GET", f"{PARENT}/batches?{query}")[0] == 400


def test_only_an_ended_batch_can_be_deleted(cloud: Cloud) -> None:
    operation = cloud.create()[1]
    status, refused = cloud.ask("DELETE", f"{PARENT}/batches/metrics-1")
    assert (status, refused["error"]["status"]) == (400, "FAILED_PRECONDITION")
    cloud.clock.time += 1000
    assert cloud.ask("DELETE", f"{PARENT}/batches/metrics-1") == (200, {})
    status, refused = cloud.ask("GET", f"{PARENT}/batches/metrics-1")
    assert (status, refused["error"]["message"]) == (
        404,
        f"Not found: Batch {PARENT}/batches/metrics-1",
    )
    assert cloud.ask("GET", operation["name"])[1]["done"] is True


def test_an_operation_is_done_with_its_batch(cloud: Cloud) -> None:
    operation = cloud.create()[1]["name"]
    cloud.clock.time += 1000
    result = cloud.ask("GET", operation)[1]
    assert (result["done"], result["response"]["state"], result["metadata"]["doneTime"]) == (
        True,
        "SUCCEEDED",
        "2025-10-09T08:58:50.000000Z",
    )
    assert [
        entry["name"] for entry in cloud.ask("GET", operation.rpartition("/")[0])[1]["operations"]
    ] == [operation]
    assert cloud.ask("POST", f"{operation}:cancel", {}) == (200, {})
    assert cloud.fake.states() == {"metrics-1": "SUCCEEDED"}
    assert cloud.ask("POST", f"{operation.rpartition('/')[0]}/nope:cancel", {})[0] == 404


@pytest.mark.parametrize("after", [0, 100], ids=["pending", "running"])
def test_a_cancel_takes_its_time(cloud: Cloud, after: int) -> None:
    operation = cloud.create()[1]["name"]
    cloud.clock.time += after
    assert cloud.ask("POST", f"{operation}:cancel", {}) == (200, {})
    assert _states(cloud, after, after + 9, after + 10, after + 10_000) == [
        "CANCELLING",
        "CANCELLING",
        "CANCELLED",
        "CANCELLED",
    ]
    assert cloud.ask("GET", operation)[1]["error"]["code"] == 1


def test_a_batch_beyond_its_ttl_is_cancelled() -> None:
    with served(BatchScript(running_seconds=3600)) as cloud:
        cloud.create(body=batch_request(ttl="600s"))
        assert _states(cloud, 629, 630, 640) == ["RUNNING", "CANCELLING", "CANCELLED"]
        assert (
            "ttl of 600 seconds"
            in cloud.ask("GET", f"{PARENT}/batches/metrics-1")[1]["stateMessage"]
        )


def test_a_failure_says_what_the_service_says() -> None:
    with served(BatchScript(end="FAILED", message="exit code 3")) as cloud:
        cloud.create()
        assert _states(cloud, 330) == ["FAILED"]
        message = cloud.ask("GET", f"{PARENT}/batches/metrics-1")[1]["stateMessage"]
        assert message.startswith("Google Cloud Dataproc Agent reports job failure: exit code 3.")
        assert (
            "gcloud dataproc batches wait 'metrics-1' --region 'europe-west1' --project 'acme'"
            in message
        )


@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_planned_failures(cloud: Cloud, status: int) -> None:
    cloud.fake.fail_next("create", status, times=2)
    assert [cloud.create()[0] for _ in range(3)] == [status, status, 200]


def test_a_connection_cut_before_and_after_the_service(cloud: Cloud) -> None:
    for failure, created in (("cut", {}), ("lost answer", {"metrics-1": "PENDING"})):
        cloud.fake.fail_next("create", failure)
        with pytest.raises(ConnectionError):
            cloud.create()
        assert cloud.fake.states() == created


def test_the_official_client_reads_every_answer(cloud: Cloud) -> None:
    client = _official(cloud)
    created = client.create_batch(
        parent=PARENT, batch=Batch.from_json(json.dumps(batch_request())), batch_id="metrics-1"
    )
    assert created.metadata.batch == f"{PARENT}/batches/metrics-1"
    cloud.clock.time += 1000
    batch = client.get_batch(name=f"{PARENT}/batches/metrics-1")
    assert batch.state is Batch.State.SUCCEEDED
    assert batch.runtime_info.approximate_usage.milli_dcu_seconds > 0
    authentication = batch.environment_config.execution_config.authentication_config
    assert authentication.user_workload_authentication_type.name == "SERVICE_ACCOUNT"
    assert [entry.name for entry in client.list_batches(parent=PARENT)] == [batch.name]
    assert client.get_operation({"name": batch.operation}).done is True
    client.cancel_operation({"name": batch.operation})
    client.delete_batch(name=batch.name)
    assert cloud.fake.states() == {}


class _Process:
    """A batch that ends when the test says so."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.code: int | None = None
        self.asked_to_end = False

    def poll(self) -> int | None:
        return self.code

    def cancel(self) -> None:
        self.asked_to_end = True


def test_a_batch_that_really_runs(tmp_path: Path) -> None:
    started: list[tuple[dict[str, Any], str]] = []
    outputs: dict[str, bytes] = {}
    process = _Process(tmp_path / "output")

    def run(batch: dict[str, Any], batch_id: str) -> _Process:
        started.append((batch, batch_id))
        return process

    with served(BatchScript(pending_seconds=0), run=run, write_output=outputs.__setitem__) as cloud:
        cloud.create()
        assert [batch_id for _, batch_id in started] == ["metrics-1"]
        assert started[0][0]["pysparkBatch"] == batch_request()["pysparkBatch"]
        assert _states(cloud, 50) == ["RUNNING"]
        process.output.write_bytes(b"first line\n")
        cloud.fake.advance()
        uri = started[0][0]["runtimeInfo"]["outputUri"]
        assert outputs == {f"{uri}.000000000": b"first line\n"}
        process.code = 3
        assert _states(cloud, 100, 1000) == ["FAILED", "FAILED"]
        assert len(started) == 1


def test_a_running_batch_is_cancelled_when_its_process_has_ended(tmp_path: Path) -> None:
    process = _Process(tmp_path / "output")
    with served(BatchScript(pending_seconds=0), run=lambda batch, batch_id: process) as cloud:
        operation = cloud.create()[1]["name"]
        cloud.ask("POST", f"{operation}:cancel", {})
        assert process.asked_to_end
        assert _states(cloud, 500) == ["CANCELLING"]
        process.code = 0
        assert _states(cloud, 600) == ["CANCELLED"]


def test_none_outlives_the_service(tmp_path: Path) -> None:
    process = _Process(tmp_path / "output")
    with served(BatchScript(pending_seconds=0), run=lambda batch, batch_id: process) as cloud:
        cloud.create()
        ending = threading.Timer(0.1, setattr, (process, "code", 143))
        ending.start()
        cloud.fake.cancel_all()
        assert cloud.fake.states() == {"metrics-1": "CANCELLED"}
        ending.join()


def test_a_batch_that_can_not_be_started_fails() -> None:
    def run(batch: dict[str, Any], batch_id: str) -> _Process:
        raise OSError("no such object")

    with served(BatchScript(pending_seconds=0), run=run) as cloud:
        cloud.create()
        assert (
            "no such object" in cloud.ask("GET", f"{PARENT}/batches/metrics-1")[1]["stateMessage"]
        )


def test_a_batch_that_did_not_run_has_no_usage() -> None:
    life = BatchLifecycle(
        batch_request(), BatchScript(usage_delay_seconds=0, cancelling_seconds=0), START
    )
    life.cancel(START)
    assert life.done
    assert life.usage(START + 1000) is None


def test_errors_have_googles_form() -> None:
    answer = ApiError(400, "no", details=[{"@type": "x"}]).answer
    assert answer.body == {
        "error": {
            "code": 400,
            "message": "no",
            "status": "INVALID_ARGUMENT",
            "details": [{"@type": "x"}],
        }
    }
