"""The persistence gate: a weight for each pool between persistence (0) and the model's move (1).
Weights up to 1.2 amplify the move.

Learns from past forecasts. A pool's own losses decide, and the panel's mean loss counts as a number
of further days, so that a pool with a short history follows the panel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecasting.features.targets import Values
from forecasting.publishing.history_window import MIN_DAYS
from forecasting.publishing.past_forecasts import PastForecasts, decay

WEIGHTS = np.arange(13) / 10.0
# scales: a larger error says nothing more about the weight
LOSS_LIMIT = 8.0
POOL_HALF_LIFE_DAYS, PANEL_HALF_LIFE_DAYS = 20.0, 30.0
# decides between weights of equal loss for the model's own move; any difference in loss outweighs
# it
MODEL_PREFERENCE = 0.002
MIN_POOLS = 10

NO_LEDGER, FEW_POOLS, GATE = "no_ledger", "few_pools", "gate"


def refusal(past: PastForecasts) -> str | None:
    """Returns the reason why nothing can be learned: NO_LEDGER with fewer than MIN_DAYS days,
    FEW_POOLS with fewer than MIN_POOLS pools; otherwise None.
    """
    if past.days < MIN_DAYS:
        return NO_LEDGER
    return FEW_POOLS if past.pools < MIN_POOLS else None


def gate_weights(past: PastForecasts, pool_ids: npt.NDArray[Any], panel_days: float) -> Values:
    """Computes a weight for each pool.

    A loss is min(|error|, LOSS_LIMIT) in scales. A pool's loss is the sum of its decayed losses
    plus `panel_days` times the panel's mean loss (the decayed mean of each day's mean).

    Args:
        past: past forecasts with actual moves.
        pool_ids: keys of the pools, as in `past.pool_id`.
        panel_days: days that the panel's mean loss counts for.

    Returns:
        One of WEIGHTS for each of `pool_ids`; 0.0 for all if nothing can be learned.
    """
    if refusal(past):
        return np.zeros(pool_ids.size)
    is_complete = np.isfinite(past.move) & np.isfinite(past.actual_move)
    age, move = past.age[is_complete], past.move[is_complete]
    actual_move = past.actual_move[is_complete]
    losses = np.minimum(np.abs(actual_move[:, None] - move[:, None] * WEIGHTS), LOSS_LIMIT)
    panel = _panel_loss(losses, age)
    decayed = losses * decay(age, POOL_HALF_LIFE_DAYS)[:, None]
    own = _sums(decayed, past.pool_id[is_complete], pool_ids)
    total = own + panel_days * panel + MODEL_PREFERENCE * np.abs(WEIGHTS - 1.0)
    weights: Values = WEIGHTS[np.argmin(total, axis=1)]
    return weights


def gated_steps(weights: Values, moves: Values, least: float) -> Values:
    """Returns the published steps, in scales.

    Args:
        weights: weights of the gate.
        moves: the model's moves, in scales; NaN without a model.
        least: smallest step that is published, in scales.

    Returns:
        weight x move; 0.0 (persistence) without a move or below `least`.
    """
    steps = weights * np.nan_to_num(moves)
    return np.where(np.abs(steps) < least, 0.0, steps)


def _panel_loss(losses: Values, age: npt.NDArray[np.int64]) -> Values:
    """The decayed mean of each day's mean loss, by weight."""
    days, number = np.unique(age, return_inverse=True)
    daily = (
        np.column_stack(
            [np.bincount(number, losses[:, column]) for column in range(losses.shape[1])]
        )
        / np.bincount(number)[:, None]
    )
    weights = decay(days, PANEL_HALF_LIFE_DAYS)
    mean: Values = weights @ daily / weights.sum()
    return mean


def _sums(losses: Values, pools: npt.NDArray[Any], pool_ids: npt.NDArray[Any]) -> Values:
    """Sums of the losses of each of `pool_ids`, shape (pools, weights)."""
    number = pd.Index(pool_ids).get_indexer(pools)
    is_requested = number >= 0
    return np.column_stack(
        [
            np.bincount(number[is_requested], losses[is_requested, column], pool_ids.size)
            for column in range(losses.shape[1])
        ]
    )
