"""Tests the output of `evaluate` and `backtest`: scores against persistence, as a table and
as JSON.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from sqlalchemy import Engine

from reporting.report.backtest_page import BACKTEST_NAME
from tests.forecasting.test_forecast_history import actuals, observe, put, row
from tests.support.forecast_panels import END, panel_rows, store
from tests.support.processes import CommandLine

DAY = dt.timedelta(days=1)


def test_evaluate_adds_actual_values_and_scores_them(run_here: CommandLine, engine: Engine) -> None:
    for pool_id, actual in (("a", 5.5), ("b", 3.0)):
        put(
            engine,
            row(pool_id, tvl_usd=2e6, apy_percent=4.0, low=4.0, high=5.2, engine="synapseml"),
        )
        observe(engine, pool_id, dt.date(2024, 6, 30), actual)
    scores = run_here.json(
        "evaluate", "--days", "1", "--end", "2024-06-30", "--engine", "synapseml"
    )
    assert scores["rows"]["updated"] == 2
    assert actuals(engine) == {("a", "apy"): 5.5, ("b", "apy"): 3.0}
    score = scores["targets"]["apy"]["restricted"]
    assert (
        score["rows"],
        score["model"]["mae"],
        score["persistence"]["mae"],
        score["interval"]["coverage"],
    ) == (2, 1.25, 1.25, 0.0)
    table = run_here("evaluate", "--days", "1", "--end", "2024-06-30").stdout
    assert "relative to persistence" in table
    assert "restricted" in table


def test_evaluate_of_nothing_is_no_error(run_here: CommandLine) -> None:
    scores = run_here.json("evaluate")
    assert (scores["targets"], scores["groups"], scores["status"]) == ({}, [], "succeeded")
    assert run_here("evaluate").returncode == 0


@pytest.mark.parametrize(
    ("engines", "setting", "scored"),
    [
        (["lightgbm"], "synapseml", "lightgbm"),
        (["synapseml"], "lightgbm", "synapseml"),
        (["lightgbm", "synapseml"], "lightgbm", "lightgbm"),
        (["lightgbm", "synapseml"], "synapseml", "synapseml"),
        ([], "lightgbm", "lightgbm"),
    ],
)
def test_evaluate_takes_the_engine_that_has_forecasts(
    run_here: CommandLine, engine: Engine, engines: list[str], setting: str, scored: str
) -> None:
    for name in engines:
        put(engine, row("a", tvl_usd=2e6, apy_percent=4.0, engine=name))
    # of days that are not requested
    old = dt.date(2024, 5, 1)
    put(engine, row("a", old, engine="lightgbm"), row("a", old, engine="synapseml"))
    observe(engine, "a", dt.date(2024, 6, 30), 5.5)
    observe(engine, "a", old, 5.5)
    period = ["--days", "30", "--end", "2024-06-30"]
    scores = run_here.json("evaluate", *period, FORECAST_ENGINE=setting)
    assert (scores["engine"], bool(scores["targets"])) == (scored, bool(engines))
    assert run_here.json("evaluate", *period, "--engine", setting)["engine"] == setting
    if engines:
        newest = run_here.json("evaluate", "--days", "30", FORECAST_ENGINE=setting)
        assert (newest["engine"], newest["as_of"]) == (scored, "2024-06-30")


def test_a_dry_backtest_prints_its_plan(run_here: CommandLine, engine: Engine) -> None:
    store(engine, panel_rows(3, 40))
    document = run_here.json(
        "backtest", "--days", "20", "--refit", "10", "--horizon", "2", "--html", "--dry-run"
    )
    assert "report" not in document
    plan = document["plan"]
    assert (plan["as_of"], plan["horizon_days"], plan["forecast_days"], plan["refits"]) == (
        END.isoformat(),
        2,
        110,
        11,
    )
    assert "forecast_days" in run_here("backtest", "--dry-run").stdout


def test_a_backtest_writes_its_page_to_the_requested_folder(
    run_here: CommandLine, engine: Engine, tmp_path: Path
) -> None:
    store(engine, panel_rows(3, 40))
    finished = run_here(
        "backtest",
        "--days",
        "5",
        "--engine",
        "lightgbm",
        "--html",
        REPORT_DIR=str(tmp_path / "pages"),
    )
    page = tmp_path / "pages" / BACKTEST_NAME
    assert finished.stdout.splitlines()[-1] == str(page)
    assert "Backtest of 5 days to Sun 30 Jun 2024" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--days", "3"], "greater than or equal to 5"),
        (["--horizon", "31"], "less than or equal to 30"),
        (["--end", "2999-01-01"], "is not over"),
    ],
)
def test_wrong_use_exits_with_2(
    run_here: CommandLine, engine: Engine, arguments: list[str], message: str
) -> None:
    store(engine, panel_rows(2, 20))
    finished = run_here("backtest", "--dry-run", *arguments)
    assert finished.returncode == 2
    assert message in finished.stderr
