"""Malformed values in the requests of a client with the right token: every fake answers 400 in
Google's form, and never 500.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from emulator.control_plane.control_plane import ControlPlane
from emulator.control_plane.other_methods import add_other_methods
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.fake_cloud_run import FakeCloudRun
from emulator.services.fake_dataproc import FakeDataproc
from emulator.services.fake_executions import FakeExecutions
from emulator.services.fake_logging import FakeLogging
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_service import Answer, Request, Service
from emulator.services.object_store import Conditions
from emulator.services.written_lines import WrittenLine
from tests.support.dataproc_cases import PARENT, batch_request

WORKFLOW = "/v1/projects/p/locations/r/workflows/w/executions"
JOB = "/v2/projects/p/locations/r/jobs/yieldspark-forecast-pools"
EXECUTION = "projects/p/locations/r/jobs/j/executions/e"
OBJECTS = "/storage/v1/b/code/o"
COUNT = 3


@pytest.fixture
def services(tmp_path: Path) -> list[Service]:
    """The fakes of the local cloud; each list has COUNT items."""
    storage = FakeStorage(tmp_path, ["code"])
    dataproc, executions = FakeDataproc(), FakeExecutions(lambda execution, argument: argument)
    for number in range(COUNT):
        storage.store.write("code", f"{number}", b"", {"contentType": "a/b"}, Conditions(), {})
        batch = json.dumps(batch_request()).encode()
        created = dataproc.answer(
            Request("POST", f"/v1/{PARENT}/batches", {"batchId": f"batch-{number}"}, {}, batch)
        )
        assert created is not None
        assert created.status == 200
        executions.answer(Request("POST", WORKFLOW, {}, {}, b"{}"))
    lines = [(EXECUTION, WrittenLine("stdout", n, f"line {n}", float(n))) for n in range(COUNT)]
    cloud_run = FakeCloudRun(BatchScript())
    return [storage, dataproc, executions, cloud_run, FakeLogging(lambda: lines)]


def answer_of(
    services: list[Service], method: str, path: str, query: dict[str, str], body: bytes = b""
) -> Answer:
    request = Request(method, path, query, {}, body)
    answers = (service.answer(request) for service in services)
    return next(answer for answer in answers if answer is not None)


LISTS = {
    "batches": f"/v1/{PARENT}/batches",
    "operations": f"/v1/{PARENT}/operations",
    "executions": WORKFLOW,
    "objects": OBJECTS,
    "entries": "/v2/entries:list",
}
SIZE = {"objects": "maxResults"}


def listed(services: list[Service], name: str, **parameters: Any) -> Answer:
    """Return the answer of a list; `size` is the page's size under the list's own name."""
    if "size" in parameters:
        parameters[SIZE.get(name, "pageSize")] = parameters.pop("size")
    if name == "entries":
        body = json.dumps({"resourceNames": ["projects/p"], **parameters}).encode()
        return answer_of(services, "POST", LISTS[name], {}, body)
    return answer_of(services, "GET", LISTS[name], parameters)


def items_of(name: str, answer: Answer) -> list[Any]:
    assert answer.status == 200, answer.body
    return list(answer.body.get("items" if name == "objects" else name, []))


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


BAD_TOKENS = (
    *("x", "abc", "1", "-1", "99999", "%00", "ü", "²", "AAAA", "====", "\x00", "9" * 5000),
    *(encoded([-1, ["", ""]]), encoded([1, ["other", ""]]), encoded([None, ["", ""]])),
    *(encoded([True, ["", ""]]), encoded({"a": 1}), encoded("ab"), encoded([[1], ["", ""]])),
    base64.b64encode(b"\xff\xfe").decode(),
    base64.b64encode(b"[" * 3000).decode(),
)
BAD_SIZES = ("abc", "-1", "1.5", "²", "٣", " 1", "0x10", "9" * 5000, str(2**31), "1e3", "")


def assert_rejected(answer: Answer) -> None:
    """In Google's form; Cloud Storage has an older one, without a status."""
    assert answer.status == 400, answer.body
    error = answer.body["error"]
    assert (error["code"], bool(error["message"])) == (400, True)
    if "errors" in error:
        assert error["errors"][0]["reason"] == "invalid"
    else:
        assert error["status"] == "INVALID_ARGUMENT"
    assert len(error["message"]) <= 500


@pytest.mark.parametrize("name", LISTS)
def test_lists_reject_other_tokens_and_sizes(name: str, services: list[Service]) -> None:
    for token in BAD_TOKENS:
        assert_rejected(listed(services, name, pageToken=token))
    for size in BAD_SIZES:
        assert_rejected(listed(services, name, size=size))
    assert len(items_of(name, listed(services, name))) == COUNT


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_paged_and_limit_the_size(name: str, services: list[Service]) -> None:
    token, seen = "", []
    for _ in range(COUNT):
        page = listed(services, name, size="1", **({"pageToken": token} if token else {}))
        seen += items_of(name, page)
        token = page.body.get("nextPageToken", "")
    assert token == ""
    assert seen == items_of(name, listed(services, name))
    assert len(items_of(name, listed(services, name, size="0"))) == COUNT
    if name == "entries":
        assert_rejected(listed(services, name, size="1001"))
    else:
        assert len(items_of(name, listed(services, name, size=str(2**31 - 1)))) == COUNT


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("batches", {"filter": "state=PENDING"}),
        ("executions", {"orderBy": "createTime"}),
        ("objects", {"delimiter": "/"}),
        ("entries", {"filter": 'severity="ERROR"'}),
    ],
)
def test_a_token_is_valid_for_its_own_list(
    name: str, other: dict[str, str], services: list[Service]
) -> None:
    token = listed(services, name, size="1").body["nextPageToken"]
    assert len(items_of(name, listed(services, name, pageToken=token))) == COUNT - 1
    assert_rejected(listed(services, name, pageToken=token, **other))


@pytest.mark.parametrize(
    "fields",
    [
        {"pageSize": [1]},
        {"pageSize": True},
        {"pageSize": 2**70},
        {"pageToken": 5},
        {"pageToken": {"a": 1}},
        {"orderBy": ["timestamp"]},
        {"orderBy": "severity"},
        {"filter": ["a"]},
        {"filter": 'timestamp>="yesterday"'},
        {"filter": 'timestamp>="2025-10-09"'},
        {"filter": 'timestamp>="2025-10-09T08:53:20"'},
        {"resourceNames": "projects/p"},
        {"resourceNames": 5},
    ],
)
def test_log_rejects_values_of_another_type(
    fields: dict[str, Any], services: list[Service]
) -> None:
    assert_rejected(listed(services, "entries", **fields))


@pytest.mark.parametrize(
    "filter_text",
    ['create_time>="2025-10-09"', 'create_time>"2025-10-09T08:53:20"', "create_time<x"],
)
def test_batches_reject_times_without_a_zone(filter_text: str, services: list[Service]) -> None:
    assert_rejected(listed(services, "batches", filter=filter_text))


@pytest.mark.parametrize(
    "overrides",
    [
        5,
        {"containerOverrides": 5},
        {"containerOverrides": ["x"]},
        {"containerOverrides": [{"args": ["x"]}, "y"]},
        {"containerOverrides": [{"args": 5}]},
        {"containerOverrides": [{"env": {"a": "b"}}]},
        {"containerOverrides": [{"env": ["a=b"]}]},
        {"timeout": "soon"},
        {"timeout": 600},
        {"timeout": "infs"},
    ],
)
def test_cloud_run_rejects_other_overrides(overrides: Any, services: list[Service]) -> None:
    body = json.dumps({"overrides": overrides}).encode()
    assert_rejected(answer_of(services, "POST", f"{JOB}:run", {}, body))


@pytest.mark.parametrize("value", ["9" * 5000, "²", "x", "1.5", ""])
@pytest.mark.parametrize("name", ["generation", "ifGenerationMatch"])
def test_storage_rejects_other_numbers(name: str, value: str, services: list[Service]) -> None:
    assert_rejected(answer_of(services, "GET", f"{OBJECTS}/0", {name: value}))


def test_storage_ignores_an_unreadable_range(services: list[Service]) -> None:
    for limits in (f"bytes={'9' * 5000}-", "bytes=²-", "bytes=a-b"):
        request = Request("GET", f"{OBJECTS}/0", {"alt": "media"}, {"range": limits}, b"")
        answer = services[0].answer(request)
        assert answer is not None
        assert answer.status == 200


@pytest.mark.parametrize(
    ("metadata", "part_type"),
    [(b"no JSON", b""), (b"[1]", b""), (b'{"name": "\\ud800"}', b""), (b"{}", b"\xff\xfe")],
)
def test_storage_rejects_unreadable_metadata(
    metadata: bytes, part_type: bytes, services: list[Service]
) -> None:
    body = b"--b\r\n\r\n%b\r\n--b\r\nContent-Type: %b\r\n\r\nx\r\n--b--" % (metadata, part_type)
    headers = {"content-type": "multipart/related; boundary=b"}
    request = Request("POST", f"/upload{OBJECTS}", {"uploadType": "multipart"}, headers, body)
    answer = services[0].answer(request)
    assert answer is not None
    assert answer.status == 400


def test_control_plane_rejects_other_versions_and_users() -> None:
    plane = ControlPlane("p", ("secretmanager.googleapis.com", "sqladmin.googleapis.com"))
    add_other_methods(plane)
    secret = "/v1/projects/p/secrets"
    body = json.dumps({"replication": {"automatic": {}}}).encode()
    created = plane.answer(Request("POST", secret, {"secretId": "s"}, {}, body))
    assert created is not None
    assert created.status == 200
    for version in ("x", "-1", "²", "9" * 5000):
        path = f"{secret}/s/versions/{quote(version)}:access"
        answer = plane.answer(Request("GET", path, {}, {}, b""))
        assert answer is not None
        assert answer.status == 404, version
    users = "/sql/v1beta4/projects/p/instances/i/users"
    answer = plane.answer(Request("PUT", users, {}, {}, b"{}"))
    assert answer is not None
    assert answer.status == 400
