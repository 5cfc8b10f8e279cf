"""Intervals, the blend with persistence, and the way from a move back to a value."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.intervals import MIN_RESIDUALS, residual_quantiles
from forecasting.persistence_gate import MIN_ROWS, blend_weight
from forecasting.targets import targets

APY, TVL = targets(max_apy_percent=1e6, max_tvl_usd=1e12)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_coverage_on_new_residuals_is_the_nominal_one(level: float) -> None:
    random = np.random.default_rng(3)
    past, new = random.standard_t(3, 4000), random.standard_t(3, 20_000)
    low, high = residual_quantiles(past, level)
    assert np.mean((new >= low) & (new <= high)) == pytest.approx(level, abs=0.02)


def test_quantiles_are_order_statistics_with_the_finite_sample_correction() -> None:
    residuals = np.arange(-10.0, 11.0)
    # n = 21, level 0.8: rank floor(22 * 0.1) = 2 from below, ceil(22 * 0.9) = 20
    assert residual_quantiles(residuals, 0.8) == (-9.0, 9.0)


def test_an_interval_holds_its_forecast_and_needs_residuals_enough() -> None:
    low, high = residual_quantiles(np.full(100, 2.0), 0.8)
    assert (low, high) == (0.0, 2.0)
    few = np.append(np.ones(MIN_RESIDUALS - 1), np.nan)
    assert np.isnan(residual_quantiles(few, 0.8)).all()


def test_a_model_that_knows_gets_the_whole_weight_and_noise_gets_none() -> None:
    random = np.random.default_rng(5)
    moves = random.standard_normal(3000)
    assert blend_weight(moves, moves + 0.1 * random.standard_normal(3000)) == 1.0
    assert blend_weight(moves, random.standard_normal(3000)) == 0.0
    assert blend_weight(moves, 2.0 * moves) == 0.5


def test_without_rows_enough_persistence_is_published() -> None:
    moves = np.append(np.ones(MIN_ROWS - 1), np.full(100, np.nan))
    assert blend_weight(moves, moves) == 0.0


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
