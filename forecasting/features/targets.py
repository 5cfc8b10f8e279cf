"""The two targets, APY and TVL, and the spaces in which they are modelled.

A model forecasts a move: the change from today's level in units of the pool's scale. The level of
APY is APY itself (percent), that of TVL log1p(USD). APY is modelled a second time as a change of
asinh(apy / 0.1), which is linear near zero and logarithmic above; the mean of both is published.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config_spark import Settings

Values = npt.NDArray[np.float64]

# scales: a larger label is cut; absolute loss tolerates outliers, and medians of leaves do not need
# them
LABEL_LIMIT = 30.0

ASINH_UNIT = 0.1

# scales: smaller steps gain little on average, and do harm to calm pools
APY_LEAST_STEP, TVL_LEAST_STEP = 0.08, 0.1
# A pool's own decayed days sum to 29 at most. TVL is nearly a random walk: a pool's own errors say
# little about its model.
APY_PANEL_DAYS, TVL_PANEL_DAYS = 40.0, 160.0


def asinh_level(apy: Values) -> Values:
    """Returns APY (percent) in asinh space."""
    level: Values = np.arcsinh(apy / ASINH_UNIT)
    return level


def apy_size(apy: Values) -> Values:
    """Returns the size that an APY's scale is compared with, in APY points."""
    # a pool near zero still moves by parts of 0.1 points
    size: Values = np.abs(apy) + 0.1
    return size


@dataclass(frozen=True)
class Target:
    """A target with its limits and its gate.

    Attributes:
        name: `apy` or `tvl`.
        logarithmic: the level is log1p of the value.
        limit: largest value that is published, percent or USD.
        least_step: smallest step that is published, in scales.
        panel_days: days of a pool's own that the panel's mean loss counts for in the gate.
    """

    name: str
    logarithmic: bool
    limit: float
    least_step: float
    panel_days: float

    def level(self, values: Values) -> Values:
        """Returns values (percent or USD) as levels."""
        return np.log1p(values) if self.logarithmic else values

    def moved(self, values: Values, steps: Values, lowest: Values) -> Values:
        """Returns the values after a step, as they may be published.

        Args:
            values: today's values, percent or USD.
            steps: steps in level.
            lowest: lowest value that may be published: zero, or a negative APY that the pool has
                had.

        Returns:
            Values between `lowest` and the limit, or the value itself where that is beyond the
            limit already. A step of zero gives the value itself; NaN stays NaN.
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
        """Returns the size that a scale is compared with: `apy_size`, and 1 for a logarithm."""
        return np.ones_like(values) if self.logarithmic else apy_size(values)


def targets(*, max_apy_percent: float, max_tvl_usd: float) -> tuple[Target, Target]:
    """Returns APY and TVL.

    Args:
        max_apy_percent: largest APY that is published, percent.
        max_tvl_usd: largest TVL that is published, USD.
    """
    return Target("apy", False, max_apy_percent, APY_LEAST_STEP, APY_PANEL_DAYS), Target(
        "tvl", True, max_tvl_usd, TVL_LEAST_STEP, TVL_PANEL_DAYS
    )


def targets_of(settings: Settings) -> tuple[Target, Target]:
    """Returns APY and TVL with the limits of the settings."""
    return targets(max_apy_percent=settings.max_apy_percent, max_tvl_usd=settings.max_tvl_usd)


def mean_of_spaces(apy: Values, scale: Values, move: Values, asinh_move: Values) -> Values:
    """Returns the APY move in scales: the mean of the APYs that the models of both spaces forecast.

    Args:
        apy: today's APY, percent.
        scale: the pool's scale, APY points.
        move: move of the first space, in scales.
        asinh_move: move in asinh space.
    """
    by_asinh = ASINH_UNIT * np.sinh(asinh_level(apy) + asinh_move) - apy
    mean: Values = (move + by_asinh / scale) / 2.0
    return mean
