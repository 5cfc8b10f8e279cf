"""Tests requests to DefiLlama: retries, pauses, and failures that are not retried."""

from __future__ import annotations

import gzip
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from sqlalchemy import Engine

from common.errors import ConfigurationError, InputError, SourceUnavailable
from config_spark import Settings, load_settings
from data_processing.ingest.defillama.client import DefiLlama, retry_after_seconds
from data_processing.ingest.defillama.pull import ingest
from database.ledger.run_records import last_runs
from tests.data_processing.test_defillama import llama, pauses, settings
from tests.support.defillama_pulls import Pauses, at, days_ago, fill, point
from tests.support.defillama_server import (
    CUT,
    STALLED,
    TRUNCATED,
    DefiLlamaServer,
    Failure,
    running,
)

__all__ = ["llama", "pauses", "settings"]


def test_rejects_endless_answer_and_redirect_to_other_host(
    llama: DefiLlamaServer, pauses: Pauses
) -> None:
    bomb = gzip.compress(b"[" + b"0," * (100 * 2**20))
    assert len(bomb) < 2**20
    packed = {"Content-Encoding": "gzip"}
    llama.always |= {
        "/chart/bomb": Failure(headers=packed, body=bomb),
        "/chart/refused": Failure(status=404, headers=packed, body=bomb),
        "/chart/moved": Failure(status=302, headers={"Location": "http://elsewhere.invalid/x"}),
        "/chart/renamed": Failure(status=302, headers={"Location": "/chart/new"}),
    }
    llama.charts["new"] = [point(days_ago(1))]
    client = DefiLlama(at(llama), retry_policy=pauses.retry_policy())
    with pytest.raises(InputError, match="more than 128 MiB"):
        client.chart("bomb")
    with pytest.raises(InputError, match="answered HTTP 404") as refusal:
        client.chart("refused")
    assert len(str(refusal.value)) < 500
    with pytest.raises(InputError, match=r"redirects to http://elsewhere\.invalid, which is"):
        client.chart("moved")
    assert len(client.chart("renamed")) == 1
    assert pauses == []


@pytest.mark.parametrize(
    "failure",
    [
        CUT,
        TRUNCATED,
        STALLED,
        Failure(500),
        Failure(502),
        Failure(503),
        Failure(429),
        Failure(408),
        Failure(headers={"Content-Encoding": "gzip"}),
    ],
    ids=["cut", "truncated", "silent", "500", "502", "503", "429", "408", "not gzip"],
)
def test_transient_failure_is_retried_with_growing_pauses(
    llama: DefiLlamaServer, pauses: Pauses, failure: Failure
) -> None:
    fill(llama, "a")
    llama.failures["/chart/a"] = [failure] * 3
    client = DefiLlama(at(llama), retry_policy=pauses.retry_policy(silence=0.3))
    assert client.chart("a") == llama.charts["a"]
    client.close()
    assert [
        low <= pause <= 2 * low for low, pause in zip([0.5, 1.0, 2.0], pauses, strict=True)
    ] == [True] * 3


def test_attempts_are_bounded(llama: DefiLlamaServer, pauses: Pauses) -> None:
    llama.always["/pools"] = Failure(500)
    client = DefiLlama(at(llama), retry_policy=pauses.retry_policy(attempts=8, longest_pause=10.0))
    with pytest.raises(SourceUnavailable, match=r"HTTP 500 .*after 8 attempts"):
        client.pools()
    client.close()
    assert len(llama.requests) == 8
    assert max(pauses) <= 10.0
    assert len(pauses) == 7


def test_trickling_server_is_abandoned(llama: DefiLlamaServer, pauses: Pauses) -> None:
    fill(llama, "a")
    client = DefiLlama(at(llama), retry_policy=pauses.retry_policy(attempts=2, whole_answer=-1.0))
    with pytest.raises(SourceUnavailable, match="not whole after"):
        client.chart("a")
    client.close()


def test_retry_after_is_never_undercut(llama: DefiLlamaServer, pauses: Pauses) -> None:
    fill(llama, "a")
    date_header = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    llama.failures["/chart/a"] = [
        Failure(429, {"Retry-After": "7"}),
        Failure(503, {"Retry-After": date_header}),
        Failure(429, {"Retry-After": "?"}),
    ]
    client = DefiLlama(at(llama), retry_policy=pauses.retry_policy())
    assert client.chart("a")
    llama.failures["/chart/a"] = [Failure(429, {"Retry-After": "3600"})]
    with pytest.raises(SourceUnavailable, match="asks to wait 3600 s"):
        client.chart("a")
    client.close()
    assert 7 <= pauses[0] <= 8
    assert 60 < pauses[1] <= 101
    assert pauses[2] <= 4


def test_retry_after_takes_seconds_and_http_dates() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    seconds_of_headers = {
        None: None,
        "12": 12.0,
        "": None,
        "-3": None,
        "soon": None,
        "Thu, 01 Jan 2026 12:01:30 GMT": 90.0,
        "Thu, 01 Jan 2026 11:00:00 GMT": 0.0,
    }
    assert {
        header: retry_after_seconds(header, noon) for header in seconds_of_headers
    } == seconds_of_headers


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure(403), SourceUnavailable),
        (Failure(400), InputError),
        (Failure(302, {"Location": "/pools"}), InputError),
    ],
)
def test_permanent_refusal_is_not_retried(
    llama: DefiLlamaServer, pauses: Pauses, failure: Failure, error: type[Exception]
) -> None:
    llama.always["/pools"] = failure
    client = DefiLlama(at(llama), retry_policy=pauses.retry_policy())
    with pytest.raises(error):
        client.pools()
    client.close()
    assert pauses == []


def test_nothing_listens(database: Settings, engine: Engine, pauses: Pauses) -> None:
    with running() as gone:
        nowhere = database.model_copy(update={"defillama_yields_url": gone.url})
    with pytest.raises(SourceUnavailable, match="HTTPS_PROXY"):
        ingest(nowhere, pool_ids=["a"], retry_policy=pauses.retry_policy())
    assert last_runs(engine)["ingest"].status == "failed"


def test_concurrent_requests_are_limited(
    settings: Settings, engine: Engine, llama: DefiLlamaServer, pauses: Pauses
) -> None:
    fill(llama, *(f"p{number:02}" for number in range(12)))
    llama.meet = threading.Barrier(3)
    summary = ingest(settings, concurrency=3, retry_policy=pauses.retry_policy())
    assert summary["pools_fetched"] == 12
    assert llama.most_at_once == 3


def test_wrong_url_names_its_variable() -> None:
    with pytest.raises(ConfigurationError, match="DEFILLAMA_YIELDS_URL='yields'"):
        load_settings(_env_file=None, defillama_yields_url="yields")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("HTTPS_PROXY", "ftp://u:very-secret@h"),
        ("HTTPS_PROXY", "http://u:very-secret@[::1"),
        ("NO_PROXY", "[::1"),
        ("SSL_CERT_FILE", "/dev/null"),
        ("SSL_CERT_FILE", "/dev/null/missing.pem"),
    ],
)
def test_wrong_network_variable_is_configuration_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=r"network's variables .*HTTPS_PROXY") as caught:
        DefiLlama(load_settings(_env_file=None))
    assert "very-secret" not in str(caught.value)
