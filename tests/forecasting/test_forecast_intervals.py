"""Intervals: their width from past errors, their coverage, and the step from a move to a value."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from forecasting.features.targets import Values, targets
from forecasting.publishing.intervals import (
    HALF_WIDTH_FLOOR,
    MIN_PAST,
    PANEL_DAYS,
    cold_start_quantiles,
    half_widths,
    relative_quantiles,
    tail_factors,
    weighted_quantile,
)
from forecasting.publishing.past_forecasts import (
    PAST_COLUMNS,
    PastForecasts,
    empty_history,
    past_forecasts,
)

DAY = dt.date(2024, 6, 30)
Days = npt.NDArray[np.int64]
APY, TVL = targets(max_apy_percent=1e6, max_tvl_usd=1e12)


def past_of(actual_move: Values, age: Days | None = None, *, high: float = 1.0) -> PastForecasts:
    """Returns past forecasts without a move, and half-widths of one scale and `high` scales."""
    today, nothing = np.zeros(actual_move.size, dtype=np.int64), np.zeros(actual_move.size)
    pools = np.full(actual_move.size, "p", dtype=object)
    return PastForecasts(
        pools,
        today if age is None else age,
        move=nothing,
        low=nothing - 1.0,
        high=nothing + high,
        actual_move=actual_move,
        change=actual_move,
        is_cold=np.zeros(actual_move.size, dtype=bool),
    )


def factors_of(past: PastForecasts, level: float) -> tuple[float, float]:
    """Returns the steps of a gate that publishes the whole move."""
    return tail_factors(past, past.move, level)


def generated(
    actual: Values, age: Days | int = 0, *, up: float = 0.4, **columns: Any
) -> pd.DataFrame:
    """Returns pools at 50 %, each with its own scale, with forecasts `up` and actual moves in
    scales.

    The model's own interval is much too narrow, and more so below than above.

    Args:
        columns: replace generated columns.
    """
    scale = np.exp(np.linspace(-3.0, 1.0, actual.size))
    columns_of_rows = {
        "pool_id": "p",
        "target_day": (
            pd.Timestamp(DAY) - pd.to_timedelta(np.broadcast_to(age, actual.size), unit="D")
        ),
        "now": 50.0,
        "next": 50.0 + scale * actual,
        "volatility_scale": scale,
        "model_change": up,
        "model_change_low": up - 0.3,
        "model_change_high": up + 0.6,
    }
    return pd.DataFrame(columns_of_rows | columns)


def outside(
    rows: pd.DataFrame, factors: tuple[float, float], share: float = 1.0
) -> tuple[float, float]:
    """Returns the shares of rows below and above the interval of these factors."""
    steps = share * rows["model_change"].to_numpy(float)
    low, high = half_widths(
        steps, rows["model_change_low"].to_numpy(float), rows["model_change_high"].to_numpy(float)
    )
    ends = (
        rows["now"] + (steps - factors[0] * low) * rows["volatility_scale"],
        rows["now"] + (steps + factors[1] * high) * rows["volatility_scale"],
    )
    return float((rows["next"] < ends[0]).mean()), float((rows["next"] > ends[1]).mean())


def test_a_weighted_quantile_is_the_smallest_value_that_reaches_its_share() -> None:
    values, weights = np.array([30.0, 10.0, 20.0]), np.array([1.0, 1.0, 2.0])
    quantiles = [
        weighted_quantile(values, weights, level) for level in (0.0, 0.25, 0.26, 0.75, 0.76, 1.0)
    ]
    assert quantiles == [10.0, 10.0, 20.0, 20.0, 30.0, 30.0]
    assert weighted_quantile(np.array([7.0]), np.array([0.1]), 0.9) == 7.0


@pytest.mark.parametrize("seed", range(5))
def test_weighted_quantiles_are_those_of_the_slow_oracle(seed: int) -> None:
    random = np.random.default_rng(seed)
    values, weights = np.round(random.standard_normal(300), 1), random.uniform(size=300)
    for level in (0.05, 0.5, 0.9, 0.975):
        reaching = [
            value for value in values if sum(weights[values <= value]) >= level * sum(weights)
        ]
        assert weighted_quantile(values, weights, level) == min(reaching)


@pytest.mark.parametrize(("level", "expected"), [(0.8, 800.0), (0.5, 500.0), (0.95, 950.0)])
def test_each_tail_leaves_half_of_the_rest_outside(level: float, expected: float) -> None:
    assert factors_of(past_of(np.arange(-1000.0, 1001.0), high=5.0), level) == (
        expected,
        expected / 5.0,
    )


def test_factors_are_never_negative() -> None:
    low, high = factors_of(past_of(np.linspace(0.5, 2.0, 1000)), 0.8)
    assert low == 0.0
    assert high == pytest.approx(1.85, abs=0.01)


def test_without_past_forecasts_enough_there_is_no_factor() -> None:
    assert factors_of(past_of(np.ones(MIN_PAST)), 0.8) == (0.0, 1.0)
    too_few = np.append(np.ones(MIN_PAST - 1), np.full(50, np.nan))
    assert np.isnan(factors_of(past_of(too_few), 0.8)).all()
    assert np.isnan(factors_of(past_forecasts(APY, empty_history(), DAY), 0.8)).all()


def test_a_miss_counts_half_after_twenty_days() -> None:
    """1000 errors of 1 that are 20 days old weigh as much as 500 new ones of 2.

    The median is 1, and 2 with two fewer.
    """
    age = np.repeat([20, 0], [1000, 500])
    sizes = np.append(np.ones(1000), np.full(500, 2.0))
    assert factors_of(past_of(sizes, age), 0.0)[1] == 1.0
    assert factors_of(past_of(sizes[2:], age[2:]), 0.0)[1] == 2.0


@pytest.mark.parametrize("share", [1.0, 0.0])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_coverage_of_exchangeable_errors_is_nominal(level: float, share: float) -> None:
    """18,000 past and 50,000 new rows of a skewed distribution with heavy tails.

    Each tail is within one point of its half, over two standard errors.
    """
    random = np.random.default_rng(3)
    rows = [
        generated(
            random.standard_t(3, count) + random.exponential(1.0, count),
            random.integers(0, 90, count),
        )
        for count in (18_000, 50_000)
    ]
    past = past_forecasts(APY, rows[0], DAY)
    factors = tail_factors(past, share * past.move, level)
    below, above = outside(rows[1], factors, share)
    assert below == pytest.approx((1.0 - level) / 2.0, abs=0.01)
    assert above == pytest.approx((1.0 - level) / 2.0, abs=0.01)
    assert 1.0 - below - above == pytest.approx(level, abs=0.015)


def test_recent_errors_count_more_after_a_change_of_regime() -> None:
    """Errors of the last 40 of 90 days are three times as large, with four fifths of the weight."""
    random = np.random.default_rng(4)
    age = random.integers(0, 90, 18_000)
    past = past_forecasts(
        APY,
        generated(np.where(age < 40, 3.0, 1.0) * random.standard_normal(18_000), age, up=0.0),
        DAY,
    )
    now = generated(3.0 * random.standard_normal(50_000), up=0.0)
    assert sum(outside(now, factors_of(past, 0.8))) == pytest.approx(0.255, abs=0.02)
    low, high = half_widths(past.move, past.low, past.high)
    misses = (past.move - past.actual_move) / low, (past.actual_move - past.move) / high
    alike = (
        weighted_quantile(misses[0], np.ones(18_000), 0.9),
        weighted_quantile(misses[1], np.ones(18_000), 0.9),
    )
    assert sum(outside(now, alike)) > 0.4


def test_half_widths_reach_from_the_published_step_to_the_models_quantiles() -> None:
    widths = half_widths(np.array([1.0, 0.0]), np.array([0.25, 0.25]), np.array([3.0, 3.0]))
    assert [width.tolist() for width in widths] == [[0.75, HALF_WIDTH_FLOOR], [2.0, 3.0]]


def test_a_half_width_is_unknown_without_a_quantile() -> None:
    low, high = half_widths(np.ones(2), np.array([0.5, np.nan]), np.array([np.nan, 4.0]))
    assert (low[0], high[1]) == (0.5, 3.0)
    assert np.isnan([low[1], high[0]]).all()


def cold_starts(changes: Values, age: Days | int = 0) -> pd.DataFrame:
    """Returns pools at 50 % without a scale, with these changes as shares of 50.1 points."""
    return generated(
        np.zeros(changes.size), age, volatility_scale=np.nan, next=50.0 + 50.1 * changes
    )


def calm_panel(rows: int = 5_000) -> pd.DataFrame:
    """Returns pools with a scale and uniform relative changes from -1 % to 1 %, over 90 days."""
    return cold_starts(np.linspace(-0.01, 0.01, rows), np.arange(rows) % 90).assign(
        volatility_scale=1.0
    )


@pytest.mark.parametrize("target", [APY, TVL], ids=lambda target: str(target.name))
@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_cold_start_quantiles_are_those_of_the_slow_oracle(target: Any, level: float) -> None:
    """A pool that starts alone counts 1, each of n counts 1 / sqrt(n), all others PANEL_DAYS
    together.
    """
    random = np.random.default_rng(5)
    cold = cold_starts(
        0.2 * random.standard_normal(300), np.minimum(random.geometric(0.05, 300), 89)
    )
    panel = calm_panel(700)
    alike = [int((cold["target_day"] == day).sum()) for day in cold["target_day"]]
    assert len(set(alike)) > 10
    weights = [PANEL_DAYS / 700] * 700 + [count**-0.5 for count in alike]
    pairs = [
        (float(row["now"]), float(row["next"]))
        for row in pd.concat([panel, cold]).to_dict("records")
    ]
    changes = [
        math.log1p(after) - math.log1p(now) if target is TVL else (after - now) / (now + 0.1)
        for now, after in pairs
    ]
    unknown = pd.concat([panel, cold]).assign(next=np.nan)
    past = past_forecasts(target, pd.concat([panel, cold, unknown]), DAY)
    quantiles = cold_start_quantiles(past, level)
    for end, share in zip(quantiles, ((1 - level) / 2, (1 + level) / 2), strict=True):
        up_to = {change: _weight_up_to(change, changes, weights) for change in changes}
        assert end == pytest.approx(
            min(
                change for change, reached in up_to.items() if reached >= share * math.fsum(weights)
            )
        )


def _weight_up_to(change: float, changes: list[float], weights: list[float]) -> float:
    pairs = zip(changes, weights, strict=True)
    return math.fsum(weight for other, weight in pairs if other <= change)


def test_where_no_pool_has_begun_before_a_beginner_has_the_panels_interval() -> None:
    past = past_forecasts(APY, calm_panel(), DAY)
    assert cold_start_quantiles(past, 0.8) == pytest.approx(relative_quantiles(past, 0.8), abs=1e-5)


def test_cold_starts_learn_from_cold_starts_and_no_single_day_dominates() -> None:
    """80 pools that rise by half on separate days, and 400 that start on one day and stay."""
    rose, stayed = cold_starts(np.full(80, 0.5), np.arange(80)), cold_starts(np.zeros(400), 85)
    past = past_forecasts(APY, pd.concat([calm_panel(), rose, stayed]), DAY)
    low, high = cold_start_quantiles(past, 0.8)
    assert -0.01 <= low <= 0.0
    assert high == pytest.approx(0.5)
    assert relative_quantiles(past, 0.8)[1] < 0.01


def test_the_panel_narrows_the_interval_of_volatile_cold_starts_only_slightly() -> None:
    """90 cold starts and a calm panel: the tail of 5.5 of all 110 ends at the sixth cold start."""
    random = np.random.default_rng(6)
    inside, panel = [], calm_panel(1_000)
    for _ in range(200):
        rows = pd.concat([panel, cold_starts(random.standard_normal(90), np.arange(90))])
        low, high = cold_start_quantiles(past_forecasts(APY, rows, DAY), 0.9)
        now = random.standard_normal(500)
        inside.append(((low <= now) & (now <= high)).mean())
    assert np.mean(inside) == pytest.approx(1 - 12 / 91, abs=0.01)


def test_relative_quantiles_contain_today_and_need_a_past() -> None:
    rising, falling = (
        cold_starts(np.linspace(0.1, 0.2, MIN_PAST)),
        cold_starts(np.linspace(-0.2, -0.1, MIN_PAST)),
    )
    unknown = pd.concat([rising.iloc[1:], rising.assign(next=np.nan)])
    for quantiles in (relative_quantiles, cold_start_quantiles):
        up, down, too_few, none = (
            quantiles(past_forecasts(APY, rows, DAY), 0.8)
            for rows in (rising, falling, unknown, empty_history())
        )
        assert up == pytest.approx((0.0, 0.19), abs=0.001)
        assert down == pytest.approx((-0.19, 0.0), abs=0.001)
        assert (up[0], down[1]) == (0.0, 0.0)
        assert np.isnan([too_few, none]).all()


def test_a_past_forecast_has_forecast_and_actual_moves_in_scales() -> None:
    rows = generated(
        np.zeros(2),
        pool_id=["a", "b"],
        volatility_scale=2.0,
        next=[54.0, 48.0],
        model_change=1.0,
        model_change_low=0.0,
        model_change_high=3.0,
    )
    past = past_forecasts(APY, rows, DAY)
    assert past.pool_id.tolist() == ["a", "b"]
    assert [values.tolist() for values in (past.move, past.low, past.high)] == [
        [1.0, 1.0],
        [0.0, 0.0],
        [3.0, 3.0],
    ]
    assert past.actual_move.tolist() == [2.0, -1.0]


def test_tvls_past_is_in_logarithms() -> None:
    past = past_forecasts(
        TVL,
        generated(np.zeros(1), now=np.expm1(3.0), next=np.expm1(3.3), volatility_scale=0.1),
        DAY,
    )
    assert past.actual_move[0] == pytest.approx(3.0)


def test_only_target_days_of_the_last_ninety_days_with_actual_values_are_used() -> None:
    rows = generated(np.zeros(6), np.array([-1, 0, 1, 89, 90, 5]), pool_id=list("abcdef"))
    rows.loc[5, "next"] = np.nan
    past = past_forecasts(APY, rows, DAY)
    assert past.pool_id.tolist() == ["b", "c", "d"]
    assert past.age.tolist() == [0, 1, 89]


def test_days_and_pools_are_counted_where_a_move_was_forecast() -> None:
    rows = generated(
        np.zeros(4),
        np.array([0, 0, 1, 2]),
        pool_id=list("abab"),
        model_change=[1.0, 1.0, 1.0, np.nan],
    )
    past = past_forecasts(APY, rows, DAY)
    assert (past.days, past.pools) == (2, 2)
    assert (past_forecasts(APY, empty_history(), DAY).days, tuple(empty_history().columns)) == (
        0,
        PAST_COLUMNS,
    )


def test_tvl_is_never_negative_nor_beyond_the_limit() -> None:
    values = np.array([0.0, 5.0, 1e11])
    assert TVL.moved(values, np.full(3, -50.0), np.zeros(3)).tolist() == [0.0, 0.0, 0.0]
    assert TVL.moved(values, np.full(3, 500.0), np.zeros(3)) == pytest.approx(np.full(3, 1e12))


def test_apy_goes_below_zero_only_where_the_pool_has_been() -> None:
    moved = APY.moved(np.array([1.0, 1.0]), np.array([-3.0, -3.0]), np.array([0.0, -5.0]))
    assert moved.tolist() == [0.0, -2.0]
    assert APY.moved(np.array([355_083.0]), np.array([1e9]), np.zeros(1)).tolist() == [1e6]


def test_no_step_is_the_value_itself_and_nan_stays_unknown() -> None:
    values = np.array([123_456.789, 0.1])
    assert TVL.moved(values, np.zeros(2), np.zeros(2)).tolist() == values.tolist()
    assert np.isnan(TVL.moved(np.array([np.nan]), np.zeros(1), np.zeros(1))).all()
    assert np.isnan(APY.moved(np.array([1.0]), np.array([np.nan]), np.zeros(1))).all()
