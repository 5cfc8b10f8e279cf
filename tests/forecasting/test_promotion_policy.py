"""The promotion policy on generated moves of challenger and champion."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting.evaluation.model_roles import CHALLENGER, CHAMPION
from forecasting.evaluation.promotion_policy import (
    KEPT,
    PROMOTED,
    REFUSED,
    PromotionDecision,
    evaluate_challenger,
)
from forecasting.features.targets import Values, targets
from forecasting.publishing.persistence_gate import LOSS_LIMIT

APY, TVL = targets(max_apy_percent=1e6, max_tvl_usd=1e12)
POOLS, DAYS = 20, 45
SMALL, LARGE = 5e4, 2e6
"""TVL in USD of the two segments."""


def validation_rows(*, days: int = DAYS, small_pools: int = 10, seed: int = 3) -> pd.DataFrame:
    """Returns rows with actual moves of one scale on average, unknown after the last day.

    All numbers are multiples of 1/64, so sums do not depend on their order.
    """
    random = np.random.default_rng(seed)
    count = POOLS * (days + 1)
    pool, day = np.divmod(np.arange(count), days + 1)
    actual_move = _sixtyfourths(random.standard_normal(count))
    return pd.DataFrame(
        {
            "pool_id": [f"p{number:02d}" for number in pool],
            "date": pd.Timestamp("2024-05-16") + pd.to_timedelta(day, "D"),
            "apy": 5.0,
            "apy_next": np.where(day == days, np.nan, 5.0 + 0.5 * actual_move),
            "apy_scale": 0.5,
            "tvl": np.where(pool < small_pools, SMALL, LARGE),
            "actual_move": actual_move,
        }
    )


def _sixtyfourths(values: Values) -> Values:
    rounded: Values = np.round(values * 64.0) / 64.0
    return rounded


def moves(rows: pd.DataFrame, skill: float, *, seed: int = 1) -> Values:
    """Returns moves that are a share of the actual ones: 0 is persistence, a negative share is
    worse.
    """
    noise = 0.05 * np.random.default_rng(seed).standard_normal(len(rows))
    return _sixtyfourths(skill * rows["actual_move"].to_numpy() + noise)


def decide(
    challenger: Values,
    champion: Values | None = None,
    *,
    rows: pd.DataFrame | None = None,
    max_segment_regression: float = 0.05,
) -> PromotionDecision:
    moves_of_candidates = {CHALLENGER: challenger} | (
        {CHAMPION: champion} if champion is not None else {}
    )
    return evaluate_challenger(
        APY,
        validation_rows() if rows is None else rows,
        moves_of_candidates,
        max_segment_regression,
    )


ROWS = validation_rows()
GOOD, BETTER, BAD = moves(ROWS, 0.3), moves(ROWS, 0.5, seed=2), moves(ROWS, -0.2, seed=4)


@pytest.mark.parametrize(
    ("challenger", "champion", "decision", "passed"),
    [
        (GOOD, None, PROMOTED, True),
        (BAD, None, REFUSED, False),
        (0.0 * GOOD, None, REFUSED, False),
        (BETTER, GOOD, PROMOTED, True),
        (GOOD, GOOD, KEPT, True),
        (GOOD, BETTER, KEPT, True),
        (BAD, GOOD, KEPT, False),
        (GOOD, BAD, PROMOTED, True),
        (BAD, BAD, REFUSED, False),
        (BAD, 0.0 * GOOD, REFUSED, False),
    ],
    ids=[
        "better than persistence",
        "worse than persistence",
        "persistence itself",
        "better than both",
        "the champion again",
        "between champion and persistence",
        "worse than both",
        "the champion is worse than persistence",
        "both are worse than persistence",
        "the champion is persistence",
    ],
)
def test_the_decision(
    challenger: Values, champion: Values | None, decision: str, passed: bool
) -> None:
    outcome = decide(challenger, champion)
    assert (outcome.decision, outcome.passed) == (decision, passed)
    fragments = {
        PROMOTED: "the challenger loses less than",
        KEPT: "the challenger does not beat the champion by more than chance",
        REFUSED: "no version beats persistence by more than chance",
    }
    assert fragments[decision] in outcome.reason
    assert (
        f"challenger/persistence {outcome.numbers['ratio']['challenger/persistence'][0]:.3f}"
        in outcome.reason
    )


def test_numbers_have_losses_and_ratios_with_their_intervals() -> None:
    numbers = decide(BETTER, GOOD).numbers
    json.dumps(numbers, allow_nan=False)
    assert (numbers["target"], numbers["days"], numbers["rows"], numbers["interval_level"]) == (
        "apy",
        DAYS,
        POOLS * DAYS,
        0.9,
    )
    true = ROWS["actual_move"].to_numpy()[ROWS["apy_next"].notna()]
    planted = {"challenger": BETTER, "champion": GOOD, "persistence": 0.0 * GOOD}
    losses = {
        name: float(np.abs(true - move[ROWS["apy_next"].notna()]).mean())
        for name, move in planted.items()
    }
    assert numbers["loss"] == pytest.approx(losses, abs=1e-6)
    assert set(numbers["ratio"]) == {
        "challenger/persistence",
        "challenger/champion",
        "champion/persistence",
    }
    for pair, (ratio, low, high) in numbers["ratio"].items():
        first, second = pair.split("/")
        assert ratio == pytest.approx(losses[first] / losses[second])
        assert low < ratio < high < low + 0.1


def test_a_version_that_is_the_champion_again_is_equal_to_the_bit() -> None:
    assert decide(GOOD, GOOD).numbers["ratio"]["challenger/champion"] == (1.0, 1.0, 1.0)


def test_a_little_better_within_the_noise_is_not_better() -> None:
    """The ratio is under 1, and its interval contains 1."""
    lucky = GOOD + np.where(
        ROWS["date"] == ROWS["date"].min(), 0.25 * np.sign(ROWS["actual_move"] - GOOD), 0.0
    )
    unlucky = np.where(
        ROWS["date"] == ROWS["date"].max() - pd.Timedelta(days=1),
        0.125 * np.sign(ROWS["actual_move"] - GOOD),
        0.0,
    )
    outcome = decide(lucky - unlucky, GOOD)
    ratio, low, high = outcome.numbers["ratio"]["challenger/champion"]
    assert low < ratio < 1.0 < high
    assert (outcome.decision, outcome.passed) == (KEPT, True)


@pytest.mark.parametrize(("champion", "decision"), [(None, REFUSED), (0.3, KEPT)])
def test_too_few_days_promote_nobody(champion: float | None, decision: str) -> None:
    """Thirteen days are less than two blocks: there is no interval, so nothing is promoted."""
    rows = validation_rows(days=13)
    outcome = decide(
        moves(rows, 0.9), None if champion is None else moves(rows, champion), rows=rows
    )
    assert (outcome.decision, outcome.passed) == (decision, False)
    assert outcome.numbers["ratio"]["challenger/persistence"][0] < 0.2
    assert outcome.numbers["ratio"]["challenger/persistence"][1:] == (None, None)
    assert "too few days for an interval" in outcome.reason
    enough = validation_rows(days=14)
    assert (
        decide(
            moves(enough, 0.9), None if champion is None else moves(enough, champion), rows=enough
        ).decision
        == PROMOTED
    )


@pytest.mark.parametrize("unknown", ["apy_next", "apy_scale", "moves", "rows"])
def test_nothing_is_promoted_without_a_complete_row(unknown: str) -> None:
    rows = ROWS.assign(**{unknown: np.nan}) if unknown in ROWS else ROWS
    rows, move = (
        (rows.iloc[:0], GOOD[:0])
        if unknown == "rows"
        else (rows, GOOD * (np.nan if unknown == "moves" else 1.0))
    )
    outcome = decide(move, rows=rows)
    assert (outcome.decision, outcome.passed, outcome.numbers["days"], outcome.numbers["rows"]) == (
        REFUSED,
        False,
        0,
        0,
    )
    assert outcome.numbers["loss"] == {"challenger": None, "persistence": None}
    assert "challenger/persistence unknown" in outcome.reason
    json.dumps(outcome.numbers, allow_nan=False)


def test_without_moves_no_version_beats_persistence() -> None:
    still = ROWS.assign(apy_next=ROWS["apy"])
    for move in (GOOD, 0.0 * GOOD):
        assert decide(move, rows=still).decision == REFUSED


def test_all_candidates_are_compared_on_the_rows_that_all_forecast() -> None:
    """The champion forecasts half of the pools; a bad challenger on the others is not penalised."""
    half = ROWS["pool_id"] < "p10"
    champion, challenger = np.where(half, GOOD, np.nan), np.where(half, BETTER, BAD)
    outcome = decide(challenger, champion)
    assert outcome.numbers["rows"] == POOLS * DAYS // 2
    assert outcome.decision == PROMOTED
    assert outcome.numbers["loss"] == decide(BETTER, champion).numbers["loss"]


@pytest.mark.parametrize(("small_pools", "decision"), [(2, KEPT), (1, PROMOTED)])
def test_worse_in_one_big_group_alone_is_not_promoted(small_pools: int, decision: str) -> None:
    """A tenth of the rows is a large segment."""
    rows = validation_rows(small_pools=small_pools)
    is_small = rows["tvl"] == SMALL
    challenger = np.where(is_small, moves(rows, -0.2), moves(rows, 0.6))
    outcome = decide(challenger, moves(rows, 0.2), rows=rows)
    assert outcome.numbers["ratio"]["challenger/champion"][2] < 1.0
    assert (outcome.decision, outcome.passed) == (decision, True)
    groups = {(group["by"], group["group"]): group for group in outcome.numbers["groups"]}
    assert ("tvl_class", "1M-10M") in groups
    assert (("tvl_class", "<100k") in groups) == (small_pools == 2)
    if small_pools == 2:
        small = groups["tvl_class", "<100k"]
        assert (small["rows"], small["ratio"] > 1.3) == (2 * DAYS, True)
        assert f"worse in tvl_class <100k ({small['ratio']:.3f})" in outcome.reason
        assert (
            decide(challenger, moves(rows, 0.2), rows=rows, max_segment_regression=0.6).decision
            == PROMOTED
        )


def test_without_a_passing_champion_segments_do_not_stop_a_version() -> None:
    challenger = np.where(ROWS["tvl"] == SMALL, BAD, moves(ROWS, 0.8))
    for champion in (None, BAD):
        outcome = decide(challenger, champion)
        groups = {group["group"]: group["ratio"] for group in outcome.numbers["groups"]}
        assert groups["<100k"] > 1.05
        assert (outcome.decision, outcome.passed) == (PROMOTED, True)


def test_a_champion_that_lost_to_persistence_need_not_be_beaten_outside_the_noise() -> None:
    """The champion failed on three days and was better on all others."""
    failed = ROWS["date"] < ROWS["date"].min() + pd.Timedelta(days=3)
    champion = np.where(failed, 100.0, BETTER)
    outcome = decide(GOOD, champion)
    assert outcome.numbers["ratio"]["champion/persistence"][0] > 1.0
    assert outcome.numbers["ratio"]["challenger/champion"][2] > 1.0
    assert outcome.decision == PROMOTED


def test_one_absurd_pool_decides_nothing() -> None:
    """A pool jumps by a million scales on one day, and the challenger forecasts two million."""
    absurd = ROWS.index[(ROWS["pool_id"] == "p03") & (ROWS["date"] == ROWS["date"].min())]
    rows, challenger = ROWS.copy(), BETTER.copy()
    rows.loc[absurd, "apy_next"] = 500_005.0
    challenger[absurd] = 2e6
    outcome = decide(challenger, GOOD, rows=rows)
    assert outcome.decision == PROMOTED
    assert max(outcome.numbers["loss"].values()) < 1.0 + LOSS_LIMIT / (POOLS * DAYS)


def test_tvl_is_compared_in_its_logarithm() -> None:
    rows = pd.DataFrame({"date": ROWS["date"], "tvl": ROWS["tvl"], "apy": 5.0, "tvl_scale": 0.01})
    rows["tvl_next"] = np.expm1(np.log1p(rows["tvl"]) + 0.01 * ROWS["actual_move"])
    outcome = evaluate_challenger(
        TVL, rows, {CHALLENGER: ROWS["actual_move"].to_numpy(float)}, 0.05
    )
    assert outcome.numbers["loss"]["challenger"] == pytest.approx(0.0, abs=1e-6)
    assert (outcome.decision, outcome.numbers["target"]) == (PROMOTED, "tvl")


@settings(max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([-0.2, 0.0, 0.2, 0.21, 0.5]),
    st.sampled_from([None, -0.2, 0.2, 0.5]),
)
def test_the_order_of_the_rows_changes_nothing(
    seed: int, skill: float, champion_skill: float | None
) -> None:
    order = np.random.default_rng(seed).permutation(len(ROWS))
    challenger, champion = (
        moves(ROWS, skill),
        None if champion_skill is None else moves(ROWS, champion_skill, seed=7),
    )
    shuffled: Any = decide(
        challenger[order], None if champion is None else champion[order], rows=ROWS.iloc[order]
    )
    assert shuffled == decide(challenger, champion)
