"""The persistence gate: weights from a pool's own history, and from the panel if it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from forecasting.features.targets import Values
from forecasting.publishing.past_forecasts import PastForecasts
from forecasting.publishing.persistence_gate import gate_weights, gated_steps

DAYS, POOLS = 60, 12


def past_of(
    pools: Sequence[str],
    ages: Sequence[int],
    moves: Sequence[float] | Values,
    actual_move: Sequence[float] | Values,
) -> PastForecasts:
    unknown = np.full(len(pools), np.nan)
    return PastForecasts(
        np.array(pools, dtype=object),
        np.array(ages, dtype=np.int64),
        np.array(moves, float),
        unknown,
        unknown,
        np.array(actual_move, float),
        change=unknown,
        is_cold=np.zeros(len(pools), dtype=bool),
    )


def together(*parts: PastForecasts) -> PastForecasts:
    def joined(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    return PastForecasts(*(joined(field.name) for field in fields(PastForecasts)))


def panel(
    shares: dict[str, float],
    *,
    days: int = DAYS,
    first_age: int = 0,
    noise: float = 0.0,
    size: float = 1.0,
    seed: int = 3,
) -> PastForecasts:
    """Returns a row for each pool and day; actual moves are this share of the forecast moves."""
    random = np.random.default_rng(seed)
    moves = size * random.standard_normal(days)
    ages = list(range(first_age, first_age + days))
    return together(
        *(
            past_of(
                [pool] * days, ages, moves, share * moves + noise * random.standard_normal(days)
            )
            for pool, share in shares.items()
        )
    )


def pools_of(share: float, count: int = POOLS, prefix: str = "p") -> dict[str, float]:
    return {f"{prefix}{number:02d}": share for number in range(count)}


def weights(past: PastForecasts, *pools: str) -> list[float]:
    return [float(weight) for weight in gate_weights(past, np.array(pools, dtype=object), 40.0)]


def slow_weight(past: PastForecasts, pool: str) -> float:
    """Computes the gate one row at a time, from its documentation."""
    rows = [
        (name, int(age), float(move), float(came))
        for name, age, move, came in zip(
            past.pool_id, past.age, past.move, past.actual_move, strict=True
        )
        if np.isfinite(move) and np.isfinite(came)
    ]
    if len({age for _, age, _, _ in rows}) < 40 or len({name for name, _, _, _ in rows}) < 10:
        return 0.0
    best, chosen = float("inf"), 0.0
    for tenths in range(13):
        weight = tenths / 10
        by_day: dict[int, list[float]] = {}
        own = 0.0
        for name, age, move, came in rows:
            loss = min(abs(came - weight * move), 8.0)
            by_day.setdefault(age, []).append(loss)
            own += loss * 0.5 ** (age / 20) if name == pool else 0.0
        decayed = {age: 0.5 ** (age / 30) for age in by_day}
        mean = sum(
            decayed[age] * sum(losses) / len(losses) for age, losses in by_day.items()
        ) / sum(decayed.values())
        total = own + 40 * mean + 0.002 * abs(weight - 1)
        if total < best:
            best, chosen = total, weight
    return chosen


@pytest.mark.parametrize("seed", range(6))
def test_weights_are_those_of_the_slow_oracle(seed: int) -> None:
    random = np.random.default_rng(seed)
    shares = {f"p{number:02d}": float(random.uniform(-0.5, 1.5)) for number in range(15)}
    past = panel(shares, days=55, noise=0.8, size=float(random.uniform(0.3, 6.0)), seed=seed)
    draws = random.uniform(size=past.age.size)
    move = np.where(draws < 0.1, np.nan, past.move)
    actual_move = np.where((draws > 0.1) & (draws < 0.15), np.nan, past.actual_move)
    is_kept = draws < 0.9
    past = past_of(
        past.pool_id[is_kept].tolist(),
        past.age[is_kept].tolist(),
        move[is_kept],
        actual_move[is_kept],
    )
    pools = [*random.permutation(sorted(shares)).tolist(), "new"]
    gate_weights = weights(past, *pools)
    assert gate_weights == [slow_weight(past, pool) for pool in pools]
    assert len(set(gate_weights)) > 3


@pytest.mark.parametrize(
    ("days", "pools", "expected"), [(39, 12, 0.0), (40, 12, 1.0), (60, 9, 0.0), (60, 10, 1.0)]
)
def test_without_days_or_pools_enough_persistence_is_published(
    days: int, pools: int, expected: float
) -> None:
    assert weights(panel(pools_of(1.0, pools), days=days), "p00", "new") == [expected, expected]


def test_a_day_or_pool_without_a_move_is_no_past() -> None:
    silent_day = past_of(["p00"], [39], [np.nan], [1.0])
    assert weights(together(panel(pools_of(1.0), days=39), silent_day), "p00") == [0.0]
    silent_pool = past_of(["p09"] * DAYS, list(range(DAYS)), [np.nan] * DAYS, [1.0] * DAYS)
    assert weights(together(panel(pools_of(1.0, 9)), silent_pool), "p00") == [0.0]


@pytest.mark.parametrize(
    ("share", "expected"), [(1.0, 1.0), (0.5, 0.5), (0.0, 0.0), (-1.0, 0.0), (3.0, 1.2)]
)
def test_the_weight_is_the_share_of_the_move_that_happens(share: float, expected: float) -> None:
    gate_weights = weights(panel(pools_of(share), noise=0.1), *pools_of(share))
    assert gate_weights == pytest.approx([expected] * POOLS, abs=0.11)


def test_moves_without_relation_to_actual_moves_get_little_weight() -> None:
    past = panel(pools_of(0.0, 30), noise=1.0)
    gate_weights = weights(past, *pools_of(0.0, 30))
    assert np.mean(gate_weights) < 0.1
    assert max(gate_weights) <= 0.3


def test_each_pool_of_a_mixed_panel_gets_its_own_weight() -> None:
    right, half, wrong = (
        pools_of(1.0, prefix="right"),
        pools_of(0.5, prefix="half"),
        pools_of(0.0, prefix="wrong"),
    )
    past = panel(right | half | wrong, noise=0.1)
    for pools, expected in ((right, 1.0), (half, 0.5), (wrong, 0.0)):
        assert weights(past, *pools) == pytest.approx([expected] * POOLS, abs=0.11)


def test_weights_are_in_the_order_of_the_requested_pools() -> None:
    past = panel(pools_of(1.0, 6, "right") | pools_of(0.0, 6, "wrong"))
    assert weights(past, "wrong03", "right00", "wrong01", "right05") == [0.0, 1.0, 0.0, 1.0]


def test_a_pools_old_days_count_less() -> None:
    """The panel has no preference; the last 25 of 90 days prefer one weight, the 65 before the
    other.
    """
    undecided = pools_of(1.0, 6, "right") | pools_of(0.0, 6, "wrong")
    recent = panel(undecided | {"woke": 1.0, "slept": 0.0}, days=25, seed=1)
    old = panel(undecided | {"woke": 0.0, "slept": 1.0}, days=65, first_age=25, seed=2)
    assert weights(together(recent, old), "woke", "slept") == [1.0, 0.0]


def test_the_panels_old_days_count_less() -> None:
    for share in (1.0, 0.0):
        past = together(
            panel(pools_of(share), days=35, seed=1),
            panel(pools_of(1.0 - share), days=55, first_age=35, seed=2),
        )
        assert weights(past, "new") == [share]


def test_a_day_with_many_pools_counts_for_the_panel_as_one_day() -> None:
    crowd = panel(pools_of(0.0, 600, "crowd"), days=1, first_age=DAYS // 2, size=3.0)
    assert weights(together(panel(pools_of(1.0)), crowd), "new") == [1.0]


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
def test_a_pool_without_a_past_follows_the_panel(share: float, expected: float) -> None:
    assert weights(panel(pools_of(share)), "new", "p00") == [expected, expected]


def test_a_pool_with_a_short_past_still_follows_the_panel() -> None:
    few = panel({"young": 0.0}, days=5, seed=4)
    assert weights(together(panel(pools_of(1.0)), few), "young") == [1.0]


def test_rows_without_a_move_change_no_weight() -> None:
    past = panel(pools_of(0.7, 6, "right") | pools_of(0.2, 6, "wrong"), noise=0.3)
    ages = list(range(DAYS))
    nothing = past_of(
        ["right00", "wrong00"] * DAYS,
        ages + ages,
        [np.nan] * DAYS + [5.0] * DAYS,
        [-5.0] * DAYS + [np.nan] * DAYS,
    )
    pools = (*pools_of(0.7, 6, "right"), *pools_of(0.2, 6, "wrong"), "new")
    assert weights(together(past, nothing), *pools) == weights(past, *pools)


def test_one_wild_miss_does_not_decide() -> None:
    past = panel(pools_of(1.0), size=0.2)
    wild = past_of(["p00"], [0], [30.0], [-30.0])
    assert weights(together(past, wild), "p00") == [1.0]
    misses = past_of(["p00"] * 20, list(range(20)), [2.0] * 20, [-2.0] * 20)
    assert weights(together(past, misses), "p00") == [0.0]


def test_where_all_weights_lose_the_same_the_models_own_move_is_taken() -> None:
    assert weights(panel(pools_of(1.0), size=0.0), "p00", "new") == [1.0, 1.0]


def test_a_step_that_is_noise_becomes_persistence_to_the_bit() -> None:
    steps = gated_steps(
        np.array([1.0, 1.0, 1.0, 1.0, 0.1, 0.0]),
        np.array([0.999, -0.999, 1.0, -1.0, 0.999, 100.0]) * 0.08,
        0.08,
    )
    assert steps.tolist() == [0.0, 0.0, 0.08, -0.08, 0.0, 0.0]
    assert not np.signbit(steps[[0, 1, 4, 5]]).any()


def test_without_a_move_there_is_no_step() -> None:
    assert gated_steps(np.array([1.0, 0.5, 1.2]), np.array([np.nan, 2.0, -1.0]), 0.08).tolist() == [
        0.0,
        1.0,
        -1.2,
    ]
