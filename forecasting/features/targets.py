"""The two targets and the spaces they are modelled in.

A model forecasts a move: the change from today's level in units of the pool's own scale. APY's
level is APY itself (percent), TVL's is log1p(USD). APY is modelled a second time as a change of
asinh(apy / 0.1), which is linear near zero and logarithmic above: the mean of both is published.
Going back to values never leaves what may be published: no NaN or infinity, no negative TVL, no APY
below zero for a pool that has not been there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config_spark import Settings

Values = npt.NDArray[np.float64]

LABEL_LIMIT = 30.0
"""A label beyond this many scales is cut: absolute loss bears outliers, and the leaves' medians do
not need them.
"""

ASINH_UNIT = 0.1

APY_LEAST_STEP, TVL_LEAST_STEP = 0.08, 0.1
"""Scales. Small steps gain little on average, and do harm where a pool is calm."""
APY_PANEL_DAYS, TVL_PANEL_DAYS = 40.0, 160.0
"""A pool's own days sum up to 29 at most. TVL is nearly a random walk: what a pool's own past says
of its model is mostly chance.
"""


def asinh_level(apy: Values) -> Values:
    level: Values = np.arcsinh(apy / ASINH_UNIT)
    return level


def apy_size(apy: Values) -> Values:
    """What an APY's scale is compared with: a pool near zero still steps by a part of 0.1
    points.
    """
    size: Values = np.abs(apy) + 0.1
    return size


@dataclass(frozen=True)
class Target:
    """`limit` is the largest value published (percent or USD). For the gate: a step smaller than
    `least_step` scales is published as none, and the panel's mean loss counts for `panel_days` of a
    pool's own.
    """

    name: str
    logarithmic: bool
    limit: float
    least_step: float
    panel_days: float

    def level(self, values: Values) -> Values:
        return np.log1p(values) if self.logarithmic else values

    def moved(self, values: Values, steps: Values, lowest: Values) -> Values:
        """The values after a step in level, between `lowest` and the limit (or the value, where
        that is beyond it already).

        A step of zero gives the value itself; NaN stays NaN.
        """
        now, ceiling = self.level(values), self.level(np.array(self.limit))
        levels = np.clip(
            now + steps,
            np.zeros_like(now) if self.logarithmic else np.minimum(now, -ceiling),
            np.maximum(now, ceiling),
        )
        stepped = np.expm1(levels) if self.logarithmic else levels
        return np.maximum(np.where(steps == 0.0, values, stepped), lowest)

    def size(self, values: Values) -> Values:
        """What a scale is compared with: `apy_size`, and one for the logarithm."""
        return np.ones_like(values) if self.logarithmic else apy_size(values)


def targets(*, max_apy_percent: float, max_tvl_usd: float) -> tuple[Target, Target]:
    """APY and TVL, published first to last."""
    return Target("apy", False, max_apy_percent, APY_LEAST_STEP, APY_PANEL_DAYS), Target(
        "tvl", True, max_tvl_usd, TVL_LEAST_STEP, TVL_PANEL_DAYS
    )


def targets_of(settings: Settings) -> tuple[Target, Target]:
    return targets(max_apy_percent=settings.max_apy_percent, max_tvl_usd=settings.max_tvl_usd)


def mean_of_spaces(apy: Values, scale: Values, move: Values, asinh_move: Values) -> Values:
    """One APY move, in scales: the mean of the APYs that the two models of it say."""
    by_asinh = ASINH_UNIT * np.sinh(asinh_level(apy) + asinh_move) - apy
    mean: Values = (move + by_asinh / scale) / 2.0
    return mean
