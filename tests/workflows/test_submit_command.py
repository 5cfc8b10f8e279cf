"""Tests `submit` against the fakes over HTTP: requests, dry runs, sizes and failures."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from config_spark import Settings
from tests.support.dataproc_cases import (
    PARENT,
    PASSWORD,
)
from tests.support.metrics_oracle import RawRow
from tests.support.metrics_store import put_rows
from tests.support.third_job import THIRD_JOB, third_job_added
from tests.workflows.test_batch_commands import (
    FAILS,
    SUBMIT,
    UUID,
    VERSION,
    Cloud,
    _impatient,
    _reaching,
    cloud,
    served,
)

__all__ = ["_impatient", "cloud"]


def test_submit_waits_for_its_batch(cloud: Cloud) -> None:
    actual = cloud.run.json(*SUBMIT)
    (create,) = cloud.created()
    assert re.fullmatch(f"metrics-{UUID}", create.query["batchId"])
    assert create.query["requestId"] == create.query["batchId"].replace("metrics-", "m-")
    body = create.json()
    assert body["pysparkBatch"]["args"] == ["--batch", create.query["batchId"]]
    assert body["labels"] == {
        "app": "yieldspark",
        "job": "calculate_metrics",
        "version": VERSION,
    }
    assert (actual["batch"], actual["state"], actual["job"]) == (
        create.query["batchId"],
        "SUCCEEDED",
        "calculate_metrics",
    )
    assert 0.01 < actual["cost_usd"] < 0.1, "a minute is billed at least"
    batches = "https://console.cloud.google.com/dataproc/batches/europe-west1"
    assert actual["console"] == f"{batches}/{actual['batch']}?project=acme"


def test_concurrent_submits_are_two_batches(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        cloud.run.json(*SUBMIT, "--no-wait")
    ids = [request.query["batchId"] for request in cloud.created()]
    assert len(set(ids)) == 2
    assert not any(
        re.search(r"20\d\d", batch_id.removeprefix("metrics-")[:4]) and batch_id[12:16].isdigit()
        for batch_id in ids
    )


def test_a_dry_run_prints_the_request_and_sends_nothing(cloud: Cloud) -> None:
    result = cloud.run(
        "submit",
        "calculate_metrics",
        "--start",
        "2025-08-01",
        "--end",
        "2025-09-01",
        "--rows",
        "5",
        "--dry-run",
    )
    assert result.returncode == 0, result.stderr
    request = json.loads(result.stdout)
    assert cloud.dataproc.requests == []
    assert request["batch"]["pysparkBatch"]["args"] == [
        "--start",
        "2025-08-01",
        "--end",
        "2025-09-01",
        "--batch",
        request["batchId"],
    ]
    assert (request["parent"], request["rows"], request["rows_from"]) == (PARENT, 5, "--rows")
    assert PASSWORD not in result.stdout + result.stderr


def test_a_forecast_has_its_engine_and_day(cloud: Cloud) -> None:
    arguments = (
        "submit",
        "forecast_pools",
        "--engine",
        "lightgbm",
        "--as-of",
        "2025-09-30",
        "--rows",
        "5",
        "--dry-run",
    )
    request = json.loads(cloud.run(*arguments).stdout)
    assert re.fullmatch(f"forecast-{UUID}", request["batchId"])
    assert request["batch"]["pysparkBatch"]["args"][:2] == ["--as-of", "2025-09-30"]
    assert (
        request["batch"]["runtimeConfig"]["properties"]["spark.dataproc.driverEnv.ENGINE"]
        == "lightgbm"
    )


WRONG = {
    "an option of the other job": (
        ["calculate_metrics", "--as-of", "2025-09-30"],
        "--as-of is no option of calculate_metrics; allowed: --start, --end, --full-refresh",
    ),
    "days for a forecast": (
        ["forecast_pools", "--start", "2025-08-01", "--end", "2025-09-01"],
        "--start is no option of forecast_pools; allowed: --as-of",
    ),
    "half an interval": (
        ["calculate_metrics", "--start", "2025-08-01"],
        "--start and --end go together",
    ),
    "no such job": (
        ["calculate_pool_metrics"],
        "calculate_pool_metrics is no job; allowed: calculate_metrics, forecast_pools",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_exits_with_2_before_any_request(cloud: Cloud, case: str) -> None:
    arguments, sentence = WRONG[case]
    result = cloud.run("submit", *arguments, "--json")
    assert result.returncode == 2
    assert sentence in json.loads(result.stdout)["error"]
    assert cloud.dataproc.requests == []


def test_submits_a_third_job_that_is_one_entry_of_the_table(cloud: Cloud) -> None:
    arguments = ("submit", THIRD_JOB.name, "--rows", "5", "--dry-run")
    with third_job_added():
        result = cloud.run(*arguments, "--start", "2025-08-01", "--end", "2025-09-01", "--json")
        assert "--end is no option of score_pools; allowed: --start" in result.stdout
        result = cloud.run(*arguments)
    assert result.returncode == 0, result.stderr
    request = json.loads(result.stdout)
    assert re.fullmatch(f"scores-{UUID}", request["batchId"])
    assert request["batch"]["labels"]["job"] == THIRD_JOB.name
    assert cloud.run(*arguments).returncode == 2


def test_the_size_is_the_plans_where_there_is_a_database(
    cloud: Cloud, database: Settings, engine: Engine
) -> None:
    put_rows(
        engine,
        [
            RawRow(number, "a", datetime(2025, 9, number), {"apy": 5.0, "tvlUsd": 1e6})
            for number in (1, 2, 3)
        ],
    )
    arguments = ("submit", "calculate_metrics", "--dry-run")
    result = cloud.run(*arguments, **_reaching(database))
    assert result.returncode == 0, result.stderr
    planned = json.loads(result.stdout)
    assert (planned["rows"], planned["rows_from"]) == (3, "the plan")
    result = cloud.run(*arguments)
    assert result.returncode == 0, result.stderr
    out_of_reach = json.loads(result.stdout)
    assert out_of_reach["rows"] == 1_000_000
    assert out_of_reach["rows_from"].startswith(
        "EXPECTED_ROWS, as there is no plan from here: no connection to PostgreSQL"
    )


def test_a_plan_that_fails_is_no_batch(cloud: Cloud, database: Settings) -> None:
    result = cloud.run("submit", "forecast_pools", "--engine", "lightgbm", **_reaching(database))
    assert result.returncode == 1
    assert (
        "the plan of forecast_pools fails, and nothing was submitted: pool_daily_metrics has no"
        " observed APY or TVL" in result.stderr
    )
    assert cloud.dataproc.requests == []


def test_without_a_database_nothing_is_planned_or_sent(cloud: Cloud) -> None:
    result = cloud.run("submit", "calculate_metrics", DB_HOST="", STAGING_BUCKET="")
    assert result.returncode == 2
    assert "DB_HOST, STAGING_BUCKET not set" in result.stderr
    assert cloud.dataproc.requests == []


def test_a_failed_batch_fails_the_command_with_its_summary(tmp_path: Path) -> None:
    with served(tmp_path, FAILS) as cloud:
        result = cloud.run(*SUBMIT, "--json")
        assert result.returncode == 1
        actual = json.loads(result.stdout)
        assert (actual["status"], actual["state"], actual["driver_output"]) == (
            "failed",
            "FAILED",
            ["the login was refused"],
        )
        assert actual["error"].startswith(
            f"batch {actual['batch']} is FAILED: Google Cloud Dataproc Agent reports job failure:"
            " exit code 3. Look at https"
        )
        assert actual["cost_usd"] is not None
        assert "the login was refused" in result.stderr
