"""Features, scales and baselines of a pool: equal to their definitions on plain lists; bounds."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forecasting.features.feature_names import FLAGS, LABELS, NUMBERS
from forecasting.features.pool_features import (
    BASELINES,
    LEVELS,
    MOVE_LIMIT,
    POOL_FEATURES,
    SCALES,
)
from forecasting.features.source_queries import LOOK_BACK_DAYS
from forecasting.features.targets import LABEL_LIMIT
from tests.support.feature_pools import DIRT, PASTS, POOLS, oracle_of, spec, task_rows
from tests.support.forecast_panels import END, pool_rows

DISTANCES = [name for name in POOL_FEATURES if re.search("gap|move|std|change", name)]
EXPONENTIAL = [name for name in DISTANCES if "exponential" in name]
OF_MANY_SCALES = re.compile("slope|step|spike|scale|reverted")
FORGOTTEN = 0.003
"""In scales. Exponential means with a half-life of 10 days weigh what lies before the look-back by
0.5 ** 12, a 4000th; ordinary pools were nowhere more than ten scales from there.
"""


@pytest.mark.parametrize("pool", POOLS)
def test_every_value_of_every_day_equals_the_oracle(pool: str) -> None:
    rows = POOLS[pool]()
    oracle, features = oracle_of(rows), task_rows(rows)
    assert len(features) == rows[["actual_apy", "actual_tvl"]].notna().any(axis=1).sum()
    for row in features.to_dict("records"):
        day = (row["date"] - oracle.first_day).days
        expected = oracle.at(day)
        assert expected.keys() == {*POOL_FEATURES, *SCALES, *LEVELS, *BASELINES}
        for name, value in (expected | {"apy": oracle.apy[day], "tvl": oracle.tvl[day]}).items():
            expected_number = np.nan if value is None else value
            near = (
                {"rel": 1e-5, "abs": 1e-5} if name in POOL_FEATURES else {"rel": 1e-9, "abs": 1e-6}
            )
            assert row[name] == pytest.approx(expected_number, nan_ok=True, **near), (
                f"{name} on day {day}"
            )
        assert [row["apy_observed"], row["tvl_observed"]] == [
            oracle.apy_observed[day],
            oracle.tvl_observed[day],
        ]


@pytest.mark.parametrize("level", [0.8, 0.5, 1.0])
def test_the_naive_interval_is_of_the_last_sixty_moves_at_its_level(level: float) -> None:
    steps = [100.0] * 5 + [float(step) for step in range(-5, 6)] * 6
    apy = np.cumsum([1000.0, *steps]).tolist()
    row = task_rows(pool_rows("a", apy, [1e6] * len(apy)), spec(first_day=END, level=level)).iloc[0]
    for name, at in (("apy_naive_low", (1 - level) / 2), ("apy_naive_high", (1 + level) / 2)):
        assert row[name] - row["apy"] == pytest.approx(np.quantile(steps[-60:], at), abs=1e-9)


@pytest.mark.parametrize("kind", DIRT)
def test_features_of_dirty_values_are_finite_and_bounded(kind: str) -> None:
    """A warning of numpy, such as a division by zero, is an error here."""
    rows = pool_rows("a", *DIRT[kind])
    features = task_rows(rows)
    assert len(features) == rows[["actual_apy", "actual_tvl"]].notna().any(axis=1).sum()
    assert not np.isinf(features[[*NUMBERS, *LABELS, *POOL_FEATURES]].to_numpy(float)).any()
    assert not (features[DISTANCES].abs() > MOVE_LIMIT).any(axis=None)
    assert not (features[list(LABELS)].abs() > LABEL_LIMIT).any(axis=None)
    assert not (features[list(SCALES)] < 0.001).any(axis=None)
    assert (
        features[["age_days", "observed_30", "days_since_observed", "weekday"]]
        .notna()
        .all(axis=None)
    )


def test_a_spike_and_a_lost_tvl_are_the_largest_moves_there_are() -> None:
    jumped = task_rows(
        pool_rows("a", [5.0] * 59 + [355_083.0], [1e6] * 59 + [0.0]), spec(first_day=END)
    ).iloc[0]
    assert [jumped["apy_move_0"], jumped["tvl_move_0"], jumped["apy_spike"]] == [
        MOVE_LIMIT,
        -MOVE_LIMIT,
        1.0,
    ]


def with_and_without_past(rows: pd.DataFrame) -> tuple[pd.Series[Any], pd.Series[Any]]:
    """Returns the last day's row, from the whole history and from the look-back only."""
    look_back_rows = rows[rows["date"] >= END - dt.timedelta(days=LOOK_BACK_DAYS)]
    return (
        task_rows(rows, spec(first_day=END)).iloc[0],
        task_rows(look_back_rows, spec(first_day=END)).iloc[0],
    )


@pytest.mark.parametrize("past", PASTS)
def test_days_before_the_look_back_change_nothing_but_exponential_means(past: str) -> None:
    """Values without a scale keep their bits; distances keep theirs before the division by the
    scale.
    """
    whole, without_past = with_and_without_past(PASTS[past]())
    for name in {*FLAGS, *NUMBERS, *POOL_FEATURES}.difference(EXPONENTIAL):
        if name in DISTANCES:
            scale = "tvl_scale" if name.startswith("tvl") else "apy_scale"
            is_cut = MOVE_LIMIT in (abs(whole[name]), abs(without_past[name]))
            assert is_cut or without_past[name] * without_past[scale] == pytest.approx(
                whole[name] * whole[scale], rel=1e-6, nan_ok=True
            ), name
        elif not OF_MANY_SCALES.search(name):
            np.testing.assert_array_equal(without_past[name], whole[name], name)


@pytest.mark.parametrize("past", ["regular", "irregular"])
def test_exponential_means_have_nearly_forgotten_the_days_before_the_look_back(past: str) -> None:
    whole, without_past = with_and_without_past(PASTS[past]())
    assert whole["apy_scale"] != without_past["apy_scale"]
    for name in (*SCALES, *POOL_FEATURES):
        limit = FORGOTTEN * whole[name] if name in SCALES else FORGOTTEN
        assert without_past[name] == pytest.approx(whole[name], rel=0, abs=limit, nan_ok=True), name
