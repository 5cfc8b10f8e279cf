"""Tests Spark's event logs, and `history` on them: Spark's own history server as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from config_spark import Settings, load_settings
from spark.event_logs import event_log_conf, event_log_folder, event_logs
from tests.support.metrics_histories import world
from tests.support.metrics_store import put
from tests.support.processes import PROJECT, CommandLine, CommandLineHere

DAY = 86_400


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def applications(port: int, path: str = "") -> Any:
    address = f"http://127.0.0.1:{port}/api/v1/applications{path}"
    with urllib.request.urlopen(address, timeout=60) as response:
        return json.loads(response.read())


def listeners(port: int) -> list[str]:
    """Return the IPv4 and IPv6 addresses that listen at a port, as Linux writes them."""
    rows: list[list[str]] = []
    for name in ("tcp", "tcp6"):
        rows += map(str.split, Path(f"/proc/net/{name}").read_text().splitlines()[1:])
    listening = [row[1] for row in rows if row[3] == "0A"]
    return [address for address in listening if address.endswith(f":{port:04X}")]


def test_a_run_with_spark_is_in_the_history(run: CommandLine, engine: Engine) -> None:
    """Two JVMs, of a job and of the history server: 20 s on two busy cores."""
    put(engine, world(61, pools=3, days=10))
    row = run.json("calculate_metrics", EXECUTOR="spark")
    (log,) = event_logs(Path(run.environment["YIELDSPARK_HOME"]) / "spark-events")
    assert not log.name.endswith(".inprogress")
    assert run.environment["DB_PASSWORD"].encode() not in log.read_bytes()
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, str(PROJECT / "run_spark_local.py"), "history", "--port", str(port)],
        cwd=run.folder,
        env=run.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        line = server.stderr.readline()
        assert f"the history of 1 Spark session is at http://127.0.0.1:{port}" in line
        (application,) = applications(port)
        assert application["name"] == "calculate_metrics"
        jobs = applications(port, f"/{application['id']}/jobs")
        assert row["run_id"] in {job.get("jobGroup") for job in jobs}
        # 127.0.0.1, and the same address as IPv6 has it
        assert all("0100007F:" in address for address in listeners(port))
        assert len(listeners(port)) == 1
        second = run("history", "--port", str(port))
        assert second.returncode == 2
        assert f"can't listen at 127.0.0.1, port {port}" in second.stderr
    finally:
        server.send_signal(signal.SIGINT)
        errors = server.communicate(timeout=60)[1]
    assert (server.returncode, "Traceback" in errors) == (0, False)
    assert listeners(port) == []


def test_a_home_without_logs_is_named(run_here: CommandLineHere) -> None:
    finished = run_here("history")
    assert finished.returncode == 2
    assert "there are no event logs in " in finished.stderr
    assert "EXECUTOR=spark" in finished.stderr


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(_env_file=None, yieldspark_home=tmp_path, spark_event_logs=3)


def put_logs(settings: Settings, *days_old: float) -> None:
    folder = event_log_folder(settings)
    folder.mkdir(parents=True)
    now = folder.stat().st_mtime
    for number, days in enumerate(days_old):
        log = folder / f"local-{number}"
        log.touch()
        os.utime(log, (now - days * DAY, now - days * DAY))


def kept(settings: Settings) -> list[str]:
    return [path.name for path in event_logs(event_log_folder(settings))]


def test_old_logs_are_deleted_before_a_session(settings: Settings) -> None:
    """One fewer than SPARK_EVENT_LOGS, for the session's own; none of SPARK_EVENT_LOG_DAYS."""
    put_logs(settings, 5, 1, 3, 2)
    conf = event_log_conf(settings)
    assert conf["spark.eventLog.dir"] == event_log_folder(settings).as_uri()
    assert event_log_folder(settings).stat().st_mode & 0o077 == 0
    assert kept(settings) == ["local-1", "local-3"]
    event_log_conf(settings.model_copy(update={"spark_event_log_days": 2}))
    assert kept(settings) == ["local-1"]


def test_no_log_is_written_without_the_setting_or_in_production(settings: Settings) -> None:
    put_logs(settings, 1)
    production = settings.model_copy(update={"environment": "production"})
    assert (event_log_conf(production), kept(settings)) == ({}, ["local-0"])
    none = settings.model_copy(update={"spark_event_logs": 0})
    assert (event_log_conf(none), kept(settings)) == ({}, [])
