"""Tests the log's JSON lines and its named events, and which error a failed command shows."""

from __future__ import annotations

import json
import logging
import re
import socket
from pathlib import Path

import pyspark
import pytest
from py4j.java_gateway import JavaGateway
from py4j.protocol import Py4JJavaError
from sqlalchemy import Engine

from common.errors import SparkLost, first_failure, full_message, summarize_error
from common.events import (
    EVENTS,
    JOB_EVENTS,
    METRICS_NOT_EMITTED,
    WORKFLOW_EVENTS,
    line_fields,
    log_event,
)
from common.logging_setup import JsonFormatter
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import main
from tests.support.metrics_histories import world
from tests.support.metrics_store import put
from tests.support.processes import PROJECT, CommandLineHere

PIPELINE = (PROJECT / "workflows" / "pipeline.yaml").read_text(encoding="utf-8")


class MetricsScript(CommandLineHere):
    """The metrics job's script in this process, in production and without a JVM."""

    program = str(PROJECT / "data_processing" / "calculate_pool_metrics_spark.py")
    entry = staticmethod(main)

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.environment |= {"ENVIRONMENT": "production", "EXECUTOR": "inprocess"}


@pytest.fixture
def script(processes: None, database: Settings, tmp_path: Path) -> MetricsScript:
    return MetricsScript(database, tmp_path)


def test_a_run_in_production_logs_json_lines_with_its_events(
    script: MetricsScript, engine: Engine
) -> None:
    put(engine, world(41, pools=3, days=9))
    finished = script("--batch", "metrics-0001")
    assert finished.returncode == 0, finished.stderr
    lines = [json.loads(line) for line in finished.stderr.splitlines()]
    result = json.loads(finished.stdout)
    events = {line["event"]: line for line in lines if "event" in line}
    assert {"run_started", "stage_ended", "run_succeeded"} <= events.keys()
    end = events["run_succeeded"]
    assert end["counts"] == result["rows"]
    assert (end["severity"], end["run_id"]) == ("INFO", result["run_id"])
    assert (end["job"], end["batch_id"]) == ("calculate_metrics", "metrics-0001")
    assert events.keys() <= {event.name for event in JOB_EVENTS}


def test_a_failed_run_logs_its_event_and_ends_with_the_cause(
    script: MetricsScript, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE raw_defillama_pool_history")
    finished = script()
    assert finished.returncode == 1
    lines = [json.loads(line) for line in finished.stderr.splitlines()]
    failed = next(line for line in lines if line.get("event") == "run_failed")
    last = lines[-1]
    assert (failed["severity"], last["severity"], last["event"]) == (
        "ERROR",
        "ERROR",
        "command_failed",
    )
    assert (failed["error"], failed["run_id"]) == (last["message"], last["run_id"])
    assert any("stack_trace" in line for line in lines[:-1])


def test_values_of_a_line_are_safe_and_without_passwords(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tests.log_lines")
    hostile = 'postgresql://ana:secret@db/x\x1b[31m"\n{"severity": "INFO"}'
    with line_fields(job="calculate_metrics"):
        log_event(
            logger, METRICS_NOT_EMITTED, "no: %s", hostile, error=hostile, more={1: [hostile]}
        )
        text = JsonFormatter().format(caplog.records[-1])
    assert "secret" not in text
    assert "\n" not in text
    assert "\\u001b" not in text
    line = json.loads(text)
    assert (line["event"], line["severity"], line["job"]) == (
        "metrics_not_emitted",
        "WARNING",
        "calculate_metrics",
    )


def test_the_table_has_the_events_of_the_workflow() -> None:
    in_source = set(re.findall(r"\bevent: ([a-z_]+)", PIPELINE))
    assert {event.name for event in WORKFLOW_EVENTS} == in_source


def test_names_of_events_are_unique_for_each_source() -> None:
    names = [(event.source, event.name) for event in EVENTS]
    assert len(set(names)) == len(names)


def _refused() -> None:
    """Connect to a port that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    socket.create_connection(("127.0.0.1", port))


def _work_and_clean_up(first: Exception) -> None:
    try:
        raise first
    finally:
        _refused()


@pytest.mark.parametrize("first", [SparkLost("the JVM was killed"), RuntimeError("out of memory")])
def test_the_first_failure_is_shown_and_not_the_refusal_after_it(first: Exception) -> None:
    with pytest.raises(ConnectionRefusedError) as caught:
        _work_and_clean_up(first)
    assert first_failure(caught.value) is first
    assert str(first) in summarize_error(caught.value)


@pytest.mark.usefixtures("processes")
def test_an_exception_of_a_jvm_that_has_ended_is_still_shown(jvm: Path) -> None:
    """Py4J asks the JVM for the text of its exception."""
    jars = Path(pyspark.__file__).parent / "jars"
    gateway = JavaGateway.launch_gateway(
        jarpath=str(next(jars.glob("py4j-*.jar"))), java_path=str(jvm / "bin" / "java")
    )
    try:
        with pytest.raises(Py4JJavaError) as caught:
            gateway.jvm.java.lang.Integer.parseInt("no number")
        assert "no number" in summarize_error(caught.value)
    finally:
        gateway.java_process.kill()
        gateway.java_process.wait()
    for text in summarize_error(caught.value), full_message(caught.value):
        assert text


def test_a_refusal_alone_is_shown() -> None:
    """Also where a look-up that found nothing came before, or the libraries wrap it."""
    with pytest.raises(ConnectionRefusedError) as alone:
        _refused()
    with pytest.raises(ConnectionRefusedError) as after_a_look_up:
        _work_and_clean_up(KeyError("no cached connection"))
    wrapped = OSError("max retries: Connection refused")
    wrapped.__context__ = alone.value
    for error in (alone.value, after_a_look_up.value, wrapped):
        assert first_failure(error) is error
