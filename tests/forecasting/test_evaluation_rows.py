"""Evaluation rows of published forecasts, and forecasts that follow a stored history."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from forecasting.engines.engine import FittedModel
from forecasting.engines.folds import DaySpan
from forecasting.features.targets import Target
from forecasting.models.stacked_model import StackedModel
from forecasting.publishing.past_forecasts import PAST_COLUMNS
from forecasting.publishing.publish import (
    PUBLISHED_COLUMNS,
)
from tests.support.published_samples import (
    APY,
    DAYS,
    TVL,
    assert_same_bits,
    day,
    days,
    evaluated,
    out_of_sample,
    published,
)


@pytest.mark.parametrize(("horizon", "days_of_history"), [(1, 20), (1, 45), (1, 100), (3, 45)])
def test_a_history_replaces_the_days_it_was_made_of(horizon: int, days_of_history: int) -> None:
    sample = out_of_sample(0.7, horizon=horizon)
    # a pool that begins later: the days have not all the same pools
    sample = sample[(sample["pool_id"] != "p02") | (sample["date"] > pd.Timestamp(day(7)))]
    at_once = published(sample, horizon=horizon)
    earlier = published(sample, forecast_days=days(0, days_of_history), horizon=horizon)
    history = earlier[list(PAST_COLUMNS)]
    later = published(sample, forecast_days=days(days_of_history), horizon=horizon, history=history)
    assert_same_bits(at_once, pd.concat([earlier, later]))


def test_a_history_of_forty_days_opens_the_gate_on_the_first_day() -> None:
    sample = out_of_sample(1.0)
    history = published(sample, forecast_days=days(0, 40))[list(PAST_COLUMNS)]
    first = published(sample, forecast_days=[day(40)], history=history)
    assert (first["gate_weight"] >= 0.9).all()
    assert (published(sample, forecast_days=[day(40)])["gate_weight"] == 0.0).all()


def test_only_pools_that_were_observed_are_published() -> None:
    sample = out_of_sample(0.5)
    unseen = (sample["pool_id"] == "p02") & (sample["date"] == pd.Timestamp(day(5)))
    rows = published(sample.assign(apy_observed=~unseen))
    assert len(rows) == 20 * DAYS - 1
    assert "p02" not in set(rows.loc[rows["date"] == pd.Timestamp(day(5)), "pool_id"])
    assert len(published(sample.assign(apy_observed=~unseen), TVL)) == 20 * DAYS


def test_days_without_rows_are_left_out() -> None:
    rows = published(out_of_sample(0.5), forecast_days=[day(-3), day(4), day(DAYS + 3)])
    assert set(rows["date"]) == {pd.Timestamp(day(4))}
    assert tuple(rows.columns) == PUBLISHED_COLUMNS


@pytest.mark.parametrize(
    "sample", [out_of_sample(0.5), out_of_sample(0.5).iloc[:0]], ids=["other days", "no rows"]
)
def test_no_published_rows_give_no_evaluation_rows(sample: pd.DataFrame) -> None:
    rows = published(sample, forecast_days=[day(-3)])
    assert (len(rows), tuple(rows.columns)) == (0, PUBLISHED_COLUMNS)
    assert evaluated(rows, APY).empty
    assert list(evaluated(rows, APY).columns) == list(
        evaluated(published(out_of_sample(0.5), forecast_days=[day(1)]), APY).columns
    )


@pytest.mark.parametrize("target", [APY, TVL], ids=lambda target: str(target.name))
def test_evaluation_rows_have_the_published_and_the_actual_values(target: Target) -> None:
    sample = out_of_sample(0.9, horizon=3)
    rows = published(sample, target, horizon=3)
    spans = (DaySpan(day(20), day(90)), DaySpan(day(90), day(DAYS)))
    first, second = (
        StackedModel(span.start, span, (FittedModel("text", (), None),), ()) for span in spans
    )
    rows_of_evaluation = evaluated(rows, target, [first, second], horizon=3)
    keys = ["pool_id", "target_date", "horizon_days", "target", "engine", "source", "as_of"]
    values = [
        "actual",
        "forecast",
        "low",
        "high",
        "persistence",
        "median_7d",
        "mean_reversion",
        "naive_low",
        "naive_high",
        "mean_abs_change",
    ]
    model = [
        "volatility_scale",
        "model_change",
        "model_change_low",
        "model_change_high",
        "gate_weight",
        "tvl_usd",
        "apy_percent",
        "interval_level",
        "model_version",
        "run_id",
    ]
    assert set(rows_of_evaluation.columns) == {*keys, *values, *model}
    assert set(rows_of_evaluation["target_date"] - rows_of_evaluation["as_of"]) == {
        dt.timedelta(days=3)
    }
    assert (
        rows_of_evaluation["actual"].isna().equals(rows_of_evaluation["target_date"] >= day(DAYS))
    )
    descriptions = rows_of_evaluation[
        ["horizon_days", "target", "engine", "source", "interval_level", "run_id"]
    ].drop_duplicates()
    assert descriptions.to_numpy().tolist() == [
        [3, target.name, "lightgbm", "backtest", 0.8, "run"]
    ]
    versions = dict(
        zip(rows_of_evaluation["as_of"], rows_of_evaluation["model_version"], strict=True)
    )
    assert [versions[day(number)] for number in (0, 19, 20, 89, 90, DAYS - 1)] == ["none"] * 2 + [
        first.version
    ] * 2 + [second.version] * 2


def test_evaluation_rows_have_each_column_of_the_sample() -> None:
    sample = out_of_sample(0.9)
    for target in (APY, TVL):
        rows_of_evaluation = evaluated(published(sample, target), target).sort_values(
            ["pool_id", "as_of"], ignore_index=True
        )
        name = target.name
        columns = {
            "actual": f"{name}_next",
            "persistence": name,
            "median_7d": f"{name}_median_7",
            "mean_reversion": f"{name}_reverted",
            "naive_low": f"{name}_naive_low",
            "naive_high": f"{name}_naive_high",
            "mean_abs_change": f"{name}_mean_abs_change",
            "volatility_scale": f"{name}_scale",
            "model_change": f"{name}_move",
            "model_change_low": f"{name}_move_low",
            "model_change_high": f"{name}_move_high",
            "tvl_usd": "tvl",
            "apy_percent": "apy",
        }
        for column, source in columns.items():
            assert np.array_equal(rows_of_evaluation[column], sample[source], equal_nan=True), (
                column
            )
