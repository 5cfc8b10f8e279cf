"""Labels, moves and scales of single pools, as a Spark task computes them. Needs no Spark."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest

from forecasting.features.feature_names import (
    LABELS,
    NUMBERS,
    feature_names,
)
from forecasting.features.targets import LABEL_LIMIT
from tests.forecasting.test_features import AS_OF
from tests.support.feature_pools import LONG_AGO, spec, task_rows
from tests.support.forecast_panels import (
    END,
    panel_rows,
    pool_rows,
)


def test_a_carried_value_makes_no_move_no_spike_and_no_label() -> None:
    features = task_rows(pool_rows("a", [1.0, 2.0, 1.0, 2.0, None, 4.0, 5.0, 6.0], [10.0] * 8))
    assert features["apy"].tolist() == [1.0, 2.0, 1.0, 2.0, 2.0, 4.0, 5.0, 6.0]
    assert features["apy_move_0"].isna().tolist() == [
        True,
        True,
        True,
        False,
        True,
        True,
        False,
        False,
    ], "a scale needs three moves"
    assert features["apy_spike"].isna().tolist() == features["apy_move_0"].isna().tolist()
    assert features["apy_mean_abs_change"].tolist()[1:] == [1.0] * 7
    assert features["apy_next"].isna().tolist() == [
        False,
        False,
        False,
        True,
        True,
        False,
        False,
        True,
    ]
    for name in ("apy_label", "apy_asinh_label"):
        assert features[name].isna().tolist() == [
            True,
            True,
            True,
            True,
            True,
            False,
            False,
            True,
        ], name
    assert features["tvl_label"].tolist()[3:7] == [0.0] * 4
    assert features["days_since_observed"].tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
    assert features["observed_30"].tolist() == [1, 2, 3, 4, 4, 5, 6, 7]


def change(
    values: Sequence[float | None], day: int, horizon: int, level: Callable[[float], float]
) -> float:
    now, then = values[day], values[day + horizon] if day + horizon < len(values) else None
    return math.nan if now is None or then is None else level(then) - level(now)


@pytest.mark.parametrize("horizon", [1, 3, 7])
def test_labels_are_clipped_changes_between_observed_days(horizon: int) -> None:
    apy = [*([1.0, 1.5] * 8), 500.0, 1.0, None, 2.0, 3.0, 2.5, 2.0, None, 1.0, 355_083.0, 1.2]
    tvl = [*([1e6, 1.1e6] * 8), 0.0, 1e6, 1e6, None, 2e6, 2e6, 1e12, 1e12, 1e6, 1e6, 1.1e6]
    features = task_rows(pool_rows("a", apy, tvl), spec(horizon=horizon))
    assert len(features) == len(apy)
    for day, row in enumerate(features.to_dict("records")):
        expected = {
            "apy_label": np.clip(
                change(apy, day, horizon, float) / row["apy_scale"], -LABEL_LIMIT, LABEL_LIMIT
            ),
            "apy_asinh_label": (
                math.nan
                if math.isnan(row["apy_scale"])
                else change(apy, day, horizon, lambda value: math.asinh(value / 0.1))
            ),
            "tvl_label": np.clip(
                change(tvl, day, horizon, math.log1p) / row["tvl_scale"], -LABEL_LIMIT, LABEL_LIMIT
            ),
            "apy_next": row["apy"] + change(apy, day, horizon, float),
            "tvl_next": row["tvl"] + change(tvl, day, horizon, float),
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-5, abs=1e-6, nan_ok=True), (
                f"{name} on day {day}"
            )
    assert {-LABEL_LIMIT, LABEL_LIMIT} <= set(features["tvl_label"])
    assert LABEL_LIMIT in set(features["apy_label"])


def test_a_pool_has_no_scale_and_no_label_before_it_was_observed_often_enough() -> None:
    """Carried days do not count; an observed APY or TVL is enough."""
    a = pool_rows(
        "a", [1.0, 2.0, 1.0, 2.0, None, None, 3.0, 4.0], [1e6, 2e6, 1e6, 2e6, None, None, None, 1e6]
    )
    rows = pd.concat([a, pool_rows("b", [None] * 8, [1e6, 2e6] * 4)])
    features = task_rows(rows, spec(min_history_days=5))
    assert len(features) == 16
    days_with_scale = {}
    for pool, dates in features[features["tvl_scale"].notna()].groupby("pool_id")["date"]:
        days_with_scale[pool] = [(END - day).days for day in dates]
    assert days_with_scale == {"a": [1, 0], "b": [3, 2, 1, 0]}
    assert features.loc[features["tvl_scale"].isna(), ["apy_scale", *LABELS]].isna().all(axis=None)
    assert features.loc[features["apy_label"].notna(), "date"].tolist() == [
        END - dt.timedelta(days=1)
    ]


def test_days_before_the_first_are_history_but_no_rows() -> None:
    rows = pd.concat(
        [panel_rows(6, 60), pool_rows("q", [1.0] * 5, [1e6] * 5, end=END - dt.timedelta(days=20))]
    )
    first = END - dt.timedelta(days=9)
    whole, features = task_rows(rows), task_rows(rows, spec(first_day=first))
    assert features["date"].min() == first
    pd.testing.assert_frame_equal(
        features, whole[whole["date"] >= first].reset_index(drop=True), check_exact=True
    )


def test_the_last_days_have_no_label_at_any_horizon() -> None:
    features = task_rows(panel_rows(2, 60), spec(as_of=AS_OF, horizon=3))
    assert features["date"].max() == AS_OF
    assert features.groupby("date")["apy_next"].count().tolist() == [2] * 45 + [0] * 3


def test_no_feature_names_a_pool() -> None:
    names = feature_names(market=True)
    assert len(set(names)) == len(names)
    assert not {"pool_id", "date", "pool_group", *NUMBERS, *LABELS} & set(names)
    renamed = task_rows(panel_rows(1, 60).assign(pool_id="another"))
    pd.testing.assert_frame_equal(
        renamed.drop(columns="pool_id"),
        task_rows(panel_rows(1, 60)).drop(columns="pool_id"),
        check_exact=True,
    )


def test_a_weekday_is_counted_from_monday() -> None:
    features = task_rows(
        pool_rows("a", [1.0] * 7, [1e6] * 7, end=dt.date(2024, 7, 7)),
        spec(as_of=dt.date(2024, 7, 7), first_day=LONG_AGO),
    )
    assert features["date"].iloc[0] == dt.date(2024, 7, 1)
    assert features["weekday"].tolist() == [0, 1, 2, 3, 4, 5, 6], (
        "the first of July 2024 is a Monday"
    )
