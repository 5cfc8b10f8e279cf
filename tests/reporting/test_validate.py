"""`validate`: each check finds the fault that it is for, and the result is in the run ledger."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from config_spark import Settings
from tests.support.metrics_oracle import World
from tests.support.metrics_store import execute, rows_of
from tests.support.processes import CommandLineHere
from tests.support.validated_runs import LAST, put_daily_run


@pytest.fixture
def source(database: Settings, engine: Engine) -> World:
    return put_daily_run(database, engine)


def failing(run_here: CommandLineHere, code: int, as_of: date = LAST) -> dict[str, int]:
    row = run_here.json("validate", "--as-of", as_of.isoformat(), code=code)
    assert (row["job"], row["status"]) == ("validate", "failed" if code else "succeeded")
    return {check["name"]: check["failing"] for check in row["checks"] if not check["passed"]}


def test_passes_on_what_the_jobs_wrote(
    run_here: CommandLineHere, engine: Engine, source: World
) -> None:
    assert failing(run_here, 0) == {}
    newest = rows_of(engine, "SELECT checks FROM yieldspark.run_ledger WHERE job = 'validate'")
    checks = {check["name"]: check for check in newest[0]["checks"]}
    days = checks["source_and_target"]["days"]
    assert len(days) == 7
    assert all(row["source_checksum"] == row["target_checksum"] for row in days)
    assert sum(row["source_rows"] for row in days) > 20
    assert "no published forecast" in checks["forecast_errors"]["found"]
    shown = run_here("validate", "--as-of", LAST.isoformat())
    assert (shown.returncode, "rolling_values" in shown.stdout) == (0, True)


NEWEST = (
    f"date = '{LAST}' AND pool_id = (SELECT min(pool_id) FROM pool_daily_metrics WHERE date ="
    f" '{LAST}' AND actual_apy IS NOT NULL)"
)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (
            "UPDATE pool_daily_metrics SET rolling_apy_30d = rolling_apy_30d + 0.001 WHERE"
            f" {NEWEST}",
            {"rolling_values": 1},
        ),
        (
            f"UPDATE pool_daily_metrics SET stddev_apy_7d = NULL WHERE {NEWEST}",
            {"rolling_values": 1},
        ),
        (f"DELETE FROM pool_daily_metrics WHERE {NEWEST}", {"source_rows": 1}),
        (
            f"UPDATE pool_daily_metrics SET actual_tvl = actual_tvl + 1 WHERE {NEWEST}",
            {"source_values": 1},
        ),
        (
            "DELETE FROM yieldspark.forecasts WHERE pool_id = (SELECT min(pool_id) FROM"
            f" pool_daily_metrics WHERE {NEWEST})",
            {"forecasts_for_today": 1},
        ),
    ],
)
def test_finds_a_fault(
    run_here: CommandLineHere, engine: Engine, source: World, fault: str, found: dict[str, int]
) -> None:
    execute(engine, fault)
    # a forecast of a few pools may be missing
    assert failing(run_here, 0 if "forecasts_for_today" in found else 1) == found


def test_fails_if_most_forecasts_are_missing(
    run_here: CommandLineHere, engine: Engine, source: World
) -> None:
    execute(engine, "TRUNCATE yieldspark.forecasts")
    assert failing(run_here, 1).keys() == {"forecasts_for_today"}


def test_old_data_fail(run_here: CommandLineHere, source: World) -> None:
    found = failing(run_here, 1, LAST + timedelta(days=20))
    assert found == {"recent_records": 7}
    assert failing(run_here, 1, LAST + timedelta(days=1)) == {"recent_records": 1}


def test_rows_that_no_run_has_read_are_not_compared(
    run_here: CommandLineHere, engine: Engine, source: World
) -> None:
    execute(
        engine,
        "INSERT INTO raw_defillama_pool_history (id, pool_id, timestamp, raw_json_data) SELECT"
        " id + 100000, pool_id, timestamp + interval '1 second', '{\"apy\": 77}' FROM"
        " raw_defillama_pool_history",
    )
    assert failing(run_here, 0) == {}


def test_worst_errors_are_figures(run_here: CommandLineHere, engine: Engine, source: World) -> None:
    execute(
        engine,
        "INSERT INTO yieldspark.forecast_evaluation (pool_id, target_date, horizon_days, target,"
        " engine, source, as_of, actual, forecast, persistence, model_version, run_id) SELECT"
        " 'p' || n, :day, 1, 'apy', 'lightgbm', 'production', :day, 5, 5 + n, 6, 'v', 'r' FROM"
        " generate_series(1, 9) AS n",
        day=LAST,
    )
    row = run_here.json("validate", "--as-of", LAST.isoformat())
    errors: dict[str, Any] = next(c for c in row["checks"] if c["name"] == "forecast_errors")
    assert [worst["pool_id"] for worst in errors["worst"]] == ["p9", "p8", "p7", "p6", "p5"]
    assert (errors["means"][0]["mae"], errors["means"][0]["mae_of_persistence"]) == (5, 1)


def test_needs_a_metrics_run(run_here: CommandLineHere) -> None:
    result = run_here("validate")
    assert (result.returncode, "run `calculate_metrics` first" in result.stderr) == (1, True)
