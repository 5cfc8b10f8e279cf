"""Feature drift: PSI and KS against hand-computed values, broken features, days without drift."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from forecasting.engines.engine import Features
from forecasting.features.feature_rows import rows_of_pools
from forecasting.features.pool_features import POOL_FEATURES
from forecasting.monitoring.drift import (
    MIN_ROWS,
    FeatureDrift,
    binned_ks,
    measure_drift,
    population_stability,
    reference_distribution,
)
from forecasting.monitoring.drift_checks import drift_checks
from forecasting.monitoring.feature_reference import FeatureReference, Reference
from tests.support.feature_pools import spec
from tests.support.forecast_panels import END, history_rows, metric_rows, panel_rows

NAMES = ("tvl_level", "apy_spike", "all_move_mean", "apy_move_0")
DAYS, POOLS = 200, 100
LIMITS: dict[str, float] = {
    "max_feature_psi": 0.25,
    "max_new_pools_share": 0.2,
    "max_fallback_share": 0.8,
}

Change = Callable[[Features], Features]


def generated_days(days: int, *, seed: int) -> tuple[Features, Any]:
    """Returns a level, a rare flag, one value for all pools of a day, and partly shared moves."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), POOLS)
    shared, together = random.standard_normal((2, days))
    own = random.standard_normal((2, day.size))
    columns = [
        12 + 2 * own[0],
        random.random(day.size) < 0.05,
        shared[day],
        own[1] + 0.7 * together[day],
    ]
    return np.column_stack(columns).astype(np.float32), day


def reference() -> Reference:
    matrix, day = generated_days(DAYS, seed=1)
    entries = map(asdict, reference_distribution(matrix, NAMES, day))
    stored = json.loads(json.dumps(list(entries), allow_nan=False))
    return [FeatureReference(**entry) for entry in stored]


def far(drifts: list[FeatureDrift]) -> set[str]:
    return {
        drift.feature
        for drift in drifts
        if drift.all_missing or drift.beyond > LIMITS["max_feature_psi"]
    }


def checks(drifts: list[FeatureDrift], **changes: Any) -> dict[str, dict[str, Any]]:
    arguments: dict[str, Any] = {
        "pools": ["a", "b"],
        "trained_pools": {"a", "b"},
        "reasons": [None, None],
        **LIMITS,
    }
    results = drift_checks(drifts, **arguments | changes)
    return {result.name: result.to_json() for result in results}


def test_psi_by_hand() -> None:
    expected, as_of_rows = (
        np.array([50.0, 30.0, 20.0]),
        np.array([[30.0, 10.0, 10.0], [25.0, 15.0, 10.0]]),
    )
    by_hand = (0.6 - 0.5) * np.log(0.6 / 0.5) + (0.2 - 0.3) * np.log(0.2 / 0.3)
    assert population_stability(expected, as_of_rows) == pytest.approx([by_hand, 0.0])


def test_an_empty_bin_counts_as_half_a_row_of_the_day() -> None:
    drifts = population_stability(np.array([50.0, 50.0, 0.0]), np.array([[100.0, 0.0, 100.0]]))
    by_hand = (0.0025 - 0.5) * np.log(0.0025 / 0.5) + (0.5 - 0.0025) * np.log(0.5 / 0.0025)
    assert drifts == pytest.approx([by_hand])


def test_ks_by_hand_and_never_above_the_exact_one() -> None:
    assert binned_ks(
        np.array([10.0, 10.0, 20.0, 0.0]), np.array([1.0, 4.0, 3.0, 2.0])
    ) == pytest.approx(0.2)
    (matrix, day), random = generated_days(DAYS, seed=1), np.random.default_rng(2)
    values = random.normal(13, 2, 500)
    as_of_rows = np.column_stack([values, np.zeros((500, 3))]).astype(np.float32)
    drift_of_day = {
        drift.feature: drift
        for drift in measure_drift(reference_distribution(matrix, NAMES, day), as_of_rows)
    }["tvl_level"]
    points = np.sort(np.concatenate([matrix[:, 0], as_of_rows[:, 0]]))
    trained, there = (
        np.searchsorted(np.sort(sample), points, side="right") / sample.size
        for sample in (matrix[:, 0], as_of_rows[:, 0])
    )
    exact = np.abs(trained - there).max()
    assert 0.8 * exact < drift_of_day.ks <= exact


def test_days_like_the_training_days_do_not_warn() -> None:
    """The pools of one day move together: PSI alone exceeds the limit on many days."""
    matrix, _ = generated_days(60, seed=9)
    trained_on = reference()
    drifts = [measure_drift(trained_on, day_rows) for day_rows in matrix.reshape(60, POOLS, -1)]
    assert [far(drifts_of_day) for drifts_of_day in drifts] == [set()] * 60
    assert sum(_apy_move_psi(day_drifts) > 0.25 for day_drifts in drifts) > 20


def _apy_move_psi(drifts: list[FeatureDrift]) -> float:
    return next((drift.psi for drift in drifts if drift.feature == "apy_move_0"), 0.0)


def test_the_psi_of_a_small_day_is_corrected_for_chance() -> None:
    """With twenty pools, PSI is 0.5 on average although nothing has drifted."""
    matrix, day = generated_days(DAYS, seed=1)
    trained_on = reference_distribution(matrix[:, :1], NAMES[:1], day)
    small = [
        measure_drift(trained_on, day_rows)[0]
        for day_rows in generated_days(15, seed=9)[0][:, :1].reshape(75, MIN_ROWS, 1)
    ]
    assert np.mean([drift.psi for drift in small]) > 0.35
    assert abs(np.mean([drift.beyond + trained_on[0].usual for drift in small])) < 0.1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tvl_level", lambda column: column + np.log(100.0)),
        ("tvl_level", lambda column: column / 100.0),
        ("tvl_level", lambda column: np.where(np.arange(column.size) % 3 == 0, np.nan, column)),
        ("apy_spike", lambda column: np.ones_like(column)),
        ("apy_move_0", lambda column: 100.0 * column),
        ("apy_move_0", lambda column: np.zeros_like(column)),
        ("apy_move_0", lambda column: np.where(np.arange(column.size) % 2 == 0, np.nan, column)),
        ("all_move_mean", lambda column: column + 100.0),
        ("all_move_mean", lambda column: column - 100.0),
        *((name, lambda column: np.full_like(column, np.nan)) for name in NAMES),
    ],
)
def test_a_broken_feature_is_named_and_no_other(name: str, change: Change) -> None:
    matrix = generated_days(1, seed=5)[0]
    column = NAMES.index(name)
    matrix[:, column] = change(matrix[:, column])
    drifts = measure_drift(reference(), matrix)
    assert far(drifts) == {name}
    assert drifts[0].feature == name
    check = checks(drifts)["feature_drift"]
    assert not check["passed"]
    assert check["features"][0]["feature"] == name
    assert name in check["found"]


def test_a_feature_without_a_value_is_named_whatever_the_limit() -> None:
    matrix = generated_days(1, seed=5)[0]
    matrix[:, [0, 2]] = np.nan
    check = checks(measure_drift(reference(), matrix), max_feature_psi=1e6)["feature_drift"]
    assert not check["passed"]
    assert check["found"] == "2 of 4 features: no pool has a value of all_move_mean, tvl_level"


def test_days_before_a_feature_was_there_are_no_days_without_it() -> None:
    matrix, day = generated_days(DAYS, seed=1)
    matrix[day < DAYS // 2, 0] = np.nan
    as_of_rows = generated_days(1, seed=5)[0]
    assert far(measure_drift(reference_distribution(matrix, NAMES, day), as_of_rows)) == set()


def test_a_training_day_with_few_rows_does_not_count_as_usual() -> None:
    matrix, day = generated_days(DAYS, seed=1)
    few = np.full((MIN_ROWS - 1, len(NAMES)), matrix.max(axis=0))
    trained_on = reference_distribution(
        np.concatenate([matrix, few]), NAMES, np.append(day, np.full(len(few), DAYS))
    )
    assert [feature.usual for feature in trained_on] == pytest.approx(
        [feature.usual for feature in reference()], abs=0.01
    )


def test_a_feature_without_training_values_is_not_checked() -> None:
    matrix, day = generated_days(DAYS, seed=1)
    matrix[:, 0] = np.nan
    trained_on, as_of_rows = (
        reference_distribution(matrix, NAMES, day),
        generated_days(1, seed=5)[0],
    )
    assert far(measure_drift(trained_on, as_of_rows)) == set()
    as_of_rows[:, 0] = np.nan
    assert far(measure_drift(trained_on, as_of_rows)) == set()


def test_a_handful_of_pools_is_not_checked() -> None:
    drifts = measure_drift(reference(), np.full((MIN_ROWS - 1, len(NAMES)), np.nan, np.float32))
    assert drifts == []
    assert checks(drifts)["feature_drift"]["passed"]
    assert checks(drifts)["feature_drift"]["found"] == "fewer than 20 pools: not checked"


def test_entries_are_json_with_ten_features_at_most() -> None:
    names = tuple(POOL_FEATURES[:12])
    random = np.random.default_rng(4)
    matrix = random.standard_normal((2000, len(names))).astype(np.float32)
    drifts = measure_drift(
        reference_distribution(matrix, names, np.arange(2000) // 100),
        matrix[:100] + np.arange(12, dtype=np.float32),
    )
    entries = list(checks(drifts).values())
    assert json.loads(json.dumps(entries, allow_nan=False)) == entries
    assert [(entry["name"], entry["level"], entry["severity"]) for entry in entries] == [
        (name, "batch", "warn") for name in ("feature_drift", "new_pools_share", "fallback_share")
    ]
    features_of_entry = entries[0]["features"]
    assert [feature["feature"] for feature in features_of_entry[:3]] == [
        feature.feature for feature in drifts[:3]
    ]
    assert len(features_of_entry) == 10
    assert all(set(feature) == {"feature", "psi", "ks", "beyond"} for feature in features_of_entry)
    assert "and 1 more" in entries[0]["found"]


def test_new_pools_are_those_without_a_day_in_training() -> None:
    pools_of_run = {"pools": ["a", "b", "c", "d"], "trained_pools": {"a", "b", "c", "gone"}}
    check = checks([], **pools_of_run)["new_pools_share"]
    assert (check["passed"], check["share"]) == (False, 0.25)
    assert (
        check["found"] == "1 of 4 observed pools have no training day (25%); MAX_NEW_POOLS_SHARE"
        " is 20%"
    )
    assert checks([], **pools_of_run, max_new_pools_share=0.25)["new_pools_share"]["passed"]


def test_fallback_share_counts_fallbacks() -> None:
    reasons = ["gate", "stale", None, "cold_start", "gate", "gate"]
    check = checks([], reasons=reasons)["fallback_share"]
    assert check["found"] == "5 of 6 APY forecasts are fallbacks (83%); MAX_FALLBACK_SHARE is 80%"
    assert (check["passed"], check["share"]) == (False, 0.8333)
    assert checks([], reasons=["gate"] * 4 + [None])["fallback_share"]["passed"]


def test_a_run_without_rows_has_no_share() -> None:
    drifts = checks([], pools=[], reasons=[])
    assert [drifts[name]["share"] for name in ("new_pools_share", "fallback_share")] == [0.0, 0.0]


@pytest.mark.parametrize("column", ["actual_apy", "actual_tvl"])
def test_a_days_values_in_another_unit_warn(column: str) -> None:
    """Compares the last day of a panel in percent and in basis points (or dollars and cents)."""
    rows = panel_rows(40, 200)
    broken = rows.assign(
        **{column: rows[column].where(rows["date"] != END, 100.0 * rows[column].astype(float))}
    )
    frame = feature_frame(rows, END)
    trained_on = trained(frame, END)
    assert far(measure_drift(trained_on, rows_of(frame, END))) == set()
    assert len(far(measure_drift(trained_on, rows_of(feature_frame(broken, END), END)))) > 10


def feature_frame(rows: pd.DataFrame, as_of: dt.date) -> pd.DataFrame:
    """Rows that the drift is computed of, without the cross-section, which Spark makes."""
    batches = rows_of_pools(spec(as_of=as_of, min_history_days=4))(
        metric_rows(rows.sort_values(["pool_id", "date"])).to_batches()
    )
    frame = pa.Table.from_batches(batches).to_pandas()
    modelled: pd.DataFrame = frame[frame["apy_observed"] & frame["apy_scale"].notna()]
    return modelled


def trained(frame: pd.DataFrame, as_of: dt.date) -> Reference:
    """Returns the reference of the year until 45 days before the day."""
    last = as_of - dt.timedelta(days=45)
    rows = frame[(frame["date"] < last) & (frame["date"] >= last - dt.timedelta(days=365))]
    return reference_distribution(
        rows[list(POOL_FEATURES)].to_numpy(np.float32), POOL_FEATURES, rows["date"].to_numpy()
    )


def rows_of(frame: pd.DataFrame, day: dt.date) -> Features:
    return frame.loc[frame["date"] == day, list(POOL_FEATURES)].to_numpy(np.float32)


@pytest.mark.shared_data
def test_sixty_quiet_days_of_real_pools_do_not_warn(shared_data: Path) -> None:
    """October and November 2024, quiet and without a day that lacks many pools.

    On one day 29 pools get their first scale: a quarter of the rows has no spike of yesterday.
    """
    last = dt.date(2024, 11, 30)
    rows = history_rows(shared_data / "defillama_pool_history.parquet")
    frame = feature_frame(rows[rows["date"] <= last], last)
    days_of_history = pd.date_range(end=last, periods=60).date
    warned = []
    for first in range(0, 60, 7):
        trained_on = trained(frame, days_of_history[first])
        warned += [
            day
            for day in days_of_history[first : first + 7]
            if far(measure_drift(trained_on, rows_of(frame, day)))
        ]
    assert warned == [dt.date(2024, 10, 25)]
