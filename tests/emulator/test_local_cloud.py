"""Tests the emulated cloud as a user starts it. test_readme.py compares the rows of `local run`
with the command line's.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from config_spark import Settings
from database.connections.engine import make_engine
from emulator.services.batch_process import LocalPlatform
from tests.support.dataproc_cases import WorkflowsHere
from tests.support.fault_runs import until
from tests.support.metrics_store import execute, rows_of
from tests.support.processes import PROJECT, environment_of


def _cloud(settings: Settings, folder: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """Run `python -m workflows ..` on this database, with a home of its own, outside the checkout's
    folder.
    """
    variables = environment_of(settings) | {
        "YIELDSPARK_HOME": str(folder / "home"),
        "PYTHONPATH": str(PROJECT),
        **more,
    }
    command = [sys.executable, "-m", "workflows", *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _document(process: subprocess.Popen[str], code: int = 0) -> Any:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == code, output + errors
    return json.loads(output)


@contextmanager
def _local_cloud(settings: Settings, folder: Path) -> Iterator[dict[str, str]]:
    """Yield the variables of a local cloud that runs as a process."""
    process = _cloud(settings, folder, "local", "up", "--port", "0", "--json")
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or lines[-1] != "}\n":
        lines.append(process.stdout.readline())
        assert lines[-1], process.communicate()[1]
    try:
        yield json.loads("".join(lines))["variables"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


OWNERS_ROWS = """
    INSERT INTO pools (pool_id, name, chain, protocol, symbol)
    SELECT pool, pool, 'Base', 'aave-v3', 'USDC' FROM unnest(CAST(:pools AS text[])) AS pool;

    INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)
    SELECT pool, day + interval '23 hours',
        jsonb_build_object(
            'apy', 5 + sin(extract(epoch FROM day)::bigint / 86400 / number),
            'tvlUsd', 2000000 + 1000 * number
        )
    FROM unnest(CAST(:pools AS text[])) WITH ORDINALITY AS asked (pool, number),
        generate_series(
            date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '40 days',
            date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '1 day',
            interval '1 day'
        ) AS day
"""


def test_a_container_and_a_batch_write_the_owners_tables_and_no_password_is_shown_or_kept(
    restricted: Settings, owner_tables: Settings, tmp_path: Path
) -> None:
    """With the documented rights.

    Takes over 20 s on two busy cores: a release, and both jobs as processes, the container with a
    JVM. Three pools are too few for a model, so their forecasts are fallbacks.
    """
    pools = ["pool-1", "pool-2", "pool-3"]
    execute(make_engine(owner_tables), OWNERS_ROWS, pools=pools)
    options = ["--platform", "forecast_pools=cloud_run", "--engine", "lightgbm", "--json"]
    # test_readme.py and test_terraform_apply.py run batches that start a JVM
    process = _cloud(restricted, tmp_path, "local", "run", *options, EXECUTOR="inprocess")
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, output + errors
    document = json.loads(output)
    result = document["result"]
    points = {
        (point["type"].rpartition("/")[2], *point["labels"].values()): point["value"]
        for point in document["series"]
    }
    assert 0 < points["data_age_seconds", "calculate_metrics"] < 2 * 86_400
    assert points["rows", "calculate_metrics", "read"] == 120
    assert points["job_duration_seconds", "forecast_pools", "succeeded"] > 0
    assert result["validation"]["state"] == "SUCCEEDED", errors
    steps = result["steps"]
    assert [(step["job"], step["platform"], step["state"]) for step in steps] == [
        ("calculate_metrics", "dataproc", "SUCCEEDED"),
        ("forecast_pools", "cloud_run", "SUCCEEDED"),
    ]
    metrics = rows_of(
        make_engine(owner_tables),
        "SELECT count(actual_apy) AS days, count(forecasted_apy) AS forecasts, count(DISTINCT"
        " pool_id) AS pools FROM pool_daily_metrics",
    )
    assert metrics == [{"days": 120, "forecasts": 3, "pools": 3}]
    assert restricted.db_password is not None
    password = restricted.db_password.get_secret_value()
    files_with_password = [
        path
        for path in (tmp_path / "home").rglob("*")
        if path.is_file() and password.encode() in path.read_bytes()
    ]
    assert files_with_password == []
    assert password not in output + errors


def test_commands_work_on_a_running_emulator(database: Settings, tmp_path: Path) -> None:
    with _local_cloud(database, tmp_path) as variables:
        second = _document(_cloud(database, tmp_path, "local", "run", "--json"), code=2)
        assert f"another local cloud uses {tmp_path / 'home' / 'cloud'}: end it" in second["error"]
        assert database.db_password is not None
        assert database.db_password.get_secret_value() not in json.dumps(variables)
        present = tmp_path / "operator"
        present.mkdir()
        (present / ".env").write_text(
            "".join(f"{name}={value}\n" for name, value in variables.items())
        )
        variables_here = environment_of(database) | {"YIELDSPARK_HOME": str(present / "home")}
        workflows = WorkflowsHere(present, variables_here)
        released = workflows.json("release", "--allow-dirty")
        assert [row["version"] for row in workflows.json("versions")] == [released["version"]]
        batch = workflows.json("submit", "calculate_metrics", "--dry-run", "--rows", "5")
        assert batch["batch"]["pysparkBatch"]["mainPythonFileUri"].startswith(
            f"gs://{variables['CODE_BUCKET']}/versions/{released['version']}/"
        )
        assert workflows.json("list")["batches"] == []


@pytest.mark.usefixtures("processes")
def test_java_of_a_job_has_the_options_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the class archive of the other JVMs. The job's own options come last, and count."""
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "-Xshare:off")
    entry = tmp_path / "entry.py"
    entry.write_text("import os\n\nprint(os.environ['SPARK_SUBMIT_OPTS'])\n")
    platform = LocalPlatform(tmp_path, "http://127.0.0.1:1", None)
    job = platform.run_container(entry, [], {}, "job-1")
    until(lambda: job.poll() is not None, "the job has ended")
    home = tmp_path / "batches" / "job-1" / "home"
    assert job.output.read_text() == f"-Xshare:off -Duser.home={home}\n"
