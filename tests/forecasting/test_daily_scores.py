"""Scores by day against hand-computed values, and over four weeks."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from forecasting.evaluation.daily_scores import RECENT_DAYS, daily_scores
from forecasting.evaluation.day_bootstrap import mean_ratio_interval
from forecasting.evaluation.error_measures import errors_in_scales
from forecasting.features.pool_features import SPIKE_SCALES
from tests.forecasting.test_scores import DAY, evaluation

LATER = DAY + dt.timedelta(days=2)


def days(count: int, pools: int = 5, seed: int = 3) -> pd.DataFrame:
    """Returns `count` days with a model error of about half of persistence's."""
    random = np.random.default_rng(seed)
    rows = count * pools
    return evaluation(
        target_date=[DAY + dt.timedelta(days=number // pools) for number in range(rows)],
        actual=10.0,
        forecast=10.0 + random.normal(0, 0.2, rows),
        persistence=10.0 + random.normal(0, 0.4, rows),
        low=9.8,
        high=10.0 + random.uniform(-0.05, 0.2, rows),
        volatility_scale=0.5,
    )


def test_each_day_has_its_ratios_and_coverage() -> None:
    rows = evaluation(
        target_date=[LATER, DAY, LATER, DAY],
        actual=[10.0, 10.0, 10.0, 10.0],
        forecast=[11.0, 10.0, 13.0, 10.5],
        persistence=[12.0, 10.0, 14.0, 10.0],
        low=[9.0, np.nan, 10.5, np.nan],
        high=[11.0, np.nan, 13.5, np.nan],
        volatility_scale=[1.0, 1.0, 0.5, 1.0],
    )
    scores = daily_scores(rows)
    assert scores["target_date"].tolist() == [DAY, LATER]
    assert scores["rows"].tolist() == [2, 2]
    assert scores["mae_ratio"].tolist() == [pytest.approx(np.nan, nan_ok=True), 4 / 6]
    # 1 and 6 scales against 2 and 8; those of the second pool are capped at five
    assert scores["capped_ratio"].tolist() == [
        pytest.approx(np.nan, nan_ok=True),
        (1 + SPIKE_SCALES) / (2 + SPIKE_SCALES),
    ]
    assert scores["coverage"].tolist() == [pytest.approx(np.nan, nan_ok=True), 0.5]
    assert scores.filter(regex="_(recent|low|high)$").isna().all(axis=None)


def test_capped_ratio_ignores_pools_without_scale_and_coverage_those_without_interval() -> None:
    rows = evaluation(
        target_date=DAY,
        forecast=[11.0, 99.0],
        volatility_scale=[1.0, np.nan],
        low=[9.0, np.nan],
        high=[12.0, 11.0],
    )
    scores = daily_scores(rows).iloc[0]
    assert (scores["rows"], scores["capped_ratio"], scores["coverage"]) == (2, 0.5, 1.0)
    assert scores["mae_ratio"] == pytest.approx(90 / 4)


def test_errors_in_scales_are_of_apy_or_of_the_logarithm_of_tvl() -> None:
    assert errors_in_scales(
        evaluation(forecast=[11.0, 9.0], volatility_scale=[0.5, 0.25]), "forecast"
    ).tolist() == [2.0, 4.0]
    tvl = evaluation(
        target="tvl", actual=np.expm1(10.0), forecast=np.expm1(10.5), volatility_scale=0.1
    )
    assert errors_in_scales(tvl, "forecast") == pytest.approx([5.0])


def test_four_weeks_are_those_that_end_with_the_day() -> None:
    rows = days(40)
    scores = daily_scores(rows)
    assert scores["capped_ratio_recent"].first_valid_index() == RECENT_DAYS - 1
    window = rows[rows["target_date"] > DAY + dt.timedelta(days=39 - RECENT_DAYS)]
    model, persistence = (
        (window["actual"] - window[name]).abs().to_numpy() / 0.5
        for name in ("forecast", "persistence")
    )
    assert model.max() < SPIKE_SCALES
    number = np.repeat(np.arange(RECENT_DAYS), 5)
    last = scores.iloc[-1]
    assert last["capped_ratio_recent"] == pytest.approx(model.mean() / persistence.mean())
    assert (last["capped_ratio_low"], last["capped_ratio_high"]) == pytest.approx(
        mean_ratio_interval(model, persistence, number)
    )
    inside = ((window["low"] <= 10.0) & (window["high"] >= 10.0)).to_numpy(float)
    assert last["coverage_recent"] == pytest.approx(inside.mean())
    assert last["coverage_low"] < inside.mean() < last["coverage_high"]


def test_one_wild_pool_decides_the_mae_of_a_day_and_not_its_capped_ratio() -> None:
    rows = days(3, pools=50)
    wild = rows.assign(forecast=rows["forecast"].mask(rows.index == rows.index[0], 1e6))
    before, after = daily_scores(rows), daily_scores(wild)
    assert after["mae_ratio"].iloc[0] > 1000
    assert after["capped_ratio"].iloc[0] < before["capped_ratio"].iloc[0] + 0.2


def test_a_panel_that_never_moved_has_no_ratio() -> None:
    rows = days(30).assign(persistence=10.0)
    scores = daily_scores(rows)
    assert (
        scores[["mae_ratio", "capped_ratio", "capped_ratio_recent", "capped_ratio_low"]]
        .isna()
        .all(axis=None)
    )
    assert scores["coverage_recent"].notna().sum() == 3


def test_no_rows_have_no_days() -> None:
    assert daily_scores(days(1).iloc[:0]).empty
