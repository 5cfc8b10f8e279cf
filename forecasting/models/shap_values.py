"""SHAP values: contributions of the features to an APY forecast, in APY points.

Reads the feature matrix, native texts of the APY median models and the published steps; returns
each row's strongest contributions. TreeSHAP (Lundberg et al. 2020) by LightGBM itself.
Contributions name no causes, and features that say the same share theirs.
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
# one model's contributions of a chunk need 3 MB with 87 features
CHUNK_ROWS = 4096

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
    """Explains published APY steps.

    All contributions of a row, with the base, add up to its published step: the gate's weight and
    the publishing limits scale each of them by the same factor.

    Args:
        matrix: features, shape (rows, features).
        features: names of the columns.
        texts: native texts in the order of `apy_objectives`.
        apy: today's APY, percent.
        scale: the pools' scales, APY points.
        steps: forecast minus today in APY points; 0 or NaN without a model's forecast.
        threads: threads of LightGBM.

    Returns:
        Up to STRONGEST entries `{"feature": .., "points": ..}` for each row, strongest first; None
            for a fallback.
    """
    from forecasting.engines.native import lightgbm

    results: list[Explanation | None] = [None] * len(matrix)
    forecast_rows = np.flatnonzero(np.nan_to_num(steps))
    boosters = [lightgbm.Booster(model_str=text) for text in texts[: SCALED_SEEDS + ASINH_SEEDS]]
    for first in range(0, forecast_rows.size, CHUNK_ROWS):
        rows = forecast_rows[first : first + CHUNK_ROWS]
        points = move_contributions(matrix[rows], boosters, apy[rows], scale[rows], threads)
        points *= (steps[rows] / points.sum(axis=1))[:, None]
        # The base is nearly the same for all pools and a fifth of the size of all contributions: it
        # would fill one of three places everywhere and say nothing about the row.
        for row, strongest in zip(rows, _strongest(points[:, :-1], features), strict=True):
            results[row] = strongest
    return results


def move_contributions(
    matrix: Features, boosters: Sequence[lightgbm.Booster], apy: Values, scale: Values, threads: int
) -> Values:
    """Computes the contributions to the model's own move.

    Args:
        matrix: features, shape (rows, features).
        boosters: APY median models, those of the scaled space first.
        apy: today's APY, percent.
        scale: the pools' scales, APY points.
        threads: threads of LightGBM.

    Returns:
        APY points, shape (rows, features + 1), the base last; rows add up to `mean_of_spaces` x
        scale.
    """
    by_seed = [
        booster.predict(matrix, pred_contrib=True, num_threads=threads) for booster in boosters
    ]
    scaled = np.mean(by_seed[:SCALED_SEEDS], axis=0)
    asinh = np.mean(by_seed[SCALED_SEEDS:], axis=0)
    # the secant from today's APY to the forecast treats all contributions in asinh space alike
    points: Values = (
        scaled * scale[:, None] + asinh * secant_slope(apy, asinh.sum(axis=1))[:, None]
    ) / 2.0
    return points


def secant_slope(apy: Values, asinh_move: Values) -> Values:
    """Returns APY points for one unit of asinh space, on average over the move.

    Computes (u sinh(a + m) - u sinh(a)) / m with a = asinh(APY / u) as u cosh(a + m/2) sinh(m/2) /
    (m/2), which does not cancel for a small m; for m = 0 it is the derivative sqrt(APY^2 + u^2).

    Args:
        apy: today's APY, percent.
        asinh_move: the forecast move m, in asinh space.
    """
    half = asinh_move / 2.0
    slope: Values = (
        ASINH_UNIT
        * np.cosh(asinh_level(apy) + half)
        * np.divide(np.sinh(half), half, out=np.ones_like(half), where=half != 0.0)
    )
    return slope


def _strongest(points: Values, features: Sequence[str]) -> list[Explanation]:
    """The STRONGEST contributions of each row by size, without zeros."""
    # a stable sort: the earlier feature comes first among equals
    order = np.argsort(-np.abs(points), axis=1, kind="stable")[:, :STRONGEST]
    strongest = np.take_along_axis(points, order, axis=1)
    entries = []
    for columns, values in zip(order.tolist(), strongest.tolist(), strict=True):
        pairs = zip(columns, values, strict=True)
        entries.append(
            [
                {"feature": features[column], "points": _rounded(value)}
                for column, value in pairs
                if value
            ]
        )
    return entries


def _rounded(points: float) -> float:
    """Three significant digits: steps range from thousandths of a point to thousands."""
    return float(f"{points:.3g}")
