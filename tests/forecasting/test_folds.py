"""Folds in time: no model has seen a target beyond its origin, and each day is forecast once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from itertools import chain, pairwise

import pytest

from forecasting.engines.folds import (
    COARSE_DAYS,
    DaySpan,
    Fold,
    FoldPlan,
    backtest_folds,
    inference_folds,
    refit_folds,
)

AS_OF = dt.date(2024, 6, 30)


def folds(horizon: int = 1, **overrides: int) -> FoldPlan:
    return backtest_folds(
        AS_OF, horizon=horizon, **({"train_days": 365, "days": 30, "refit_days": 7} | overrides)
    )


def before(days: int) -> dt.date:
    return AS_OF - dt.timedelta(days=days)


def test_a_span_contains_its_first_day_and_not_its_end() -> None:
    span = DaySpan(before(2), AS_OF)
    assert span.days == [before(2), before(1)]
    assert [day in span for day in (before(3), before(2), before(1), AS_OF)] == [
        False,
        True,
        True,
        False,
    ]
    assert DaySpan(AS_OF, AS_OF).days == []


@pytest.mark.parametrize("horizon", [1, 3, 7])
def test_a_model_is_trained_on_targets_known_at_its_origin(horizon: int) -> None:
    plan = folds(horizon)
    for fold in (*plan.tvl, *plan.apy):
        last_trained = fold.train.end - dt.timedelta(days=1)
        assert last_trained + dt.timedelta(days=horizon) == fold.origin
        assert fold.forecast.start == fold.origin


@pytest.mark.parametrize("horizon", [1, 3, 7])
def test_each_day_is_forecast_by_exactly_one_model(horizon: int) -> None:
    plan = folds(horizon)
    for folds_of_target in (plan.tvl, plan.apy):
        assert (
            _forecast_days(folds_of_target)
            == DaySpan(folds_of_target[0].origin, plan.forecast.end).days
        )
    assert plan.forecast.days == _forecast_days(plan.apy)


def _forecast_days(folds_of_target: Iterable[Fold]) -> list[dt.date]:
    return list(chain.from_iterable(fold.forecast.days for fold in folds_of_target))


@pytest.mark.parametrize("horizon", [1, 3, 7])
def test_past_days_are_those_whose_targets_end_with_the_last_known_day(horizon: int) -> None:
    days = folds(horizon).forecast.days
    assert len(days) == 30
    assert days[-1] + dt.timedelta(days=horizon) == AS_OF


def test_a_model_is_refitted_at_its_interval() -> None:
    assert [fold.origin for fold in folds().apy] == [
        before(30),
        before(23),
        before(16),
        before(9),
        before(2),
    ]
    assert [fold.origin for fold in folds(refit_days=90).apy] == [before(30)]


@pytest.mark.parametrize("horizon", [1, 3, 7])
def test_training_takes_its_window_and_no_day_more(horizon: int) -> None:
    for fold in folds(horizon).apy:
        assert len(fold.train.days) == 365


def test_a_window_of_zero_days_takes_all_there_is() -> None:
    plan = folds(train_days=0)
    assert max(fold.train.start for fold in (*plan.tvl, *plan.apy)) < before(3600)
    assert [fold.train.end for fold in plan.apy] == [fold.train.end for fold in folds().apy]
    assert len(plan.tvl) - len(plan.apy) == len(COARSE_DAYS)


@pytest.mark.parametrize("validation_days", [0, 45])
@pytest.mark.parametrize("horizon", [1, 3])
def test_a_refit_has_one_origin_and_forecasts_the_validation_days_and_the_as_of_day(
    horizon: int, validation_days: int
) -> None:
    """The first `validation_days` forecast days have target days up to the as-of day."""
    plan = refit_folds(AS_OF, horizon=horizon, train_days=365, validation_days=validation_days)
    origin = before(validation_days + horizon - 1)
    assert [fold.origin for fold in plan.apy] == [origin]
    assert (plan.as_of, plan.forecast.days[0], plan.forecast.days[-1]) == (AS_OF, origin, AS_OF)
    assert (
        len([day for day in plan.forecast.days if day + dt.timedelta(days=horizon) <= AS_OF])
        == validation_days
    )
    assert plan.apy[0].train.days[-1] + dt.timedelta(days=horizon) == origin
    assert len(plan.apy[0].train.days) == 365
    assert [fold.origin for fold in plan.tvl] == [
        origin - dt.timedelta(days=days) for days in (*COARSE_DAYS, 0)
    ]


@pytest.mark.parametrize("horizon", [1, 3])
def test_a_run_with_a_model_fits_nothing_and_forecasts_its_day(horizon: int) -> None:
    plan = inference_folds(AS_OF, horizon=horizon)
    assert (plan.tvl, plan.apy) == ((), ())
    assert (plan.forecast.days, plan.first_day, plan.as_of) == ([AS_OF], AS_OF, AS_OF)


def test_tvl_begins_with_coarse_folds_that_end_where_apys_begin() -> None:
    plan = folds()
    first = plan.apy[0].origin
    assert [fold.origin for fold in plan.tvl] == [
        *(first - dt.timedelta(days=days) for days in COARSE_DAYS),
        *(fold.origin for fold in plan.apy),
    ]
    assert [len(fold.forecast.days) for fold in plan.tvl[:3]] == [90, 90, 90]
    assert all(
        earlier.forecast.end == later.forecast.start for earlier, later in pairwise(plan.tvl)
    )
    assert (len(plan.tvl), len(plan.apy)) == (8, 5)


@pytest.mark.parametrize("horizon", [1, 7])
@pytest.mark.parametrize(("window", "coarse"), [(60, 0), (90, 0), (91, 1), (200, 2), (365, 3)])
def test_a_short_window_has_fewer_coarse_folds_and_reads_no_further(
    window: int, coarse: int, horizon: int
) -> None:
    plan = folds(horizon, train_days=window)
    assert len(plan.tvl) - len(plan.apy) == coarse
    assert plan.first_day == before(30 + window + 2 * (horizon - 1))
    assert all(fold.train.days for fold in plan.tvl)


@pytest.mark.parametrize("horizon", [1, 3, 7])
def test_the_first_day_is_the_first_that_any_model_is_trained_on(horizon: int) -> None:
    plan = folds(horizon)
    trained = list(chain.from_iterable(fold.train.days for fold in (*plan.tvl, *plan.apy)))
    assert plan.first_day == min(trained)
    assert plan.first_day == plan.apy[0].train.start
