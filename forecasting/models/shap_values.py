"""Why an APY forecast is what it is: the contributions of tonight's features to the published step,
in APY points.

In: tonight's feature matrix, the native texts of APY's median models, APY (percent) and scale (APY
points), and the published steps. Out: each row's strongest contributions. They are those of
TreeSHAP (Lundberg et al. 2020), as LightGBM itself makes them: over all features and the base, the
models' expected value, they sum up to the forecast. They name no causes, and of features that say
the same each gets a part.

The base is part of every sum and never shown. But for scale and level it is the same for all pools,
and would take one of three places nearly everywhere (on real pools it is a fifth of the size of all
contributions) to say nothing about the row: what is shown is how this row differs from an average
row of the training span.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from forecasting.engines.engine import Features
from forecasting.features.targets import ASINH_UNIT, Values, asinh_level
from forecasting.models.stacked_model import ASINH_SEEDS, SCALED_SEEDS

if TYPE_CHECKING:
    import lightgbm

STRONGEST = 3
CHUNK_ROWS = 4096
"""One model's contributions of a chunk are 3 MB with 87 features."""

Explanation = list[dict[str, Any]]


def explanations(
    matrix: Features,
    features: Sequence[str],
    texts: Sequence[str],
    *,
    apy: Values,
    scale: Values,
    steps: Values,
    threads: int,
) -> list[Explanation | None]:
    """Up to STRONGEST contributions of each row, `{"feature": .., "points": ..}`, strongest first;
    None where a rule publishes today's APY.

    All contributions of a row, with the base, sum up to its published step: the gate's weight and
    the limits of what may be published make each of them larger or smaller by the same factor.
    Args: matrix (rows, features); texts as `stacked_model.apy_objectives` orders them; steps are
    forecast minus today in APY points, 0 or NaN where there is none.
    """
    from forecasting.engines.native import lightgbm

    found: list[Explanation | None] = [None] * len(matrix)
    stepped = np.flatnonzero(np.nan_to_num(steps))
    boosters = [lightgbm.Booster(model_str=text) for text in texts[: SCALED_SEEDS + ASINH_SEEDS]]
    for rows in (
        stepped[first : first + CHUNK_ROWS] for first in range(0, stepped.size, CHUNK_ROWS)
    ):
        points = move_contributions(matrix[rows], boosters, apy[rows], scale[rows], threads)
        points *= (steps[rows] / points.sum(axis=1))[:, None]
        for row, strongest in zip(rows, _strongest(points[:, :-1], features), strict=True):
            found[row] = strongest
    return found


def move_contributions(
    matrix: Features, boosters: Sequence[lightgbm.Booster], apy: Values, scale: Values, threads: int
) -> Values:
    """The model's own move in APY points, (rows, features + 1), the base last. Rows sum up to
    `mean_of_spaces` x scale.

    Contributions in asinh space become points by the secant from today's APY to the forecast one,
    so that none is favoured by the curve.
    """
    scaled, asinh = (
        np.mean(
            [booster.predict(matrix, pred_contrib=True, num_threads=threads) for booster in drawn],
            axis=0,
        )
        for drawn in (boosters[:SCALED_SEEDS], boosters[SCALED_SEEDS:])
    )
    points: Values = (
        scaled * scale[:, None] + asinh * secant_slope(apy, asinh.sum(axis=1))[:, None]
    ) / 2.0
    return points


def secant_slope(apy: Values, asinh_move: Values) -> Values:
    """APY points for one unit of asinh space, on average over the move: (u sinh(a + m) - u sinh(a))
    / m, where a is asinh(APY / u).

    As u cosh(a + m/2) sinh(m/2) / (m/2), it does not cancel where m is small; for m = 0 it is the
    derivative sqrt(APY^2 + u^2).
    """
    half = asinh_move / 2.0
    slope: Values = (
        ASINH_UNIT
        * np.cosh(asinh_level(apy) + half)
        * np.divide(np.sinh(half), half, out=np.ones_like(half), where=half != 0.0)
    )
    return slope


def _strongest(points: Values, features: Sequence[str]) -> list[Explanation]:
    """Largest first by size, the earlier feature among equals; a contribution of nothing is
    none.
    """
    order = np.argsort(-np.abs(points), axis=1, kind="stable")[:, :STRONGEST]
    chosen = np.take_along_axis(points, order, axis=1)
    return [
        [
            {"feature": features[column], "points": _rounded(value)}
            for column, value in zip(columns, values, strict=True)
            if value
        ]
        for columns, values in zip(order.tolist(), chosen.tolist(), strict=True)
    ]


def _rounded(points: float) -> float:
    """Three significant digits: steps go from thousandths of a point to thousands of them."""
    return float(f"{points:.3g}")
