"""Folds, rolling origin and scores: no day knows anything of a later one."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from forecasting.backtest import TargetForecasts, evaluation_rows, forecast_target
from forecasting.folds import DaySpan, FoldPlan, plan_folds
from forecasting.scores import score, score_table, sentence
from forecasting.stacked_model import OutOfSample
from forecasting.targets import targets

AS_OF = dt.date(2024, 6, 30)
APY, TVL = targets(max_apy_percent=1e6, max_tvl_usd=1e12)


def folds(horizon: int = 1, **overrides: int) -> FoldPlan:
    return plan_folds(AS_OF, horizon=horizon, **({"train_days": 365, "backtest_days": 30, "refit_days": 15} | overrides))


@pytest.mark.parametrize("horizon", [1, 3, 7])
def test_a_model_is_trained_on_targets_known_at_its_origin(horizon: int) -> None:
    plan = folds(horizon)
    for fold in (*plan.tvl, *plan.apy):
        last_trained = fold.train.end - dt.timedelta(days=1)
        assert last_trained + dt.timedelta(days=horizon) == fold.origin
        assert fold.forecast.start == fold.origin
        assert (fold.train.end - fold.train.start).days <= 365


def test_each_day_is_forecast_by_one_model_and_the_as_of_day_by_the_last() -> None:
    plan = folds()
    for chain in (plan.tvl, plan.apy):
        assert all(earlier.forecast.end == later.forecast.start for earlier, later in pairwise(chain))
        assert chain[-1].forecast == DaySpan(AS_OF, AS_OF + dt.timedelta(days=1))
    assert plan.apy[0].origin == plan.calibration.start
    assert plan.calibration.end == plan.scored.start
    assert (plan.scored.end - plan.scored.start).days == 30
    assert plan.fits == 10


@pytest.mark.parametrize("horizon", [1, 4])
def test_the_last_scored_target_is_the_as_of_day(horizon: int) -> None:
    assert folds(horizon).scored.end - dt.timedelta(days=1) + dt.timedelta(days=horizon) == AS_OF


def test_a_short_training_window_has_no_coarse_folds_and_reads_no_further() -> None:
    plan = folds(train_days=60)
    assert len(plan.tvl) == len(plan.apy)
    assert plan.first_day == plan.calibration.start - dt.timedelta(days=60)


def out_of_sample(skill: float, *, pools: int = 20, plan: FoldPlan | None = None) -> OutOfSample:
    """Rows of the calibration and scored days and the as-of day; APY moves are forecast with this correlation to what comes, TVL moves with none."""
    plan = plan or folds()
    random = np.random.default_rng(2)
    days = pd.date_range(plan.calibration.start, plan.as_of)
    frames = []
    for number in range(pools):
        scale = float(random.uniform(0.05, 5))
        move = random.standard_normal(len(days))
        forecast = skill * move + np.sqrt(1 - skill**2) * random.standard_normal(len(days))
        apy = np.full(len(days), 20.0 + number)
        frames.append(
            pd.DataFrame(
                {
                    "pool_id": f"p{number:02d}",
                    "date": days,
                    "apy": apy,
                    "tvl": 2e6,
                    "apy_next": np.append((apy + scale * move)[:-1], np.nan),
                    "tvl_next": np.append(np.expm1(np.log1p(2e6) + 0.01 * move)[:-1], np.nan),
                    "apy_scale": scale,
                    "tvl_scale": 0.01,
                    "apy_median_7": apy + 1.0,
                    "tvl_median_7": 2e6,
                    "apy_lowest_30": 0.0,
                    "apy_move_forecast": forecast,
                    "tvl_move_forecast": random.standard_normal(len(days)),
                }
            )
        )
    return OutOfSample(pd.concat(frames, ignore_index=True), {"apy": [], "tvl": []})


def evaluated(forecasts: TargetForecasts, sample: OutOfSample, plan: FoldPlan) -> pd.DataFrame:
    return evaluation_rows(forecasts, sample, plan, engine="lightgbm", level=0.8, run_id="run")


def test_a_model_with_skill_beats_persistence_and_its_interval_covers() -> None:
    plan, sample = folds(), out_of_sample(0.9)
    table = score_table(evaluated(forecast_target(sample, plan, APY, 0.8), sample, plan), 0.8)["apy"]["restricted"]
    assert table["rows"] == 20 * 30
    assert table["ratio"]["mae"] < 0.6
    assert table["interval"]["coverage"] == pytest.approx(0.8, abs=0.05)


def test_a_model_without_skill_becomes_persistence_to_the_bit() -> None:
    plan, sample = folds(), out_of_sample(0.0)
    forecasts = forecast_target(sample, plan, TVL, 0.8)
    rows = evaluated(forecasts, sample, plan)
    assert set(forecasts.weights.values()) == {0.0}
    assert (rows["forecast"] == rows["persistence"]).all()
    assert score(rows, 0.8)["ratio"]["mae"] == 1.0
    assert score(rows, 0.8)["interval"]["coverage"] == pytest.approx(0.8, abs=0.05)


def test_nothing_that_came_true_later_changes_a_day() -> None:
    plan, sample = folds(), out_of_sample(0.9)
    cut = pd.Timestamp(plan.scored.start) + pd.Timedelta(days=17)
    later = sample.rows["date"] >= cut
    changed = sample.rows.assign(apy_next=sample.rows["apy_next"].where(~later, 1e5))
    before, after = (forecast_target(OutOfSample(rows, sample.parts), plan, APY, 0.8).rows for rows in (sample.rows, changed))
    # on day `cut` the target of the day before is known, which the change leaves alone
    columns = ["forecast", "low", "high"]
    until = before["date"] <= cut
    pd.testing.assert_frame_equal(before.loc[until, columns], after.loc[until, columns])
    assert not before.loc[~until, columns].equals(after.loc[~until, columns])


def test_an_interval_always_holds_its_forecast_and_tvl_is_never_negative() -> None:
    plan, sample = folds(), out_of_sample(0.5)
    for target in (APY, TVL):
        rows = forecast_target(sample, plan, target, 0.8).rows
        assert (rows["low"] <= rows["forecast"]).all()
        assert (rows["forecast"] <= rows["high"]).all()
        assert (rows["low"] >= 0).all()


def test_days_without_a_model_are_not_scored_and_show_persistence() -> None:
    plan, sample = folds(), out_of_sample(0.9)
    blind = OutOfSample(sample.rows.assign(apy_move_forecast=np.nan), sample.parts)
    forecasts = forecast_target(blind, plan, APY, 0.8)
    assert evaluated(forecasts, blind, plan).empty
    assert (forecasts.rows["forecast"] == forecasts.rows["now"]).all()
    assert np.isfinite(forecasts.rows["high"]).all()
    assert sentence(score_table(evaluated(forecasts, blind, plan), 0.8)) == "no day could be scored"


def test_scores_by_hand() -> None:
    rows = pd.DataFrame(
        {
            "pool_id": ["a", "a", "b", "c"],
            "target": "apy",
            "actual": [10.0, 12.0, 5.0, 200.0],
            "forecast": [11.0, 12.0, 7.0, 100.0],
            "low": [9.0, 12.5, 6.0, np.nan],
            "high": [12.0, 13.0, 8.0, np.nan],
            "persistence": [8.0, 10.0, 5.0, 150.0],
            "median_7d": [10.0, 10.0, 5.0, 200.0],
            "tvl_usd": [2e6, 2e6, 2e6, 2e6],
            "apy_percent": [8.0, 10.0, 5.0, 150.0],
        }
    )
    found = score_table(rows, 0.8)["apy"]["restricted"]
    assert (found["rows"], found["pools"]) == (3, 2)
    assert found["model"] == {"mae": 1.0, "median_ae": 1.0, "rmse": pytest.approx(np.sqrt(5 / 3))}
    assert found["persistence"]["mae"] == pytest.approx(4 / 3)
    assert found["median7"]["mae"] == pytest.approx(2 / 3)
    assert found["ratio"]["mae"] == pytest.approx(0.75)
    assert found["interval"] == {"level": 0.8, "coverage": pytest.approx(1 / 3), "mean_width": pytest.approx(5.5 / 3)}
    assert score_table(rows, 0.8)["apy"]["all"]["rows"] == 4


def test_a_ratio_to_a_perfect_persistence_is_not_defined() -> None:
    rows = pd.DataFrame({"pool_id": ["a"], "actual": [0.0], "forecast": [0.1], "persistence": [0.0], "median_7d": [0.0], "low": [0.0], "high": [0.1]})
    assert score(rows, 0.8)["ratio"] == {"mae": None, "median_ae": None, "rmse": None}
    assert score(rows.iloc[:0], 0.8) == {"rows": 0, "pools": 0}
