"""How much of the model's move is published for each pool: a weight, learned from what was forecast
before and has come true since.

In: past forecasts. Out: a weight for each pool; 0 is persistence, 1 the model's own move. A pool's
own losses say what suits it, and the panel's mean loss stands in as so many further days of it, so
that a pool with a short past follows the panel. It knows no dates: the caller gives it past rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecasting.features.targets import Values
from forecasting.publishing.past_forecasts import PastForecasts, decay

WEIGHTS = np.arange(13) / 10.0
LOSS_LIMIT = 8.0
"""Scales: beyond it a miss says no more about the weight."""
POOL_HALF_LIFE_DAYS, PANEL_HALF_LIFE_DAYS = 20.0, 30.0
MODEL_PREFERENCE = 0.002
"""Where all weights lose the same, the model's own move is taken: so little that any loss outweighs
it.
"""
MIN_DAYS, MIN_POOLS = 40, 10

NO_LEDGER, FEW_POOLS, GATE = "no_ledger", "few_pools", "gate"


def refusal(past: PastForecasts) -> str | None:
    """Why nothing can be learned from this past: NO_LEDGER under MIN_DAYS days, FEW_POOLS under
    MIN_POOLS pools; None where it can.
    """
    if past.days < MIN_DAYS:
        return NO_LEDGER
    return FEW_POOLS if past.pools < MIN_POOLS else None


def gate_weights(past: PastForecasts, pool_ids: npt.NDArray[Any], panel_days: float) -> Values:
    """One weight for each of `pool_ids`; 0.0 for all where nothing can be learned.

    A loss is min(|error|, LOSS_LIMIT) in scales. A pool's is the sum of its decayed losses plus
    `panel_days` times the panel's mean loss (the decayed mean of each day's mean).
    """
    if refusal(past):
        return np.zeros(pool_ids.size)
    known = np.isfinite(past.move) & np.isfinite(past.actual_move)
    age, move, actual_move = past.age[known], past.move[known], past.actual_move[known]
    losses = np.minimum(np.abs(actual_move[:, None] - move[:, None] * WEIGHTS), LOSS_LIMIT)
    panel = _panel_loss(losses, age)
    own = _sums(losses * decay(age, POOL_HALF_LIFE_DAYS)[:, None], past.pool_id[known], pool_ids)
    chosen: Values = WEIGHTS[
        np.argmin(own + panel_days * panel + MODEL_PREFERENCE * np.abs(WEIGHTS - 1.0), axis=1)
    ]
    return chosen


def gated_steps(weights: Values, moves: Values, least: float) -> Values:
    """The published steps in scales; 0.0 (persistence) where there is no move, or a step smaller
    than `least`.
    """
    steps = weights * np.nan_to_num(moves)
    return np.where(np.abs(steps) < least, 0.0, steps)


def _panel_loss(losses: Values, age: npt.NDArray[np.int64]) -> Values:
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


def _sums(losses: Values, pools: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> Values:
    number = pd.Index(wanted).get_indexer(pools)
    found = number >= 0
    return np.column_stack(
        [
            np.bincount(number[found], losses[found, column], wanted.size)
            for column in range(losses.shape[1])
        ]
    )
