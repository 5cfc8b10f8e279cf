"""Tests HTTP in the workflow interpreter: requests and responses in Google's form, errors, retries,
and rejected hosts and calls.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from common.errors import ConfigurationError
from emulator.services.http_server import serving
from emulator.services.http_service import Answer, ApiError, Request, Service
from emulator.workflow_engine import VirtualClock, WorkflowFailed
from tests.support.small_workflows import run


class Echo(Service):
    """Answers with the request; /busy fails twice, /text and /broken are no JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = 2
        self.route("POST", "/echo", self.echo)
        self.route("GET", "/busy", self.is_busy)
        self.route(
            "GET", "/text", lambda request: Answer(b"plain", headers={"content-type": "text/plain"})
        )
        self.route(
            "GET",
            "/broken",
            lambda request: Answer(b"{", headers={"content-type": "application/json"}),
        )

    def echo(self, request: Request) -> Answer:
        return Answer(
            {
                "query": dict(request.query),
                "json": request.json(),
                "type": request.headers.get("content-type"),
            }
        )

    def is_busy(self, request: Request) -> Answer:
        self.busy -= 1
        if self.busy >= 0:
            raise ApiError(503, "come back")
        return Answer({"fine": True})


@pytest.fixture
def address() -> Iterator[str]:
    with serving([Echo()]) as actual:
        yield actual


RETRY = """
main:
  steps:
    - ask:
        try:
          call: http.get
          args: {url: "https://x.googleapis.com/PATH", auth: {type: OAuth2}, timeout: 5}
          result: answer
        retry:
          predicate: ${again}
          max_retries: 3
          backoff: {initial_delay: 2, max_delay: 5, multiplier: 2}
    - done:
        return: ${answer.body}
again:
  params: [e]
  steps:
    - look:
        switch:
          - condition: ${default(map.get(e, "code"), 0) == 503}
            return: true
          - condition: ${"ConnectionFailedError" in e.tags}
            return: true
    - no_more:
        return: false
"""


def test_a_retry_waits_longer_each_time_up_to_its_longest(address: str) -> None:
    clock = VirtualClock()
    assert run(RETRY.replace("PATH", "busy"), address=address, clock=clock) == {"fine": True}
    assert clock.slept == [2, 4]
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(WorkflowFailed) as caught:
            run(
                RETRY.replace("PATH", "busy"),
                address=f"http://127.0.0.1:{unused.getsockname()[1]}",
                clock=clock,
            )
    assert caught.value.payload["tags"] == ["ConnectionFailedError"]
    assert clock.slept == [2, 4, 2, 4, 5]
    with pytest.raises(WorkflowFailed) as caught:
        run(RETRY.replace("PATH", "missing"), address=address, clock=clock)
    assert {**caught.value.payload, "headers": None} == {
        "tags": ["HttpError"],
        "code": 404,
        "headers": None,
        "message": "HTTP server responded with error code 404",
        "body": {
            "error": {
                "code": 404,
                "message": "GET /missing is no method of a service here",
                "status": "NOT_FOUND",
            }
        },
    }
    assert clock.slept == [2, 4, 2, 4, 5]


def test_a_request_carries_query_and_json_and_its_answer_is_decoded(address: str) -> None:
    source = """
        main:
          steps:
            - ask:
                call: http.post
                args:
                  url: https://x.googleapis.com/echo?a=1
                  auth: {type: OAuth2}
                  query: {b: "x y", m: 5, t: true}
                  body: {deep: [1, null, "ü"]}
                result: answer
            - plain:
                call: http.get
                args: {url: "https://x.googleapis.com/text"}
                result: text_answer
            - done:
                return: [
                    "${answer.code}",
                    "${answer.body}",
                    "${text_answer.body}",
                    "${text_answer.headers[\\"Content-Type\\"]}"
                  ]
        """
    requests = {
        "query": {"a": "1", "b": "x y", "m": "5", "t": "true"},
        "json": {"deep": [1, None, "ü"]},
        "type": "application/json",
    }
    assert run(source, address=address) == [200, requests, "plain", "text/plain"]


def test_answers_and_connections_that_break_are_errors_of_the_workflow(address: str) -> None:
    with pytest.raises(WorkflowFailed) as caught:
        run(RETRY.replace("PATH", "broken"), address=address)
    assert caught.value.payload["tags"] == ["ValueError"]
    with pytest.raises(WorkflowFailed, match=r"timeout 5000 is over 1800\.0 s"):
        run(RETRY.replace("PATH", "busy").replace("timeout: 5", "timeout: 5000"), address=address)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(WorkflowFailed) as caught:
            run(
                RETRY.replace("PATH", "busy").replace("timeout: 5", "timeout: 0.05"),
                address=f"http://127.0.0.1:{silent.getsockname()[1]}",
            )
    assert caught.value.payload["tags"] == ["TimeoutError"]


@pytest.mark.parametrize(
    ("replaced", "by", "message"),
    [
        ("https://x.googleapis.com/PATH", "https://example.com/", "no address of Google Cloud"),
        ("https://x.googleapis.com/PATH", "http://x.googleapis.com/", "no address of Google Cloud"),
        ("OAuth2", "OIDC", "type OAuth2"),
        ("timeout: 5", "tmeout: 5", "http.get: got an unexpected keyword argument 'tmeout'"),
        (
            "call: http.get",
            "call: googleapis.dataproc.v1.projects.locations.batches.create",
            "can't be called here",
        ),
        ("predicate: ${again}", "predicate: ${http.default_retry_predicate}", "is no subworkflow"),
    ],
)
def test_calls_outside_the_subset_are_refused(
    replaced: str, by: str, message: str, address: str
) -> None:
    assert replaced in RETRY
    with pytest.raises(ConfigurationError, match=message):
        run(
            (
                RETRY.replace(replaced, by).replace("PATH", "missing")
                if "predicate" not in replaced
                else RETRY.replace(replaced, by)
            ),
            address=address,
        )
