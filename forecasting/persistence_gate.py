"""How much of the model's move is published: one weight between persistence (0) and the model (1), learned on out-of-sample moves.

In: moves that came true and moves that were forecast, both in the pools' scales. It knows nothing of days: the caller gives it past rows only.
"""

from __future__ import annotations

import numpy as np

from forecasting.targets import Values

WEIGHTS = np.linspace(0.0, 1.0, 11)
LOSS_LIMIT = 8.0
MIN_GAIN = 0.03
"""Share of persistence's loss that the model must save before it is believed: a month's gains below this did not come again the month after."""
MIN_ROWS = 50


def blend_weight(moves: Values, forecasts: Values) -> float:
    """Weight with the smallest mean of min(|move - weight * forecast|, LOSS_LIMIT); 0.0 (persistence) under MIN_GAIN or MIN_ROWS."""
    known = np.isfinite(moves) & np.isfinite(forecasts)
    if known.sum() < MIN_ROWS:
        return 0.0
    errors = np.abs(moves[known][None, :] - WEIGHTS[:, None] * forecasts[known][None, :])
    losses = np.minimum(errors, LOSS_LIMIT).mean(axis=1)
    best = int(np.argmin(losses))
    return float(WEIGHTS[best]) if losses[best] < (1.0 - MIN_GAIN) * losses[0] else 0.0
