"""How far tonight's features are from those that the model was trained on.

In: feature rows of the training span, once a model version; tonight's rows. Out: a reference that
is kept with the model as JSON, and each feature's PSI and Kolmogorov-Smirnov statistic. Both are of
rows chosen alike: observed pools with a scale. It says that values have moved, not that forecasts
are worse: `rolling_origin_score` says that.

A night is judged beside nights. Pools move together: any one day is far from a year of days (PSI
0.1 to 0.5, 2 on a stormy day), and a fixed limit would warn every night. So the reference keeps the
highest PSI that a training day itself has beside the whole span, and tonight may go that far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forecasting.engines.engine import Features
from forecasting.features.targets import Values
from forecasting.models.feature_groups import SAME_FOR_ALL_POOLS

Reference = list[dict[str, Any]]
"""An entry for each feature, in the matrix's order: feature, edges, counts of rows (the last bin is
missing), usual (PSI).
"""

DECILES = np.arange(1, 10) / 10.0
MIN_ROWS = 20
"""A day of fewer rows neither is judged nor says what is usual: the PSI of a handful is chance."""


@dataclass(frozen=True)
class FeatureDrift:
    """One feature tonight. `beyond` is its PSI above chance and above the usual; `all_missing`
    where no row has a value.
    """

    feature: str
    psi: float
    ks: float
    beyond: float
    all_missing: bool


def reference_distribution(
    matrix: Features, names: Sequence[str], days: npt.NDArray[Any]
) -> Reference:
    """The training rows in bins. Args: matrix (rows, features); days has each row's day.

    Edges are the deciles, and two fences as far outside the span's range as that is wide, for a
    change of units. Features that a day's pools share have the fences alone, as one value a day
    fills one bin on any night: they are judged by leaving the range, and by missing.
    """
    _, number = np.unique(days, return_inverse=True)
    return [
        _describe(name, column.astype(float), number)
        for name, column in zip(names, matrix.T, strict=True)
    ]


def measure_drift(reference: Reference, matrix: Features) -> list[FeatureDrift]:
    """Every feature of tonight's rows (rows, features), most drifted first; none of fewer than
    MIN_ROWS rows.
    """
    if len(matrix) < MIN_ROWS:
        return []
    found = [
        _drift_of(known, column.astype(float))
        for known, column in zip(reference, matrix.T, strict=True)
    ]
    return sorted(found, key=lambda one: (not one.all_missing, -one.beyond))


def _describe(name: str, column: Values, day: npt.NDArray[np.int64]) -> dict[str, Any]:
    known = column[~np.isnan(column)]
    edges = _edges(known, shared=name in SAME_FOR_ALL_POOLS)
    bins = edges.size + 2
    counts = (
        np.bincount(day * bins + _bin_of(column, edges), minlength=bins * (day.max() + 1))
        .reshape(-1, bins)
        .astype(float)
    )
    # a day on which no pool has the feature is of a time before it, and no distribution
    counts = counts[counts[:, :-1].any(axis=1)]
    total = counts.sum(axis=0)
    # what is usual is a matter of values: a day with a hole is no measure for tonight
    valued = counts[counts[:, :-1].sum(axis=1) >= MIN_ROWS, :-1]
    usual = excess_psi(total[:-1], valued).max(initial=0.0) if len(valued) else 0.0
    return {
        "feature": name,
        "edges": edges.tolist(),
        "counts": total.astype(int).tolist(),
        "usual": float(usual),
    }


def _edges(known: Values, *, shared: bool) -> Values:
    if not known.size:
        return np.zeros(0)
    low, high = known.min(), known.max()
    reach = high - low or 1.0
    edges: Values = np.unique(
        [low - reach, *([] if shared else np.quantile(known, DECILES)), high + reach]
    )
    return edges


def _bin_of(column: Values, edges: Values) -> npt.NDArray[np.int64]:
    """Bins are open below and closed above; the last one holds what is missing."""
    return np.where(np.isnan(column), edges.size + 1, np.searchsorted(edges, column, side="left"))


def population_stability(expected: Values, counts: Values) -> Values:
    """PSI, sum((a - e) ln(a / e)) over bins (Siddiqi 2006), of each row of counts (nights, bins)
    beside the expected counts (bins).

    Shares are at least half a row's of the night, so that an empty bin is neither infinite nor
    worth more than the night can say.
    """
    rows = counts.sum(axis=1, keepdims=True)
    e, a = (np.maximum(share, 0.5 / rows) for share in (expected / expected.sum(), counts / rows))
    psi: Values = ((a - e) * np.log(a / e)).sum(axis=1)
    return psi


def excess_psi(expected: Values, counts: Values) -> Values:
    """PSI less what rows drawn like the expected ones have on average: (bins - 1)(1 / rows + 1 /
    expected rows) (Yurdakul and Naranjo 2020).
    """
    bins, rows = np.count_nonzero(expected), counts.sum(axis=1)
    excess: Values = population_stability(expected, counts) - (bins - 1) * (
        1.0 / rows + 1.0 / expected.sum()
    )
    return excess


def binned_ks(expected: Values, counts: Values) -> float:
    """The two-sample Kolmogorov-Smirnov statistic of two distributions in bins, missing above all
    values; both are counts.

    The largest distance at the edges: a lower bound of the largest anywhere.
    """
    return float(np.abs(np.cumsum(counts / counts.sum() - expected / expected.sum())).max())


def _drift_of(known: Mapping[str, Any], column: Values) -> FeatureDrift:
    edges, expected = np.array(known["edges"]), np.array(known["counts"])
    if not expected.any():
        # the model has never seen it either
        return FeatureDrift(known["feature"], psi=0.0, ks=0.0, beyond=0.0, all_missing=False)
    counts = np.bincount(_bin_of(column, edges), minlength=expected.size)[None, :].astype(float)
    valued = 1.0 - counts[0, -1] / column.size
    return FeatureDrift(
        known["feature"],
        psi=float(population_stability(expected, counts)[0]),
        ks=binned_ks(expected, counts[0]),
        # by the chain rule of the divergence, values weigh as much in it as there are rows with one
        beyond=float(excess_psi(expected, counts)[0] - valued * known["usual"]),
        all_missing=bool(valued == 0.0),
    )
