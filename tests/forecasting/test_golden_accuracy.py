"""The accuracy on the sample must not get worse: 30 days of 72 real pools against persistence.

Bounds are the values measured with the sample to 2025-09-29, by
`python run_spark_local.py test -n 0 -s tests/forecasting/test_golden_accuracy.py`, plus the change
that seeds and refit days make: 0.02 of a MAE ratio, 0.04 of a median's, 0.04 of coverage.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import sample_data
from forecasting.engines.folds import backtest_folds
from forecasting.engines.lightgbm_engine import LightgbmEngine
from forecasting.engines.model_parameters import ModelParameters
from forecasting.evaluation.scores import score_table, table_json
from forecasting.features.feature_names import FEATURES, LABELS
from forecasting.features.feature_rows import complete_rows
from forecasting.features.labelled_features import FeatureSpec
from forecasting.features.targets import targets
from forecasting.models.stacked_model import fit_stacked
from forecasting.publishing.past_forecasts import empty_history
from forecasting.publishing.publish import evaluation_rows, publish_days
from tests.support.forecast_panels import history_rows, metric_rows

LAST = dt.date(2025, 9, 29)
WARM_UP, SCORED, REFIT = 45, 30, 25


@contextmanager
def untimed(name: str) -> Iterator[None]:
    yield


@pytest.fixture(scope="module")
def scores() -> dict[str, Any]:
    """Takes twenty seconds: full-size models of all pools of the sample."""
    folds = backtest_folds(LAST, days=WARM_UP + SCORED, horizon=1, train_days=365, refit_days=REFIT)
    spec = FeatureSpec(folds.first_day, LAST, horizon=1, level=0.8, min_history_days=4)
    history = history_rows(Path(sample_data.__file__).parent / "pool_history.parquet")
    rows = complete_rows(metric_rows(history).to_batches(), spec, None)
    dataset = LightgbmEngine(ModelParameters(seed=1, threads=2)).prepare(rows, FEATURES, LABELS)
    sample = fit_stacked(dataset, folds, 0.8, untimed)
    periods = []
    for target in targets(max_apy_percent=1e6, max_tvl_usd=1e12):
        published = publish_days(
            sample.rows, target, folds.forecast.days, horizon=1, level=0.8, history=empty_history()
        )
        scored = published[published["date"] >= pd.Timestamp(LAST) - pd.Timedelta(days=SCORED)]
        with_actuals = scored[scored["next"].notna()]
        periods.append(
            evaluation_rows(
                with_actuals,
                sample,
                target,
                horizon=1,
                engine="lightgbm",
                level=0.8,
                source="backtest",
                run_id="golden",
            )
        )
    table = score_table(pd.concat(periods), 0.8)
    for target_name, classes in table.items():
        print(
            target_name,
            {name: (score.rows, score.ratio, score.interval) for name, score in classes.items()},
        )
    return table_json(table)


@pytest.mark.parametrize(
    ("target", "name", "mae", "median"),
    [
        ("apy", "restricted", 0.823, 0.825),
        ("apy", "all", 0.948, 0.788),
        ("tvl", "restricted", 0.993, 1.057),
        ("tvl", "all", 0.992, 1.024),
    ],
)
def test_forecasts_are_no_worse_than_they_were(
    scores: dict[str, Any], target: str, name: str, mae: float, median: float
) -> None:
    target_scores = scores[target][name]
    assert target_scores["ratio"]["mae"] <= mae + 0.02
    assert target_scores["ratio"]["median_ae"] <= median + 0.04


@pytest.mark.parametrize("target", ["apy", "tvl"])
def test_intervals_have_their_nominal_coverage(scores: dict[str, Any], target: str) -> None:
    interval = scores[target]["restricted"]["interval"]
    assert interval["coverage"] == pytest.approx(0.8, abs=0.04)
    assert interval["pinball_ratio"] < 1.05
