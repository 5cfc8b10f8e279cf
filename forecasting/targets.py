"""The two targets and the space each is modelled in.

A model forecasts a move: the change from today's level in units of the pool's own scale. APY's level is APY itself (percent), TVL's is log1p(USD).
Going back to values never leaves what may be published: no NaN or infinity, no negative TVL, no APY below zero for a pool that has not been there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """`limit` is the largest value published (percent or USD)."""

    name: str
    logarithmic: bool
    limit: float

    def level(self, values: Values) -> Values:
        return np.log1p(values) if self.logarithmic else values

    def moved(self, values: Values, steps: Values, lowest: Values) -> Values:
        """The values after a step in level, between `lowest` and the limit (or the value, where that is beyond it already).

        A step of zero gives the value itself; NaN stays NaN.
        """
        now, ceiling = self.level(values), self.level(np.array(self.limit))
        levels = np.clip(now + steps, np.zeros_like(now) if self.logarithmic else np.minimum(now, -ceiling), np.maximum(now, ceiling))
        stepped = np.expm1(levels) if self.logarithmic else levels
        return np.maximum(np.where(steps == 0.0, values, stepped), lowest)

    def relative_scale(self, values: Values) -> Values:
        """Scale of a pool that has none of its own: its size for APY (never under 0.1 points), one for the logarithm."""
        return np.ones_like(values) if self.logarithmic else np.abs(values) + 0.1


def targets(*, max_apy_percent: float, max_tvl_usd: float) -> tuple[Target, Target]:
    """APY and TVL, published first to last."""
    return Target("apy", False, max_apy_percent), Target("tvl", True, max_tvl_usd)
