"""Rolling windows: each equals its definition on plain lists and ignores days outside it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forecasting.features import rolling_windows as rolling
from forecasting.features.rolling_windows import Days

NAN = float("nan")
ROUNDING = 1e-9
"""Relative to the largest value."""

HISTORIES = arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 40)),
    elements=st.one_of(st.just(NAN), st.sampled_from([0.0, 1.0, -1.0]), st.floats(-1e6, 1e6)),
)
WINDOWS = st.integers(1, 50)


def type_7(values: Sequence[float], level: float) -> float:
    """Type 7 of Hyndman & Fan: the order statistic at 1 + (n - 1) * level, linear in between."""
    ordered = sorted(values)
    whole, part = divmod((len(ordered) - 1) * level, 1.0)
    above = ordered[min(int(whole) + 1, len(ordered) - 1)]
    return ordered[int(whole)] * (1.0 - part) + above * part


Window = Callable[[Days, int], Days]
OfList = Callable[[list[float]], float]


def quantile(level: float) -> tuple[Window, OfList]:
    return lambda values, days: rolling.quantiles(values, days, [level])[
        0
    ], lambda present: type_7(present, level) if present else NAN


LISTS: dict[str, tuple[Window, OfList]] = {
    "count": (rolling.count, len),
    "total": (rolling.total, math.fsum),
    "mean": (rolling.mean, lambda present: math.fsum(present) / len(present) if present else NAN),
    "deviation": (
        rolling.deviation,
        lambda present: statistics.stdev(present) if len(present) > 1 else NAN,
    ),
    "median": (rolling.median, lambda present: statistics.median(present) if present else NAN),
    "lowest": (rolling.lowest, lambda present: min(present, default=NAN)),
    "highest": (rolling.highest, lambda present: max(present, default=NAN)),
    **{f"quantile {level}": quantile(level) for level in (0.0, 0.1, 0.25, 0.75, 0.9, 1.0)},
}
each_window = pytest.mark.parametrize("name", LISTS)


def by_lists(values: Days, days: int, statistic: OfList) -> Days:
    rows = [_windows(pool, days, statistic) for pool in values.tolist()]
    return np.array(rows, dtype=float)


def _windows(pool: list[float], days: int, statistic: OfList) -> list[float]:
    results = []
    for end in range(1, len(pool) + 1):
        window = pool[max(0, end - days) : end]
        results.append(statistic([value for value in window if not math.isnan(value)]))
    return results


def assert_near(actual: Days, expected: Days, values: Days) -> None:
    largest = float(np.nanmax(np.abs(values), initial=1.0))
    np.testing.assert_allclose(actual, expected, rtol=ROUNDING, atol=ROUNDING * largest)


@each_window
@given(values=HISTORIES, days=WINDOWS)
def test_a_window_is_the_list_of_its_known_values(name: str, values: Days, days: int) -> None:
    window, statistic = LISTS[name]
    before = values.copy()
    assert_near(window(values, days), by_lists(values, days, statistic), values)
    np.testing.assert_array_equal(values, before)


def test_windows_by_hand() -> None:
    values = np.array([[NAN, 4.0, 1.0, NAN, 7.0]])
    np.testing.assert_array_equal(rolling.count(values, 3), [[0, 1, 2, 2, 2]])
    np.testing.assert_array_equal(rolling.total(values, 3), [[0, 4, 5, 5, 8]])
    np.testing.assert_array_equal(rolling.mean(values, 3), [[NAN, 4, 2.5, 2.5, 4]])
    np.testing.assert_array_equal(
        rolling.deviation(values, 3), [[NAN, NAN, np.sqrt(4.5), np.sqrt(4.5), np.sqrt(18)]]
    )
    np.testing.assert_array_equal(rolling.median(values, 5), [[NAN, 4, 2.5, 2.5, 4]])
    np.testing.assert_array_equal(
        rolling.quantiles(values, 5, [0.25])[0], [[NAN, 4, 1.75, 1.75, 2.5]]
    )
    np.testing.assert_array_equal(rolling.lowest(values, 2), [[NAN, 4, 1, 1, 7]])
    np.testing.assert_array_equal(rolling.highest(values, 2), [[NAN, 4, 4, 1, 7]])


def test_quantiles_come_one_for_each_level() -> None:
    values = np.arange(11.0)[None, :]
    assert [
        values_of_level[0, -1] for values_of_level in rolling.quantiles(values, 11, [0.9, 0.0, 0.5])
    ] == [
        9.0,
        0.0,
        5.0,
    ]


@pytest.mark.parametrize("days", [1, 3, 90])
def test_a_constant_has_no_spread_and_its_own_level(days: int) -> None:
    values = np.full((1, 100), 0.1)
    assert (rolling.median(values, days) == 0.1).all()
    np.testing.assert_allclose(rolling.mean(values, days), 0.1, rtol=1e-15)
    assert np.nanmax(rolling.deviation(values, days), initial=0.0) < 1e-16


def test_the_deviation_of_large_values_keeps_their_small_differences() -> None:
    """The mean of squares less the square of the mean would lose all digits."""
    values = 1e9 + np.array([[0.0, 1.0, 2.0]])
    assert rolling.deviation(values, 3)[0, -1] == pytest.approx(1.0)


@pytest.mark.parametrize("days", [-7, -6, -5, -4, -1, 0, 1, 4, 5, 6, 7])
def test_a_lag_is_the_value_of_that_many_days_before_and_nothing_beyond_the_history(
    days: int,
) -> None:
    values = np.array([[1.0, 2.0, NAN, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]])
    expected = []
    for pool in values.tolist():
        expected.append([pool[day - days] if 0 <= day - days < 5 else NAN for day in range(5)])
    np.testing.assert_array_equal(rolling.lag(values, days), expected)


@given(values=HISTORIES, days=st.integers(-60, 60))
def test_a_lag_and_back_is_what_it_was_or_unknown(values: Days, days: int) -> None:
    shifted = rolling.lag(rolling.lag(values, days), -days)
    assert shifted.shape == values.shape
    days_kept = max(values.shape[1] - abs(days), 0)
    inner = slice(0, days_kept) if days > 0 else slice(values.shape[1] - days_kept, None)
    np.testing.assert_array_equal(shifted[:, inner], values[:, inner])
    assert np.isnan(np.delete(shifted, np.arange(values.shape[1])[inner], axis=1)).all()


def test_the_first_windows_begin_with_the_value_before() -> None:
    values = np.array([[1.0, 2.0, 3.0]])
    assert rolling.windows(values, 2, before=9.0).tolist() == [[[9, 1], [1, 2], [2, 3]]]
    assert rolling.windows(values, 5, before=0.0).tolist() == [
        [[0, 0, 0, 0, 1], [0, 0, 0, 1, 2], [0, 0, 1, 2, 3]]
    ]
    assert np.isnan(rolling.windows(values, 2)[0, 0, 0])


@each_window
@given(values=HISTORIES, days=WINDOWS, spike=st.sampled_from([355_083.0, -1e12, 1e300]))
def test_a_spike_leaves_no_trace_in_windows_behind_it(
    name: str, values: Days, days: int, spike: float
) -> None:
    """The bits equal those of a history that begins later."""
    window, _ = LISTS[name]
    past = np.full((values.shape[0], days), spike)
    with np.errstate(over="ignore", invalid="ignore"):
        windows = window(np.concatenate([past, values], axis=1), days)[:, days:]
    behind = slice(days - 1, None)
    assert windows[:, behind].tobytes() == window(values, days)[:, behind].tobytes()


@each_window
@given(values=HISTORIES, days=WINDOWS, unknown=st.integers(1, 60))
def test_unknown_days_before_and_days_after_change_no_bit(
    name: str, values: Days, days: int, unknown: int
) -> None:
    window, _ = LISTS[name]
    around = np.concatenate([np.full((values.shape[0], unknown), NAN), values, values], axis=1)
    assert (
        window(around, days)[:, unknown : unknown + values.shape[1]].tobytes()
        == window(values, days).tobytes()
    )


@each_window
@given(values=HISTORIES, days=WINDOWS)
def test_a_pool_alone_has_the_bits_it_has_among_others(name: str, values: Days, days: int) -> None:
    window, _ = LISTS[name]
    together = window(values, days)
    assert [window(pool[None, :], days).tobytes() for pool in values] == [
        pool.tobytes() for pool in together
    ]


@given(values=HISTORIES, half_life=st.sampled_from([1.0, 3.0, 10.0, 0.5]))
def test_an_exponential_mean_weighs_a_value_half_for_each_half_life_of_age(
    values: Days, half_life: float
) -> None:
    expected = np.full_like(values, NAN)
    for pool, day in np.ndindex(*values.shape):
        aged = [
            (value, 0.5 ** ((day - then) / half_life))
            for then, value in enumerate(values[pool, : day + 1].tolist())
            if not math.isnan(value)
        ]
        if aged:
            expected[pool, day] = math.fsum(value * weight for value, weight in aged) / math.fsum(
                weight for _, weight in aged
            )
    assert_near(rolling.exponential_mean(values, half_life), expected, values)


def test_an_exponential_mean_by_hand() -> None:
    values = np.array([[NAN, 8.0, NAN, 2.0]])
    np.testing.assert_allclose(
        rolling.exponential_mean(values, 1.0), [[NAN, 8.0, 8.0, (8 / 4 + 2) / (1 / 4 + 1)]]
    )


@given(values=HISTORIES, unknown=st.integers(1, 60))
def test_unknown_days_before_and_days_after_change_no_bit_of_an_exponential_mean(
    values: Days, unknown: int
) -> None:
    around = np.concatenate([np.full((values.shape[0], unknown), NAN), values, values], axis=1)
    means = rolling.exponential_mean(around, 10.0)[:, unknown : unknown + values.shape[1]]
    assert means.tobytes() == rolling.exponential_mean(values, 10.0).tobytes()


@pytest.mark.parametrize("half_life", [1.0, 3.0, 10.0])
def test_an_exponential_mean_forgets_a_past_by_half_each_half_life(half_life: float) -> None:
    days = 120
    past, later = np.full((1, 300), 1.0), np.zeros((1, days))
    remaining = rolling.exponential_mean(np.concatenate([past, later], axis=1), half_life)[0, -1]
    assert remaining == pytest.approx(0.5 ** (days / half_life), rel=1e-6)


@given(happened=arrays(np.bool_, st.tuples(st.integers(1, 3), st.integers(1, 30))))
def test_days_since_count_from_the_last_time(happened: npt.NDArray[np.bool_]) -> None:
    expected = np.full(happened.shape, NAN)
    for pool, row in enumerate(happened.tolist()):
        since = NAN
        for day, again in enumerate(row):
            since = 0.0 if again else since + 1.0
            expected[pool, day] = since
    np.testing.assert_array_equal(rolling.days_since(happened), expected)


@pytest.mark.parametrize("shape", [(0, 1), (0, 30), (3, 1)])
def test_no_pools_and_a_single_day_are_histories_too(shape: tuple[int, int]) -> None:
    values = np.zeros(shape)
    for name, (window, _) in LISTS.items():
        assert window(values, 90).shape == shape, name
    assert rolling.exponential_mean(values, 10.0).shape == shape
    assert rolling.days_since(values == 0.0).shape == shape
    assert rolling.lag(values, 90).shape == shape
