"""Noise of a ratio over days: blocks of whole days, exact medians, reproducible results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.evaluation.day_bootstrap import (
    BLOCK_DAYS,
    RESAMPLES,
    Interval,
    mean_ratio_interval,
    median_ratio_interval,
    resample_counts,
    resampled_medians,
)
from forecasting.evaluation.error_measures import Integers
from forecasting.features.targets import Values

IntervalOf = Callable[[Values, Values, Integers], Interval]

INTERVALS = pytest.mark.parametrize(
    "interval", [mean_ratio_interval, median_ratio_interval], ids=["mean", "median"]
)


def sample(
    days: int = 60, rows: int = 50, *, by_day: float = 0.0, by_row: float = 0.3
) -> tuple[Values, Values, Integers]:
    """Returns errors of a model and of persistence with a ratio around 0.9.

    Noise is shared by a day's rows, or each row has its own.
    """
    random = np.random.default_rng(7)
    numbers = np.repeat(np.arange(days), rows)
    persistence = random.lognormal(0, 1, days * rows)
    log_ratio = (
        np.log(0.9)
        + by_day * random.standard_normal(days)[numbers]
        + by_row * random.standard_normal(days * rows)
    )
    return persistence * np.exp(log_ratio), persistence, numbers


def width(interval: Interval) -> float:
    low, high = interval
    assert low is not None
    assert high is not None
    return high - low


@INTERVALS
def test_an_interval_contains_the_ratio_and_is_reproducible(interval: IntervalOf) -> None:
    model, persistence, days = sample(by_day=0.2)
    low, high = interval(model, persistence, days)
    assert low is not None
    assert high is not None
    middle = np.mean if interval is mean_ratio_interval else np.median
    assert low < middle(model) / middle(persistence) < high
    assert interval(model, persistence, days) == (low, high)
    shuffled = np.random.default_rng(1).permutation(len(days))
    assert interval(model[shuffled], persistence[shuffled], days[shuffled]) == pytest.approx(
        (low, high), rel=1e-12
    )


@INTERVALS
def test_the_same_errors_have_no_noise(interval: IntervalOf) -> None:
    _, persistence, days = sample()
    assert interval(persistence.copy(), persistence, days) == (1.0, 1.0)


@INTERVALS
def test_more_noise_makes_a_wider_interval(interval: IntervalOf) -> None:
    assert width(interval(*sample(by_day=0.3))) > 1.3 * width(interval(*sample(by_day=0.1))) > 0


def test_errors_shared_by_a_day_do_not_average_out_over_rows() -> None:
    model, persistence, days = sample(rows=400, by_day=0.3)
    random = np.random.default_rng(3)
    drawn = [random.integers(len(days), size=len(days)) for _ in range(200)]
    by_rows = np.quantile(
        [model[rows].mean() / persistence[rows].mean() for rows in drawn], [0.05, 0.95]
    )
    assert width(mean_ratio_interval(model, persistence, days)) > 3 * (by_rows[1] - by_rows[0])


def test_errors_shared_by_neighbouring_days_do_not_average_out_over_days() -> None:
    weeks = np.random.default_rng(5).normal(0.9, 0.3, 12).repeat(7)
    days, random = np.arange(len(weeks)), np.random.default_rng(6)
    mixed = random.permutation(len(weeks))
    unit_errors = np.ones(len(weeks))
    assert width(mean_ratio_interval(weeks, unit_errors, days)) > 1.5 * width(
        mean_ratio_interval(weeks[mixed], unit_errors, days)
    )


@INTERVALS
def test_fewer_than_two_blocks_of_days_give_no_interval(interval: IntervalOf) -> None:
    assert interval(*sample(days=2 * BLOCK_DAYS - 1)) == (None, None)
    assert interval(*sample(days=1)) == (None, None)
    assert width(interval(*sample(days=2 * BLOCK_DAYS))) > 0


@INTERVALS
def test_a_resample_without_an_error_of_persistence_or_with_an_unknown_one_has_no_ratio(
    interval: IntervalOf,
) -> None:
    model, persistence, days = sample()
    assert interval(model, np.where(days == 3, persistence, 0.0), days) == (None, None)
    assert interval(np.where(days == 3, np.nan, model), persistence, days) == (None, None)


@pytest.mark.parametrize("days", [14, 30, 61])
def test_days_are_drawn_in_circular_blocks_each_as_often_as_any_other(days: int) -> None:
    drawn = resample_counts(np.arange(days))
    assert drawn is not None
    assert drawn.shape == (RESAMPLES, days)
    assert (drawn.sum(axis=1) == days).all()
    assert drawn.mean(axis=0) == pytest.approx(np.ones(days), abs=0.15)
    together = np.corrcoef(drawn[:, 0], drawn[:, -1])[0, 1]
    assert together == pytest.approx(np.corrcoef(drawn[:, 5], drawn[:, 6])[0, 1], abs=0.1)
    assert together > 0.5


@given(
    errors=st.lists(st.integers(0, 6).map(float), min_size=1, max_size=60),
    days=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_medians_are_those_of_the_rows_written_out(
    errors: list[float], days: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    numbers = np.concatenate([np.arange(days), random.integers(days, size=len(errors))])
    values = np.concatenate([random.integers(7, size=days), errors]).astype(float)
    drawn = random.multinomial(days, np.full(days, 1 / days), size=8).astype(float)
    expected = [np.median(np.repeat(values, times.astype(int)[numbers])) for times in drawn]
    assert resampled_medians(values, numbers, drawn).tolist() == expected
