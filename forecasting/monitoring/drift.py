"""Feature drift: the distance between the as-of day's features and those of the training days.

Reads feature rows of observed pools with a scale; returns a reference that is stored with the model
as JSON, and each feature's PSI and Kolmogorov-Smirnov statistic. Drift says that values have moved,
not that forecasts are worse; `rolling_origin_score` says that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forecasting.engines.engine import Features
from forecasting.features.targets import Values
from forecasting.models.feature_groups import SAME_FOR_ALL_POOLS
from forecasting.monitoring.feature_reference import FeatureReference, Reference

DECILES = np.arange(1, 10) / 10.0
# with fewer rows a day's PSI is chance: it is not checked and does not count as usual
MIN_ROWS = 20


@dataclass(frozen=True)
class FeatureDrift:
    """Drift of one feature on the as-of day.

    Attributes:
        psi: population stability index.
        ks: Kolmogorov-Smirnov statistic, 0 to 1.
        beyond: PSI above chance and above the usual PSI.
        all_missing: no row has a value.
    """

    feature: str
    psi: float
    ks: float
    beyond: float
    all_missing: bool


def reference_distribution(
    matrix: Features, names: Sequence[str], days: npt.NDArray[Any]
) -> Reference:
    """Counts the training rows in bins.

    Args:
        matrix: features, shape (rows, features).
        names: names of the features.
        days: day of each row.
    """
    _, number = np.unique(days, return_inverse=True)
    return [
        _describe(name, column.astype(float), number)
        for name, column in zip(names, matrix.T, strict=True)
    ]


def measure_drift(reference: Reference, matrix: Features) -> list[FeatureDrift]:
    """Measures the drift of every feature.

    Args:
        reference: the model's `reference_distribution`.
        matrix: features of the as-of day, shape (rows, features).

    Returns:
        All features, most drifted first; none for fewer than MIN_ROWS rows.
    """
    if len(matrix) < MIN_ROWS:
        return []
    features = [
        _drift_of(entry, column.astype(float))
        for entry, column in zip(reference, matrix.T, strict=True)
    ]
    return sorted(features, key=lambda feature: (not feature.all_missing, -feature.beyond))


def _describe(name: str, column: Values, day: npt.NDArray[np.int64]) -> FeatureReference:
    edges = _edges(column[~np.isnan(column)], shared=name in SAME_FOR_ALL_POOLS)
    bins = edges.size + 2
    counts = (
        np.bincount(day * bins + _bin_of(column, edges), minlength=bins * (day.max() + 1))
        .reshape(-1, bins)
        .astype(float)
    )
    # a day on which no pool has the feature lies before its history, and is no distribution
    counts = counts[counts[:, :-1].any(axis=1)]
    total = counts.sum(axis=0)
    # only values count as usual: a training day with missing values must not excuse others
    valued = counts[counts[:, :-1].sum(axis=1) >= MIN_ROWS, :-1]
    usual = excess_psi(total[:-1], valued).max(initial=0.0) if len(valued) else 0.0
    return FeatureReference(name, edges.tolist(), total.astype(int).tolist(), float(usual))


def _edges(values: Values, *, shared: bool) -> Values:
    """Deciles, and an edge on either side as far outside the range as that is wide."""
    if not values.size:
        return np.zeros(0)
    low, high = values.min(), values.max()
    # the outer edges detect a change of units
    reach = high - low or 1.0
    # a feature that all pools of a day share fills one bin a day: it can only leave its range
    deciles: Values = np.zeros(0) if shared else np.quantile(values, DECILES)
    edges: Values = np.unique([low - reach, *deciles, high + reach])
    return edges


def _bin_of(column: Values, edges: Values) -> npt.NDArray[np.int64]:
    """Bins are open below and closed above; the last one is for missing values."""
    return np.where(np.isnan(column), edges.size + 1, np.searchsorted(edges, column, side="left"))


def population_stability(expected: Values, counts: Values) -> Values:
    """Returns the PSI, sum((a - e) ln(a / e)) over bins (Siddiqi 2006).

    Args:
        expected: counts by bin.
        counts: counts of each day, shape (days, bins).

    Returns:
        One PSI for each day.
    """
    rows = counts.sum(axis=1, keepdims=True)
    # a share is at least half a row of the day: an empty bin is neither infinite nor worth more
    # than the day's rows can say
    e, a = (np.maximum(share, 0.5 / rows) for share in (expected / expected.sum(), counts / rows))
    psi: Values = ((a - e) * np.log(a / e)).sum(axis=1)
    return psi


def excess_psi(expected: Values, counts: Values) -> Values:
    """Returns the PSI less the mean PSI of rows drawn from the expected ones.

    That mean is (bins - 1)(1 / rows + 1 / expected rows) (Yurdakul and Naranjo 2020).

    Args:
        expected: counts by bin.
        counts: counts of each day, shape (days, bins).
    """
    bins, rows = np.count_nonzero(expected), counts.sum(axis=1)
    excess: Values = population_stability(expected, counts) - (bins - 1) * (
        1.0 / rows + 1.0 / expected.sum()
    )
    return excess


def binned_ks(expected: Values, counts: Values) -> float:
    """Returns the two-sample Kolmogorov-Smirnov statistic of two binned distributions.

    The largest distance at the edges is a lower bound of the largest anywhere. Missing values are
    above all others.

    Args:
        expected: counts by bin.
        counts: counts by bin.
    """
    return float(np.abs(np.cumsum(counts / counts.sum() - expected / expected.sum())).max())


def _drift_of(entry: FeatureReference, column: Values) -> FeatureDrift:
    edges, expected = np.array(entry.edges), np.array(entry.counts)
    if not expected.any():
        # the training days had no value either
        return FeatureDrift(entry.feature, psi=0.0, ks=0.0, beyond=0.0, all_missing=False)
    counts = np.bincount(_bin_of(column, edges), minlength=expected.size)[None, :].astype(float)
    valued = 1.0 - counts[0, -1] / column.size
    return FeatureDrift(
        entry.feature,
        psi=float(population_stability(expected, counts)[0]),
        ks=binned_ks(expected, counts[0]),
        # chain rule of the divergence: the values' part weighs as much as the rows that have one
        beyond=float(excess_psi(expected, counts)[0] - valued * entry.usual),
        all_missing=bool(valued == 0.0),
    )
