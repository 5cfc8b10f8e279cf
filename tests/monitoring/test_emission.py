"""Tests the time series of runs: jobs without a JVM against a gRPC fake of Cloud Monitoring."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from common.errors import CloudRefused, ConfigurationError
from config_spark import Settings
from monitoring import emission
from monitoring.cloud_monitoring import CloudMonitoringEmitter
from monitoring.series import ROWS, SERIES, STAGE_SECONDS, Point
from tests.support.metrics_histories import world
from tests.support.metrics_store import put, rows_of
from tests.support.monitoring_series import (
    PROJECT,
    cloud_monitoring,
    terraform_descriptors,
    value,
)
from tests.support.processes import PROJECT as CHECKOUT
from tests.support.processes import CommandLineHere

METRICS = "calculate_metrics"

pytestmark = pytest.mark.usefixtures("processes")


def test_a_run_writes_what_its_ledger_row_has(run_here: CommandLineHere, engine: Engine) -> None:
    put(engine, world(51, pools=4, days=12))
    with cloud_monitoring(run_here) as fake:
        row = run_here.json(METRICS)
    for kind, count in row["rows"].items():
        assert value(fake, "rows", METRICS, kind) == count
    for stage, seconds in row["stages"].items():
        assert value(fake, "stage_seconds", METRICS, stage) == seconds
    assert value(fake, "job_duration_seconds", METRICS, "succeeded") == row["seconds"]
    share = row["rows"]["quarantined"] / row["rows"]["read"]
    assert value(fake, "quarantine_share", METRICS) == share
    owners = fake.series("custom.googleapis.com/dataproc/job_duration")
    assert [points[-1][1] for points in owners.values()] == [row["seconds"]]
    (newest,) = rows_of(
        engine, "SELECT max(last_observed_day) AS day FROM yieldspark.pool_coverage"
    )
    days = (datetime.now(UTC).date() - newest["day"]).days - 1
    assert days * 86_400 <= value(fake, "data_age_seconds", METRICS) < (days + 2) * 86_400
    assert fake.calls == [len(fake.points)]


def test_a_failed_run_writes_its_duration_and_status(
    run_here: CommandLineHere, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE raw_defillama_pool_history")
    with cloud_monitoring(run_here) as fake:
        row = run_here.json(METRICS, code=1)
    assert row["status"] == "failed"
    assert value(fake, "job_duration_seconds", METRICS, "failed") == row["seconds"]


def test_a_dry_run_and_the_default_emitter_write_nothing(
    run_here: CommandLineHere, engine: Engine
) -> None:
    put(engine, world(52, pools=2, days=5))
    with cloud_monitoring(run_here) as fake:
        run_here.json(METRICS, "--dry-run")
        del run_here.environment["MONITORING_EMITTER"]
        run_here.json(METRICS)
    assert fake.calls == []


def test_points_go_to_the_log(run_here: CommandLineHere) -> None:
    finished = run_here(METRICS, EXECUTOR="inprocess", MONITORING_EMITTER="log")
    assert finished.returncode == 0
    assert f"job_duration_seconds({METRICS}, nothing_to_do)=" in finished.stderr


def _closed_port() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"MONITORING_ENDPOINT": _closed_port()}, "Google Cloud does not answer"),
        ({"PROJECT_ID": ""}, "PROJECT_ID not set"),
        (
            {"MONITORING_ENDPOINT": "", "GOOGLE_API_ENDPOINT": "http://127.0.0.1:9"},
            "MONITORING_ENDPOINT is not set",
        ),
    ],
)
def test_a_run_succeeds_without_the_service(
    variables: dict[str, str], reason: str, run_here: CommandLineHere
) -> None:
    with cloud_monitoring(run_here):
        finished = run_here(METRICS, **variables)
    assert finished.returncode == 0
    assert "the points of the run were not all written" in finished.stderr
    assert reason in " ".join(finished.stderr.split())


def test_a_slow_service_does_not_hold_up_the_run(
    run_here: CommandLineHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service answers after a minute; pytest's own timeout would see the minute."""
    monkeypatch.setattr(emission, "EMISSION_SECONDS", 0.5)
    with cloud_monitoring(run_here, delay_seconds=60.0):
        finished = run_here(METRICS)
        assert finished.returncode == 0
        assert "not all written" in finished.stderr


def test_an_interrupt_while_points_are_written_ends_the_wait(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """The run is over: its result is still printed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    released = threading.Event()

    def interrupt_and_wait(now: datetime) -> list[Point]:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        released.wait()
        return []

    emission.emit_points(
        settings.model_copy(update={"monitoring_emitter": "log"}), interrupt_and_wait
    )
    released.set()
    assert "not all written: interrupted" in caplog.text


def test_a_token_of_the_emulator_is_sent(run_here: CommandLineHere, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-token", encoding="ascii")
    emulator = {
        "GOOGLE_API_ENDPOINT": "http://127.0.0.1:9",
        "GOOGLE_API_TOKEN_FILE": str(token),
    }

    def refusal(authorization: str) -> str | None:
        return None if authorization == "Bearer secret-token" else "no valid credentials"

    with cloud_monitoring(run_here, refusal=refusal) as fake:
        with_token = run_here(METRICS, **emulator)
        assert value(fake, "job_duration_seconds", METRICS, "nothing_to_do") >= 0
        without = run_here(METRICS)
    assert "secret-token" not in with_token.stderr + without.stderr
    assert "no valid credentials" in without.stderr


@pytest.fixture
def settings(database: Settings) -> Settings:
    return database.model_copy(update={"project_id": PROJECT})


def test_more_than_200_points_go_in_several_calls(
    run_here: CommandLineHere, settings: Settings
) -> None:
    points = [Point(ROWS, ("job", f"kind{number}"), number) for number in range(450)]
    with cloud_monitoring(run_here) as fake:
        endpoint = run_here.environment["MONITORING_ENDPOINT"]
        emitter = CloudMonitoringEmitter(
            settings.model_copy(update={"monitoring_endpoint": endpoint})
        )
        emitter.emit(points, datetime.now(UTC), 5.0)
        assert fake.calls == [200, 200, 50]
        with pytest.raises(CloudRefused, match="more than 25 hours ago"):
            emitter.emit(points[:1], datetime(2020, 1, 1, tzinfo=UTC), 5.0)


def test_the_emitter_never_takes_google_beside_an_emulator(settings: Settings) -> None:
    emulated = settings.model_copy(update={"google_api_endpoint": "http://127.0.0.1:9"})
    with pytest.raises(ConfigurationError, match="MONITORING_ENDPOINT"):
        CloudMonitoringEmitter(emulated)


LABELS = {"engine", "horizon_days", "job", "job_name", "kind", "stage", "status", "target"}


def test_labels_are_few_and_terraform_has_every_series() -> None:
    assert set().union(*(series.labels for series in SERIES)) == LABELS
    assert terraform_descriptors().keys() == {series.type for series in SERIES}


def test_stages_are_constants_of_the_code() -> None:
    """A stage is a label's value: a name that is made at run time would be unbounded."""
    assert STAGE_SECONDS.labels == ("job", "stage")
    for folder in ("data_processing", "forecasting"):
        for path in (CHECKOUT / folder).rglob("*.py"):
            for argument in re.findall(r"\bstage\(([^)]*)\)", path.read_text(encoding="utf-8")):
                is_type = "Callable" in argument or ":" in argument
                assert is_type or json.loads(argument), f"{path}: stage({argument})"
