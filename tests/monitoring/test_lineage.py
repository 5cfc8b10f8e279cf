"""Tests the OpenLineage events of runs: a local HTTP server and a file receive them."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Engine

from config_spark import load_settings
from database.schema.owner_tables import METRIC_COLUMNS
from monitoring import lineage
from tests.support.lineage_types import assert_is_event
from tests.support.metrics_histories import world
from tests.support.metrics_store import execute, put
from tests.support.processes import CommandLineHere

METRICS = "calculate_metrics"
KEY = "planted-openlineage-key"
EXECUTION = "3c1f6f0e-2b57-4a3a-9b7a-0f4e9a1d2c3b"
BASE = "https://openlineage.io/spec"

pytestmark = pytest.mark.usefixtures("processes")


@contextmanager
def receiver(status: int = 200) -> Iterator[tuple[str, list[tuple[str, str, dict[str, Any]]]]]:
    """Serve an OpenLineage receiver; yields its address, and path, authorization and event of each
    request.
    """
    received: list[tuple[str, str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            authorization = self.headers.get("Authorization", "")
            received.append((self.path, authorization, json.loads(body)))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def job(run_here: CommandLineHere) -> CommandLineHere:
    run_here.environment |= {"EXECUTOR": "inprocess"}
    return run_here


def dataset(datasets: list[dict[str, Any]], table: str) -> dict[str, Any]:
    (found,) = [entry for entry in datasets if entry["name"].endswith(f".{table}")]
    return found


def test_a_run_sends_start_and_complete(job: CommandLineHere, engine: Engine) -> None:
    put(engine, world(71, pools=3, days=8))
    with receiver() as (url, received):
        row = job.json(
            METRICS, "--batch", f"metrics-{EXECUTION}", OPENLINEAGE_URL=url, OPENLINEAGE_API_KEY=KEY
        )
    assert [(path, key) for path, key, _ in received] == [("/api/v1/lineage", f"Bearer {KEY}")] * 2
    start, end = (event for _, _, event in received)
    for event in (start, end):
        assert_is_event(event)
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert datetime.fromisoformat(start["eventTime"]) <= datetime.fromisoformat(end["eventTime"])
    assert start["run"]["runId"] == end["run"]["runId"]
    assert uuid.UUID(end["run"]["runId"]).version == 5
    assert (end["job"]["namespace"], end["job"]["name"]) == ("yieldspark", METRICS)
    facets = end["run"]["facets"]
    assert facets["nominalTime"]["nominalStartTime"] == f"{row['start']}T00:00:00+00:00"
    assert facets["nominalTime"]["nominalEndTime"] == f"{row['end']}T00:00:00+00:00"
    assert facets["processing_engine"]["name"] == "python"
    assert facets["parent"]["run"]["runId"] == EXECUTION
    assert facets["parent"]["job"]["name"] == "yieldspark-pipeline"
    tags = {tag["key"]: tag["value"] for tag in facets["tags"]["tags"]}
    assert tags == {"run_id": row["run_id"], "status": "succeeded", "mode": row["mode"]}
    raw = dataset(end["inputs"], "raw_defillama_pool_history")
    assert raw["namespace"] == f"postgres://{engine.url.host}:{engine.url.port}"
    assert raw["name"] == f"{engine.url.database}.public.raw_defillama_pool_history"
    assert raw["inputFacets"]["inputStatistics"]["rowCount"] == row["rows"]["read"]
    metrics = dataset(end["outputs"], "pool_daily_metrics")
    written = row["rows"]["inserted"] + row["rows"]["updated"]
    assert metrics["outputFacets"]["outputStatistics"]["rowCount"] == written
    fields = {entry["name"]: entry["type"] for entry in metrics["facets"]["schema"]["fields"]}
    assert fields == {"pool_id": "TEXT", "date": "DATE"} | {
        name: fields[name] for name in METRIC_COLUMNS
    }
    assert fields["rolling_apy_7d"] == "NUMERIC(20, 4)"
    # every facet and event names the schema that it keeps to
    schemas = [event["schemaURL"] for event in (start, end)]
    schemas += [facet["_schemaURL"] for facet in facets.values()]
    assert all(address.startswith(BASE) for address in schemas)
    password = job.environment["DB_PASSWORD"]
    assert not any(secret in json.dumps(received[0][2]) for secret in (password, KEY))
    assert not any(secret in json.dumps(received[1][2]) for secret in (password, KEY))


def test_a_failed_run_sends_its_error_to_a_file(
    job: CommandLineHere, engine: Engine, tmp_path: Path
) -> None:
    put(engine, world(71, pools=3, days=8))
    execute(engine, "ALTER TABLE raw_coinmarketcap_ohlcv RENAME COLUMN raw_json_data TO payload")
    events = tmp_path / "lineage of runs.jsonl"
    row = job.json(METRICS, code=1, OPENLINEAGE_URL=events.as_uri(), OPENLINEAGE_NAMESPACE="acme")
    start, end = map(json.loads, events.read_text().splitlines())
    for event in (start, end):
        assert_is_event(event)
    assert (start["eventType"], end["eventType"]) == ("START", "FAIL")
    assert end["job"]["namespace"] == "acme"
    error = end["run"]["facets"]["errorMessage"]
    assert (error["message"], error["programmingLanguage"]) == (row["error"], "PYTHON")
    assert "outputFacets" not in dataset(end["outputs"], "pool_daily_metrics")


def test_a_receiver_that_fails_changes_no_run(job: CommandLineHere, engine: Engine) -> None:
    put(engine, world(71, pools=3, days=8))
    with receiver(status=500) as (url, received):
        finished = job(METRICS, OPENLINEAGE_URL=url)
    assert finished.returncode == 0
    assert "the lineage events of the run were not all sent: " in finished.stderr
    assert "Traceback" not in finished.stderr
    # the end of a run whose START is lost is not sent
    assert len(received) == 1
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        finished = job(METRICS, OPENLINEAGE_URL=address)
    assert finished.returncode == 0
    # the call's own limit, or that of both events
    assert f"{address} did not take an event" in finished.stderr or "not done" in finished.stderr


def test_a_missing_package_is_one_sentence(
    job: CommandLineHere, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(engine, world(71, pools=3, days=8))
    monkeypatch.setattr(lineage, "PACKAGE", "package_that_is_not_installed")
    finished = job(METRICS, OPENLINEAGE_URL="http://127.0.0.1:1")
    assert finished.returncode == 0
    assert "openlineage-python is not installed" in finished.stderr
    assert "requirements-lineage.txt" in finished.stderr


@pytest.mark.parametrize("url", ["http://user:secret@collector", "collector", "file://host"])
def test_other_addresses_are_refused(url: str, job: CommandLineHere) -> None:
    finished = job(METRICS, OPENLINEAGE_URL=url)
    assert finished.returncode == 2
    assert "OPENLINEAGE_URL" in finished.stderr
    assert "secret" not in finished.stderr


def test_the_key_is_hidden() -> None:
    settings = load_settings(_env_file=None, openlineage_api_key=KEY)
    assert KEY not in repr(settings)
