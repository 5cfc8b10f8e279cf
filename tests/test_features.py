"""Features: nothing of the future, the same bits every time, equal to an oracle in plain numpy."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from forecasting.features import (
    APY_FLOOR,
    APY_RELATIVE_FLOOR,
    FEATURES,
    LABEL_LIMIT,
    LEVEL_COLUMNS,
    MOVE_LIMIT,
    SCALE_COLUMNS,
    add_features,
    add_labels,
)
from forecasting.panel import build_panel
from tests.forecast_panels import END, panel_rows, pool_rows, spark_rows

AS_OF = END - dt.timedelta(days=12)


def features_of(spark: SparkSession, rows: pd.DataFrame, as_of: dt.date) -> DataFrame:
    return add_features(build_panel(spark_rows(spark, rows), as_of))


def at(frame: DataFrame, day: dt.date) -> Any:
    return frame.where(frame["date"] == day).toPandas().sort_values("pool_id", ignore_index=True)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    generated = panel_rows(8, 70)
    wild = pool_rows("wild", [5.0] * 40 + [355_083.0, 0.0, 12.0] + [6.0] * 27, [1e6] * 40 + [0.0] * 3 + [1e12] * 27)
    return pd.concat([generated, wild], ignore_index=True)


def test_features_of_a_day_are_the_same_bits_when_all_later_data_are_deleted(spark: SparkSession, rows: pd.DataFrame) -> None:
    with_future = at(features_of(spark, rows, END), AS_OF)
    without = at(features_of(spark, rows[rows["date"] <= AS_OF], AS_OF), AS_OF)
    assert with_future["pool_id"].tolist() == without["pool_id"].tolist()
    for name in FEATURES:
        assert with_future[name].to_numpy(np.float32).tobytes() == without[name].to_numpy(np.float32).tobytes(), name
    for name in (*SCALE_COLUMNS, *LEVEL_COLUMNS):
        assert with_future[name].to_numpy(np.float64).tobytes() == without[name].to_numpy(np.float64).tobytes(), name


def test_features_equal_a_numpy_oracle(spark: SparkSession, rows: pd.DataFrame) -> None:
    found = at(features_of(spark, rows, END), END).set_index("pool_id").loc["p03"]
    apy = rows[rows["pool_id"] == "p03"].sort_values("date")["actual_apy"].to_numpy(float)
    scale = oracle_scale(apy)
    assert found["apy_scale"] == pytest.approx(scale)
    expected = {
        "apy_lag_1": (apy[-2] - apy[-1]) / scale,
        "apy_lag_30": (apy[-31] - apy[-1]) / scale,
        "apy_change_7": (apy[-1] - apy[-8]) / scale,
        "apy_mean_gap_30": (apy[-30:].mean() - apy[-1]) / scale,
        "apy_median_gap_7": (np.median(apy[-7:]) - apy[-1]) / scale,
        "apy_median_gap_30": (np.median(apy[-30:]) - apy[-1]) / scale,
        "apy_std_30": apy[-30:].std(ddof=1) / scale,
        "apy_move_today": (apy[-1] - apy[-2]) / scale,
        "apy_level": np.arcsinh(apy[-1] / 0.1),
        "weekday": END.isoweekday() % 7 + 1,
        "observed_30": 30,
        "days_since_observed": 0,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    assert found["apy_median_7"] == pytest.approx(np.median(apy[-7:]))
    assert found["apy_lowest_30"] == apy[-30:].min()


def oracle_scale(apy: npt.NDArray[np.float64]) -> float:
    """Mean of the last 30 absolute moves, each cut at 4 times the upper quartile (nearest rank) of its 30 moves plus the floor."""
    moves = np.abs(np.diff(apy))
    floors = APY_FLOOR + APY_RELATIVE_FLOOR * np.abs(apy[1:])
    capped = []
    for end in range(1, len(moves) + 1):
        window = np.sort(moves[max(0, end - 30) : end])
        capped.append(min(moves[end - 1], 4 * window[int(np.ceil(0.75 * len(window))) - 1] + floors[end - 1]))
    return float(max(np.mean(capped[-30:]), floors[-1]))


def test_cross_section_is_of_the_day_and_of_the_group(spark: SparkSession, rows: pd.DataFrame) -> None:
    today = at(features_of(spark, rows, END), END)
    moves = today["apy_move_today"].to_numpy(float)
    assert today["all_move_mean"].iloc[0] == pytest.approx(moves.mean(), rel=1e-4)
    assert today["all_move_median"].iloc[0] == pytest.approx(np.median(moves), rel=1e-4)
    stable = today[today["pool_group"] == "stable"]
    assert set(stable["pool_id"]) == {"p01", "p03", "p05", "p07"}
    assert stable["group_up_share"].iloc[0] == pytest.approx((stable["apy_move_today"] > 0).mean())
    assert today["tvl_share"].sum() == pytest.approx(1.0, rel=1e-5)


def test_dirt_stays_finite_and_bounded(spark: SparkSession, rows: pd.DataFrame) -> None:
    frame = features_of(spark, rows, END).toPandas()
    values = frame[list(FEATURES)].to_numpy(float)
    assert not np.isinf(values).any()
    gaps = [name for name in FEATURES if "gap" in name or name.startswith("apy_lag") or "move_today" in name]
    assert frame[gaps].abs().max().max() <= MOVE_LIMIT
    assert (frame["apy_scale"].dropna() > 0).all()


def test_a_carried_value_makes_no_move_and_no_label(spark: SparkSession) -> None:
    rows = pool_rows("a", [1.0, 2.0, None, 4.0, 5.0], [10.0] * 5)
    frame = add_labels(features_of(spark, rows, END), 1).toPandas().sort_values("date")
    assert frame["apy_move_today"].isna().tolist() == [True, False, True, True, False]
    assert frame["apy_label"].isna().tolist() == [False, True, True, False, True]
    assert frame["apy_next"].isna().tolist() == [False, True, True, False, True]
    assert frame["tvl_label"].tolist()[:4] == [0.0] * 4


@pytest.mark.parametrize("horizon", [1, 3])
def test_a_label_is_the_clipped_change_in_scales(spark: SparkSession, horizon: int) -> None:
    rows = pool_rows("a", [1.0] * 10 + [1.01, 500.0, 1.0, 2.0, 3.0], [10.0] * 15)
    frame = add_labels(features_of(spark, rows, END), horizon).toPandas().sort_values("date", ignore_index=True)
    expected = (frame["apy"].shift(-horizon) - frame["apy"]) / frame["apy_scale"]
    np.testing.assert_allclose(frame["apy_label"].astype(float), expected.clip(-LABEL_LIMIT, LABEL_LIMIT), rtol=1e-5)
    assert frame["apy_label"].isna().tolist() == [False] * (15 - horizon) + [True] * horizon


def test_no_feature_names_a_pool() -> None:
    assert len(set(FEATURES)) == len(FEATURES)
    assert not {"pool_id", "date", "pool_group"} & set(FEATURES)
