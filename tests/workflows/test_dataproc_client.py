"""Tests the Dataproc client against the fake over HTTP: protocol, retries, deadlines and unreliable
connections.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from common.errors import BatchFailed, CloudRefused, CloudUnavailable, ConfigurationError
from config_spark import load_settings
from emulator.services.batch_lifecycle import BatchScript
from tests.support.dataproc_cases import START, Cloud, batch_request, served
from workflows.clients import dataproc
from workflows.clients.dataproc import Batches, seconds_left


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with served() as actual:
        yield actual


def _submitted(cloud: Cloud) -> dict[str, Any]:
    return cloud.batches.submit(batch_request(), "metrics-1", "m-1")


def test_a_submitted_batch_has_its_ids_in_the_query_and_never_in_the_body(cloud: Cloud) -> None:
    batch = _submitted(cloud)
    assert batch["name"].endswith("/batches/metrics-1")
    assert batch["state"] == "PENDING", (
        "the operation that a create answers has no state: the batch has"
    )
    (create,) = cloud.asked("POST")
    assert (create.query["batchId"], create.query["requestId"]) == ("metrics-1", "m-1")
    assert {"batchId", "requestId", "name"} & create.json().keys() == set()


def test_a_field_that_a_batch_does_not_have_is_refused_before_it_is_sent(cloud: Cloud) -> None:
    with pytest.raises(ConfigurationError, match="batchId"):
        cloud.batches.submit(batch_request() | {"batchId": "metrics-1"}, "metrics-1", "m-1")
    assert cloud.fake.requests == []


def test_the_batch_is_polled_and_not_its_operation(cloud: Cloud) -> None:
    _submitted(cloud)
    batch = cloud.batches.wait("metrics-1")
    assert batch["state"] == "SUCCEEDED"
    looked = {request.path for request in cloud.asked("GET")}
    assert looked == {"/v1/projects/acme/locations/europe-west1/batches/metrics-1"}


def test_poll_intervals_grow_and_report_progress(cloud: Cloud) -> None:
    _submitted(cloud)
    reports: list[tuple[str, float]] = []
    cloud.batches.wait(
        "metrics-1", lambda batch, seconds: reports.append((batch["state"], seconds))
    )
    assert cloud.clock.slept[:4] == [2.0, 3.0, 4.5, 6.75]
    assert max(cloud.clock.slept) == 30.0
    assert reports[0] == ("PENDING", 0.0)
    assert [state for state, _ in reports] == sorted(
        (state for state, _ in reports), key=["PENDING", "RUNNING", "SUCCEEDED"].index
    )


@pytest.mark.parametrize("end", ["FAILED", "CANCELLED"])
def test_polling_stops_when_the_batch_has_ended(end: str) -> None:
    with served(BatchScript(end=end)) as cloud:  # type: ignore[arg-type]
        _submitted(cloud)
        assert cloud.batches.wait("metrics-1")["state"] == end
        assert cloud.clock.time < START + 400


def test_beyond_its_time_a_batch_is_cancelled_once_and_the_wait_fails() -> None:
    with served(BatchScript(end=None, cancelling_seconds=45, keeps_ttl=False)) as cloud:
        assert seconds_left(_submitted(cloud)) == 7800
        with pytest.raises(
            BatchFailed,
            match="still RUNNING after 7800 seconds, beyond its ttl, and is cancelled now",
        ):
            cloud.batches.wait("metrics-1")
        assert cloud.fake.states() == {"metrics-1": "CANCELLED"}
        assert len(cloud.asked("POST", ":cancel")) == 1


def test_a_batch_without_a_ttl_has_the_services_four_hours() -> None:
    batch = {
        "createTime": "2025-10-09T08:53:20Z",
        "stateTime": "2025-10-09T08:54:20Z",
        "state": "RUNNING",
    }
    assert seconds_left(batch) == 4 * 3600 + 600 - 60


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_hours_off_ends_no_batch(cloud: Cloud, hours: int) -> None:
    _submitted(cloud)
    wrong = Batches(
        cloud.settings, now=lambda: cloud.clock.time + hours * 3600, sleep=cloud.clock.sleep
    )
    assert wrong.wait("metrics-1")["state"] == "SUCCEEDED"
    assert cloud.asked("POST", ":cancel") == []
    wrong.with_usage("metrics-1")
    assert cloud.clock.time < START + 700


def test_a_cancel_goes_to_the_operation_and_waits_for_the_end(cloud: Cloud) -> None:
    operation = _submitted(cloud)["operation"]
    cloud.clock.time += 100
    assert cloud.batches.cancel("metrics-1")["state"] == "CANCELLED"
    assert [request.path for request in cloud.asked("POST", ":cancel")] == [
        f"/v1/{operation}:cancel"
    ]
    cloud.batches.cancel("metrics-1")
    assert len(cloud.asked("POST", ":cancel")) == 1, "an ended batch is left alone"


def test_reports_a_cancel_without_effect() -> None:
    with served(BatchScript(end=None, cancelling_seconds=10_000)) as cloud:
        _submitted(cloud)
        with pytest.raises(CloudUnavailable, match="still CANCELLING 10 minutes after its cancel"):
            cloud.batches.cancel("metrics-1")


@pytest.mark.parametrize("failure", [429, 500, 503, "cut"])
def test_a_create_that_the_service_does_not_take_is_sent_again(
    cloud: Cloud, failure: int | str
) -> None:
    cloud.fake.fail_next("create", failure, times=2)
    assert _submitted(cloud)["state"] == "PENDING"
    assert {request.query["requestId"] for request in cloud.asked("POST")} == {"m-1"}
    assert len(cloud.asked("POST")) == 3


def test_a_lost_answer_makes_no_second_batch(cloud: Cloud) -> None:
    cloud.fake.fail_next("create", "lost answer", times=2)
    _submitted(cloud)
    assert cloud.fake.states() == {"metrics-1": "PENDING"}


def test_a_conflict_with_the_same_batch_is_no_error(cloud: Cloud) -> None:
    first = _submitted(cloud)
    assert cloud.batches.submit(batch_request(), "metrics-1", "m-2")["uuid"] == first["uuid"]


def test_a_conflict_about_another_batch_is_refused(cloud: Cloud) -> None:
    cloud.create(
        "metrics-1",
        "x",
        batch_request() | {"pysparkBatch": {"mainPythonFileUri": "gs://other/main.py"}},
    )
    with pytest.raises(CloudRefused, match="batch id metrics-1 is taken by another batch"):
        _submitted(cloud)


def test_a_conflict_without_a_batch_is_sent_again(cloud: Cloud) -> None:
    cloud.fake.fail_next("create", 409)
    assert _submitted(cloud)["state"] == "PENDING"


@pytest.mark.parametrize("method", ["get", "list", "cancel"])
def test_get_and_cancel_are_retried(cloud: Cloud, method: str) -> None:
    _submitted(cloud)
    cloud.fake.fail_next(method, 503)  # type: ignore[arg-type]
    cloud.fake.fail_next(method, "cut")  # type: ignore[arg-type]
    cloud.batches.list()
    assert cloud.batches.cancel("metrics-1")["state"] == "CANCELLED"


def test_distinguishes_an_unavailable_service_from_a_refusal(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CloudRefused, match=re.escape("metrics-9: Google Cloud refused: GET")):
        cloud.batches.get("metrics-9")
    monkeypatch.setattr(dataproc, "RETRY_SECONDS", 0.05)
    hurried = Batches(cloud.settings, first_retry_seconds=0.01)
    cloud.fake.fail_next("get", 503, times=1000)
    with pytest.raises(CloudUnavailable, match="Google Cloud does not answer"):
        hurried.get("metrics-9")


def test_usage_is_waited_for_three_minutes_at_most(cloud: Cloud) -> None:
    _submitted(cloud)
    cloud.batches.wait("metrics-1")
    assert (
        cloud.batches.with_usage("metrics-1")["runtimeInfo"]["approximateUsage"][
            "shuffleStorageGbSeconds"
        ]
        == "360000"
    )
    with served(BatchScript(usage_delay_seconds=10_000)) as late:
        _submitted(late)
        ended = late.batches.wait("metrics-1")
        began = late.clock.time
        assert "approximateUsage" not in late.batches.with_usage("metrics-1")["runtimeInfo"]
        assert 170 <= late.clock.time - began <= 190
        assert ended["state"] == "SUCCEEDED"


def test_a_batch_that_never_ran_is_not_waited_for(cloud: Cloud) -> None:
    _submitted(cloud)
    cloud.batches.cancel("metrics-1")
    ended = cloud.clock.time
    assert "approximateUsage" not in cloud.batches.with_usage("metrics-1").get("runtimeInfo", {})
    assert cloud.clock.time == ended


def test_the_newest_batches_come_first_over_all_pages(cloud: Cloud) -> None:
    for number in range(25):
        cloud.create(f"metrics-{number}", f"m-{number}")
        cloud.clock.time += 1
    names = [batch["name"].rpartition("-")[2] for batch in cloud.batches.list()]
    assert names == [str(number) for number in reversed(range(25))]
    assert len(cloud.batches.list(limit=3)) == 3
    between = cloud.batches.list(
        since=datetime(2025, 10, 9, 8, 53, 22), before=datetime(2025, 10, 9, 8, 53, 25)
    )
    assert [batch["name"].rpartition("-")[2] for batch in between] == ["4", "3", "2"]
    assert cloud.batches.list(job="forecast_pools") == cloud.batches.list(state="FAILED") == []


def test_project_and_region_are_needed() -> None:
    with pytest.raises(ConfigurationError, match="PROJECT_ID, REGION not set"):
        Batches(load_settings(_env_file=None))
