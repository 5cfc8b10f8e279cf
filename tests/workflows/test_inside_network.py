"""Tests an operator's work in the private network, from an empty database to costs in the ledger,
by containers that really run.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import typer
from sqlalchemy import Engine

from common.jobs import job_names
from config_spark import Settings
from database.db_utils_spark import execute_sql
from emulator.services.alert_conditions import counted_entries
from emulator.services.fake_monitoring import Key, StoredPoint
from tests.support.alert_conditions import LOG_METRICS, firing
from tests.support.dataproc_cases import batch_request
from tests.support.defillama_server import DefiLlamaServer, running
from tests.support.good_days import FIRST
from tests.support.inside_network import VERSION, Network, network
from tests.support.validated_runs import LAST, put_daily_run
from workflows.clients.dataproc import Batches
from workflows.clients.executions import ExecutionNotSucceeded
from workflows.commands.run_commands import require_validation, run_pipeline
from workflows.costs.cost import actual_cost
from workflows.inside_network import container_runs
from workflows.inside_network.container_log import Line
from workflows.inside_network.container_runs import run_container
from workflows.spec.release_paths import CONTAINER_ARGUMENTS, COSTS_JOB, INGEST_JOB

EMPTY = """
    DROP SCHEMA yieldspark CASCADE;
    DROP SCHEMA public CASCADE;
    CREATE SCHEMA public
"""

RAN = """
    INSERT INTO yieldspark.run_ledger
        (run_id, job, status, code_version, rows, stages, checks, batch_id)
    VALUES ('run-1', 'calculate_metrics', 'succeeded', '1', '{}', '{}', '[]', 'metrics-1')
"""

POOL = {
    "pool": "pool-1",
    "chain": "Ethereum",
    "project": "aave-v3",
    "symbol": "USDC",
    "tvlUsd": 5e6,
    "apy": 4.2,
    "stablecoin": True,
}

ON_CLOUD_RUN = dict.fromkeys(job_names(), "cloud_run")
PLAN = {"dry_run": True, "platform": ON_CLOUD_RUN}
MIGRATE = ("operator", "--", "db", "migrate")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_runs, "POLL_SECONDS", 0.1)


def test_from_an_empty_database_to_costs_in_the_ledger(database: Settings, tmp_path: Path) -> None:
    """Five containers: each downloads the release, compares it with the manifest, and becomes the
    command.
    """
    execute_sql(database, EMPTY)
    with running() as llama, network(database, tmp_path, **_urls(llama)) as inside:
        with pytest.raises(ExecutionNotSucceeded) as planned:
            run_pipeline(inside.settings, PLAN, seconds_between=0.1)
        assert (
            "in the cloud `python -m workflows operator -- db migrate`"
            in (planned.value.document["driver_output"][-1])
        )
        migrated = inside.run(*MIGRATE)
        assert (migrated.returncode, migrated.stdout) == (0, "the tables are up to date\n")
        assert f"operator of version {VERSION}\n" in migrated.stderr
        arguments = [*CONTAINER_ARGUMENTS[INGEST_JOB], "--stablecoins"]
        run_container(inside.settings, INGEST_JOB, arguments, str, seconds_between=0.1)
        looked = inside.run("operator", "--", "status", "--json")
        assert json.loads(looked.stdout)["jobs"]["ingest"]["status"] == "succeeded"
        raw = execute_sql(database, "SELECT pool_id FROM raw_defillama_pool_history")
        assert raw == [{"pool_id": "pool-1"}]

        batches = Batches(inside.settings)
        batch = batches.submit(batch_request(), "metrics-1", "m-1")
        execute_sql(database, RAN)
        lines: list[Line] = []
        result = run_container(inside.settings, COSTS_JOB, None, lines.append, seconds_between=0.1)
        assert result.arguments == ["operator", "--", "workflows", "cost", "--day", "yesterday"]
        cost = actual_cost(batches.get("metrics-1"))
        assert cost is not None
        remaining = execute_sql(
            database, "SELECT cost_usd FROM yieldspark.run_ledger WHERE batch_id <> ''"
        )
        assert [row["cost_usd"] for row in remaining] == [pytest.approx(cost.usd)]
        assert batch["createTime"][:10] in "".join(line.text for line in lines if line.is_output)
        _no_password_is_kept(database, inside)


def test_the_validation_after_a_run_finds_broken_rows(
    database: Settings, engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A good run, then one whose rows were broken. The validation really runs, twice."""
    put_daily_run(database, engine)
    argument = {"validate_as_of": LAST.isoformat()}
    with network(database, tmp_path) as inside:
        good = run_pipeline(inside.settings, argument, seconds_between=0.1)
        assert good.result["validation"]["state"] == "SUCCEEDED"
        assert _rings(inside) == set()
        execute_sql(database, BREAK_ROWS)
        before = execute_sql(database, "SELECT * FROM pool_daily_metrics ORDER BY pool_id, date")
        broken = run_pipeline(inside.settings, argument, seconds_between=0.1)
        validation = broken.result["validation"]
        assert (broken.state, validation["state"]) == ("SUCCEEDED", "FAILED")
        assert _rings(inside) == {"validation-failed"}
        assert "rolling_values" in capsys.readouterr().err
        with pytest.raises(typer.Exit):
            require_validation(broken)
        assert "validation-failed.md" in capsys.readouterr().err
        # the runbook's first command
        shown = inside.run("operator", "--", "runs", "list", "--job", "validate", "--json")
    after = execute_sql(database, "SELECT * FROM pool_daily_metrics ORDER BY pool_id, date")
    assert after == before
    runs = json.loads(shown.stdout)["runs"]
    assert [run["status"] for run in runs] == ["failed", "succeeded"]
    rows = execute_sql(
        database,
        "SELECT batch_id FROM yieldspark.run_ledger WHERE job = 'validate' ORDER BY started_at",
    )
    batches = [f"cloud-run-validate-{run.execution}" for run in (good, broken)]
    assert [row["batch_id"] for row in rows] == batches


BREAK_ROWS = """
    UPDATE pool_daily_metrics
    SET rolling_apy_30d = rolling_apy_30d + 1
    WHERE rolling_apy_30d IS NOT NULL
"""


def _rings(inside: Network) -> set[str]:
    """Return the alerts that the workflow's log fires."""
    points: dict[Key, list[StoredPoint]] = {}
    for metric, text in LOG_METRICS.items():
        count = float(counted_entries(text, inside.log))
        points[f"logging.googleapis.com/user/{metric}", ()] = [(FIRST, count)]
    return firing(points, FIRST, FIRST + timedelta(hours=1))


def _urls(llama: DefiLlamaServer) -> dict[str, str]:
    """Yield the address of a DefiLlama with one pool of stablecoins, observed once."""
    llama.pools.append(POOL)
    llama.charts["pool-1"] = [{"timestamp": "2025-08-01T23:00:00.000Z", "tvlUsd": 5e6, "apy": 4.2}]
    return {"defillama_yields_url": llama.url, "defillama_coins_url": llama.url}


def _no_password_is_kept(database: Settings, inside: Network) -> None:
    assert database.db_password is not None
    password = database.db_password.get_secret_value().encode()
    files = [path for path in inside.folder.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if password in path.read_bytes()] == []
