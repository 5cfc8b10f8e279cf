"""Tests the benchmark of the forecasts: the days that its competitor may use, the comparison of
methods, and its report. Asserts no speed.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from itertools import chain, pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine

from benchmarks.databases import copied_database
from benchmarks.forecast import main
from benchmarks.forecast_accuracy import Peer, Period, run_period, score_methods
from benchmarks.forecast_data import (
    AGES,
    METRICS,
    Panel,
    copy_panel,
    history_files,
    largest_pools,
    load_history,
)
from benchmarks.forecast_goals import GoalResult, accuracy_goals
from benchmarks.forecast_scale import compare
from benchmarks.forecast_speed import DailyRuns, Scale
from benchmarks.forecast_table import Result, result_document, result_text
from benchmarks.peer_mlforecast import (
    VARIANTS,
    by_day,
    forecasts,
    learnable,
    refit_days,
    values_up_to,
)
from benchmarks.processes import PROJECT, Timing
from config_spark import Settings
from forecasting.evaluation.scores import score
from forecasting.models.stacked_model import apy_objectives, tvl_objectives
from tests.support.metrics_store import rows_of

FACTS = {"commit": "c", "machine": "m", "python": "3", "load_at_start": 0.0}
END = dt.date(2025, 10, 5)
LAST = pd.Timestamp(END)
SAMPLE = PROJECT / "sample_data"


def observed(**pools: list[float | None]) -> pd.DataFrame:
    """Return the competitor's input: one value a day up to LAST, None if not observed; TVL is a
    thousand times APY.
    """
    rows = []
    for pool, values in pools.items():
        days = pd.date_range(end=LAST, periods=len(values))
        for day, value in zip(days, values, strict=True):
            rows.append({"pool_id": pool, "date": day, "apy": value, "tvl": value and value * 1000})
    return pd.DataFrame(rows).astype({"apy": float, "tvl": float})


def test_what_is_known_at_a_day_is_the_same_without_all_later_days() -> None:
    random = np.random.default_rng(3)
    history = observed(
        a=list(random.random(40)),
        b=[*random.random(10), *[None] * 5, *random.random(10)],
        c=list(random.random(5)),
    )
    for back in (0, 3, 8, 12, 20):
        day = LAST - pd.Timedelta(days=back)
        cut = history[history["date"] <= day]
        series = values_up_to(by_day(history, "apy"), day)
        pd.testing.assert_frame_equal(series, values_up_to(by_day(cut, "apy"), day))
        assert series["ds"].max() == day


def test_a_gap_takes_the_value_before_it_and_a_pool_ends_with_its_last_value() -> None:
    values = by_day(
        observed(a=[1.0, None, None, 4.0, 5.0, None], b=[7.0, 8.0], none=[None, None]), "apy"
    )
    series = values_up_to(values, LAST)
    assert series[series["unique_id"] == "a"]["y"].tolist() == [1.0, 1.0, 1.0, 4.0, 5.0]
    assert series[series["unique_id"] == "b"]["y"].tolist() == [7.0, 8.0]
    assert "none" not in set(series["unique_id"])
    before = values_up_to(values, LAST - pd.Timedelta(days=3))
    assert before["y"].tolist() == [1.0], (
        "at that day nobody knows that the pool will be seen again"
    )


def test_it_learns_only_from_days_that_were_observed_as_the_day_before_was() -> None:
    values = by_day(observed(a=[1.0, None, 3.0, 4.0, 5.0]), "apy")
    series = values_up_to(values, LAST)
    assert series.loc[learnable(series, values), "y"].tolist() == [4.0, 5.0]


def test_it_is_refitted_on_the_first_day_and_then_every_seven() -> None:
    days = list(pd.date_range("2025-09-01", periods=20))
    gap = [day for day in days if day != days[7]]
    assert sorted(refit_days(days, 7)) == [days[0], days[7], days[14]]
    assert sorted(refit_days(gap, 7)) == [days[0], days[8], days[15]]


def test_its_forecasts_do_not_know_what_comes_and_first_differences_follow_a_trend() -> None:
    pytest.importorskip(
        "mlforecast", reason="mlforecast is not installed here: requirements-benchmark.txt has it"
    )
    random = np.random.default_rng(5)
    history = observed(
        **{
            f"p{number}": list(10.0 + np.arange(120) + 0.01 * random.random(120))
            for number in range(6)
        },
        young=[3.0],
    )
    requested = pd.DataFrame(
        [
            ("apy", pool, LAST - pd.Timedelta(days=back))
            for back, pool in product((9, 2), ("p0", "p5"))
        ],
        columns=["target", "pool_id", "as_of"],
    )
    requested.loc[len(requested)] = ["apy", "young", LAST]
    forecast_rows = forecasts(
        history, requested, refit=7, threads=1, seconds={"fit": 0.0, "predict": 0.0}
    )
    assert np.isfinite(forecast_rows[list(VARIANTS)].to_numpy(float)).all()
    old = forecast_rows[forecast_rows["as_of"] < LAST]
    truth = old.assign(date=old["as_of"] + pd.Timedelta(days=1)).merge(
        history, on=["pool_id", "date"], validate="one_to_one"
    )
    assert truth["differences"].tolist() == pytest.approx(truth["apy"].tolist(), abs=0.2)
    changed_history = history.assign(
        apy=history["apy"].where(history["date"] <= LAST - pd.Timedelta(days=2), 1e5)
    )
    again = forecasts(
        changed_history,
        requested[requested["as_of"] < LAST],
        refit=7,
        threads=1,
        seconds={"fit": 0.0, "predict": 0.0},
    )
    assert again[list(VARIANTS)].equals(old[list(VARIANTS)].reset_index(drop=True))


@pytest.mark.usefixtures("processes")
def test_an_interpreter_without_it_is_named_with_the_reason(tmp_path: Path) -> None:
    assert "does not run: No such file" in str(Peer.of(str(tmp_path / "python")).missing)
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(0o755)
    assert (
        Peer.of(str(bare)).missing
        == "not installed: ModuleNotFoundError: No module named 'mlforecast'"
    )


def evaluated(error: float, *, days: int = 40, target: str = "apy") -> pd.DataFrame:
    """Evaluation rows of two pools, of which only `large` is restricted.

    Persistence is off by 1, the forecast by `error`, and the 7-day median by 2.
    """
    rows = [
        {
            "pool_id": pool,
            "target": target,
            "target_date": END - dt.timedelta(days=back),
            "as_of": END - dt.timedelta(days=back + 1),
            "tvl_usd": tvl,
        }
        for (pool, tvl), back in product((("large", 2e6), ("small", 2e5)), range(days))
    ]
    levels = {
        "actual": 5.0,
        "forecast": 5.0 + error,
        "persistence": 6.0,
        "median_7d": 7.0,
        "mean_reversion": 5.5,
    }
    limits = {
        "low": 4.0,
        "high": 6.0,
        "naive_low": 5.5,
        "naive_high": 8.0,
        "mean_abs_change": 1.0,
        "apy_percent": 6.0,
    }
    return pd.DataFrame(rows).assign(**levels, **limits)


def test_every_method_is_scored_on_the_same_rows_beside_persistence() -> None:
    rows = evaluated(0.5)
    scores = score_methods(
        {"lightgbm": rows, "synapseml": evaluated(0.25)},
        {"mlforecast level": pd.Series(5.0, index=rows.index)},
        0.8,
    )
    apy = scores["apy"]["restricted"]
    assert (apy["rows"], apy["pools"], apy["days"], scores["apy"]["all"]["rows"]) == (40, 1, 40, 80)
    ratios = {name: method["ratio"]["mae"] for name, method in apy["methods"].items()}
    assert ratios == {
        "lightgbm": 0.5,
        "synapseml": 0.25,
        "persistence": 1.0,
        "median7": 2.0,
        "mean_reversion": 0.5,
        "mlforecast level": 0.0,
    }
    assert (
        apy["methods"]["median7"]["ratio"]["mae_low"]
        == apy["methods"]["median7"]["ratio"]["mae_high"]
        == 2.0
    )
    assert apy["methods"]["lightgbm"]["mae"] == score(rows, 0.8).errors["model"].mae
    assert apy["methods"]["persistence"]["interval"]["pinball_ratio"] == 1.0
    coverage = {
        name: method["interval"] and method["interval"]["coverage"]
        for name, method in apy["methods"].items()
    }
    assert coverage == {
        "lightgbm": 1.0,
        "synapseml": 1.0,
        "persistence": 0.0,
        "median7": None,
        "mean_reversion": None,
        "mlforecast level": None,
    }


def test_engines_that_forecast_other_rows_are_not_compared() -> None:
    with pytest.raises(RuntimeError, match="synapseml forecast 78 rows and the first engine 80"):
        score_methods({"lightgbm": evaluated(0.5), "synapseml": evaluated(0.5, days=39)}, {}, 0.8)


def timing(case: str, seconds: float, **stages: float) -> Timing:
    return Timing(
        case, seconds, seconds, 1000.0, 50.0, "succeeded", sum(stages.values()), stages, {}
    )


def period(error: float, **errors: float) -> Period:
    engines = {"lightgbm": error, **errors}
    rows = {
        name: pd.concat(
            [evaluated(error_of_engine), evaluated(error_of_engine, target="tvl")],
            ignore_index=True,
        )
        for name, error_of_engine in engines.items()
    }
    timings = {
        name: timing(f"backtest {name}", 300.0 + 100.0 * number, fit=200.0)
        for number, name in enumerate(engines)
    }
    return Period(
        END,
        60,
        7,
        400,
        timings,
        score_methods(rows, {}, 0.8),
        "not installed: No module named 'mlforecast'",
    )


def test_goals_say_hit_or_missed_and_by_how_much() -> None:
    results = {
        goal.name: (round(goal.figure, 3), round(goal.missed_by, 3), goal.elsewhere)
        for goal in accuracy_goals(period(0.95, synapseml=1.02), 487)
    }
    prefix = f"lightgbm to {END}: "
    assert results[f"{prefix}APY MAE ratio"] == (0.95, 0.0, None)
    assert results[f"{prefix}APY median error ratio"] == (0.95, 0.05, None)
    assert results[f"{prefix}TVL MAE ratio"] == (0.95, 0.0, None)
    assert results[f"{prefix}APY coverage"] == (1.0, 0.18, None)
    assert results[f"{prefix}backtest"] == (300.0, 0.0, None)
    assert results[f"synapseml to {END}: backtest"] == (400.0, 40.0, None)
    assert results[f"synapseml to {END}: TVL MAE ratio"] == (1.02, 0.015, None)
    assert results[f"to {END}: APY MAE ratios of the engines, apart"] == (0.069, 0.059, None)


def test_a_goal_for_another_panel_or_period_says_so() -> None:
    assert {goal.elsewhere for goal in accuracy_goals(period(0.5), 40)} == {
        "a goal for 60 days of 487 pools"
    }
    other = Period(**{**vars(period(0.5)), "end": dt.date(2025, 1, 1)})
    assert not [goal for goal in accuracy_goals(other, 487) if "APY MAE" in goal.name], (
        "no day but two has a bound for APY"
    )


def test_a_range_is_missed_below_and_above() -> None:
    assert [
        round(GoalResult("", figure, 0.78, 0.82).missed_by, 4)
        for figure in (0.75, 0.78, 0.82, 0.84)
    ] == [0.03, 0.0, 0.0, 0.02]


@pytest.fixture
def result() -> Result:
    daily_runs = DailyRuns(
        "lightgbm",
        END,
        [timing("daily run lightgbm", seconds, fit=40.0) for seconds in (50.0, 70.0, 58.0)],
    )
    stages = {"features": 30.0, "fit_apy": 60.0, "native": 60.0}
    scale = Scale(
        20_000, 180, Timing("scale", 170.0, 1.0, 1.0, 1.0, "succeeded", 90.0, stages, _scale_rows())
    )
    return Result(
        "history.parquet", 487, 80_628, [timing("load", 2.0)], [period(0.95)], [daily_runs], scale
    )


def _scale_rows() -> dict[str, int]:
    return {
        "read": 5,
        "feature rows": 5,
        "features": 85,
        "forecast": 1,
        "models": 11,
        "same models": 11,
    }


def test_the_tables_hold_every_method_process_and_goal(result: Result) -> None:
    lines = result_text(FACTS, result).splitlines()
    model = next(line.split() for line in lines if line.startswith("lightgbm  "))
    persistence = next(line.split() for line in lines if line.startswith("persistence  "))
    assert (
        " ".join(model)
        == "lightgbm" + 2 * " 0.95 0.950 0.950 to 0.950" + " 0.95 0.950 1.000 2 0.540"
    )
    assert persistence[1:3] == ["1", "1.000"]
    text = "\n".join(lines)
    assert (
        "APY (points), restricted rows (TVL over 1 M USD, APY under 100 %): 40 rows of 1 pools"
        in text
    )
    assert "mlforecast: not installed: No module named 'mlforecast'" in text
    assert "daily run lightgbm, as of 2025-10-05: 58.0 s (50.0 70.0 58.0)" in text
    assert "fit 40.0, outside the ledger 18.0" in text
    assert "ours 90.0 s, native fits 60.0 s, 11 of 11 models the same" in text
    assert "  daily run lightgbm: 58 s, goal <= 60 s: hit" in lines
    assert "  features, fit and predict / native fits: 1.5, goal <= 2: hit" in lines
    assert f"  lightgbm to {END}: APY coverage: 1, goal 0.78 to 0.82: missed by 0.18 (22%)" in lines


def test_the_document_is_json_with_all_of_it(result: Result) -> None:
    document = json.loads(json.dumps(result_document(FACTS, result)))
    assert document["periods"][0]["end"] == "2025-10-05"
    assert document["periods"][0]["scores"]["tvl"]["restricted"]["methods"]["lightgbm"]["ratio"][
        "mae"
    ] == pytest.approx(0.95)
    assert document["daily_runs"][0]["timings"][1]["seconds"] == 70.0
    assert document["scale"]["ratio"] == 1.5
    assert {goal["hit"] for goal in document["goals"]} == {True, False}


def test_rows_that_nobody_could_score_leave_an_empty_table() -> None:
    rows = evaluated(0.5).assign(tvl_usd=1.0)
    scores = score_methods({"lightgbm": rows}, {}, 0.8)
    assert scores["apy"]["restricted"]["methods"] == {}
    empty_period = Period(END, 60, 7, 2, {"lightgbm": timing("backtest", 1.0)}, scores, None)
    assert [goal.name for goal in accuracy_goals(empty_period, 2)] == [
        f"lightgbm to {END}: backtest"
    ]
    assert "0 rows of 0 pools" in result_text(FACTS, Result("h", 2, 2, periods=[empty_period]))


def test_a_folder_without_history_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--data", str(tmp_path)])
    assert end.value.code == 2
    assert (
        f"{tmp_path} has no pool history; required: defillama_pool_history.parquet and"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "wrong",
    [["--engines", "catboost"], ["--speed", "--only", "day"], ["--speed", "--scale", "big"]],
)
def test_wrong_names_and_sizes_are_wrong_use(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(wrong)
    assert end.value.code == 2
    assert (
        "is none of" in (message := capsys.readouterr().err)
        or "is no size; give POOLSxDAYS" in message
    )


def test_the_pools_with_most_rows_are_taken_with_their_descriptions(tmp_path: Path) -> None:
    history, pools = (
        pq.read_table(path).to_pandas()
        for path in largest_pools(history_files(SAMPLE), 9, tmp_path)
    )
    everything = pq.read_table(history_files(SAMPLE)[0]).to_pandas()["pool_id"].value_counts()
    assert set(history["pool_id"]) == set(pools["pool"])
    assert sorted(history["pool_id"].value_counts()) == sorted(everything.iloc[:9])


def test_a_generated_panel_is_the_same_again_and_carries_what_was_not_observed() -> None:
    panel = Panel(1_200, 30, END)
    chunks = list(panel.chunks())
    again = list(Panel(1_200, 30, END).chunks())
    tables = list(chain.from_iterable(chunks))
    assert tables == list(chain.from_iterable(again))
    metrics = pd.concat([table.to_pandas() for table in tables[0::2]], ignore_index=True)
    ages = pd.concat([table.to_pandas() for table in tables[1::2]], ignore_index=True)
    assert (list(metrics), list(ages)) == (list(METRICS), list(AGES))
    assert metrics["pool_id"].nunique() == 1_200
    assert not metrics.duplicated(["pool_id", "date"]).any()
    assert metrics["date"].agg(["min", "max"]).tolist() == [END - dt.timedelta(days=29), END]
    assert metrics["actual_apy"].gt(0).all()
    assert 0.02 < len(ages) / len(metrics) < 0.04
    assert set(ages["apy_staleness_days"]) <= set(range(1, 8))
    values = metrics.set_index(["pool_id", "date"])["actual_apy"]
    carried = ages[ages["apy_staleness_days"] == 1].head(50)
    assert all(
        values[row.pool_id, row.date] == values[row.pool_id, row.date - dt.timedelta(days=1)]
        for row in carried.itertuples()
    )


def test_native_lightgbm_fits_the_very_models_of_the_product(
    database: Settings, engine: Engine, spark: SparkSession
) -> None:
    rows = copy_panel(engine, Panel(20, 120, END), lambda message: None)
    assert rows_of(engine, "SELECT count(*) AS n FROM pool_daily_metrics")[0]["n"] == rows
    document: dict[str, Any] = compare(spark, database.model_copy(update={"model_threads": 1}), END)
    counts = document["rows"]
    assert (document["status"], counts["read"], counts["feature rows"], counts["forecast"]) == (
        "succeeded",
        rows,
        rows,
        20,
    )
    # one of them is a coarse fit of TVL's folds
    assert (
        counts["models"]
        == counts["same models"]
        == 1 + len(tvl_objectives(0.8)) + len(apy_objectives(0.8))
    )
    assert set(document["stages"]) == {"features", "fit_tvl", "fit_apy", "predict", "native"}


@pytest.mark.long
def test_the_harness_backtests_and_scores_real_pools(server: Settings, tmp_path: Path) -> None:
    messages: list[str] = []
    files = largest_pools(history_files(SAMPLE), 12, tmp_path)
    with copied_database(server, "bench_forecast_test") as settings:
        load_history(settings, files, messages.append)
        result_of_period = run_period(
            settings, ["lightgbm"], END, 5, 7, Peer.of(sys.executable), messages.append
        )
    restricted, everything = (
        result_of_period.scores["apy"][name] for name in ("restricted", "all")
    )
    assert 0 < restricted["rows"] <= everything["rows"] <= 60
    assert everything["methods"]["persistence"]["ratio"]["mae"] == 1.0
    assert everything["methods"]["lightgbm"]["interval"]["rows"] == everything["rows"]
    assert next(iter(result_of_period.timings)) == "lightgbm"
    assert all(earlier != later for earlier, later in pairwise(messages))
