"""Reliability of the forecast intervals: actual values below, inside and above them, by width.

Reads evaluation rows with actual values; returns shares between 0 and 1. A set of intervals is
reliable if its shares are the nominal ones in every class (Gneiting, Balabdaoui and Raftery 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from forecasting.evaluation.error_measures import values

CLASSES = 5
LABELS = ("narrowest fifth", "second fifth", "third fifth", "fourth fifth", "widest fifth")


@dataclass(frozen=True)
class IntervalReliability:
    """Shares of actual values by their place, of the forecasts in one class of width."""

    label: str
    rows: int
    below: float
    inside: float
    above: float


def interval_reliability(rows: pd.DataFrame) -> dict[str, list[IntervalReliability]]:
    """Counts the actual values below, inside and above their intervals.

    Args:
        rows: evaluation rows with actual values. The width of an interval is measured in the pool's
            usual step where that is known and positive; other rows are left out.

    Returns:
        By target, CLASSES classes of equal size by width; fewer if widths are equal.
    """
    return {
        str(target): _of_target(of_target)
        for target, of_target in rows.groupby("target")
        if len(of_target)
    }


def _of_target(rows: pd.DataFrame) -> list[IntervalReliability]:
    low, high, actual, scale = (
        values(rows, name) for name in ("low", "high", "actual", "volatility_scale")
    )
    if rows["target"].iloc[0] == "tvl":
        # the scale of TVL is one of logarithms
        low, high, actual = (np.log1p(np.maximum(ends, 0.0)) for ends in (low, high, actual))
    with np.errstate(divide="ignore", invalid="ignore"):
        width = (high - low) / scale
    is_known = np.isfinite(width) & np.isfinite(actual)
    if not is_known.any():
        return []
    low, high, actual, width = (ends[is_known] for ends in (low, high, actual, width))
    edges = np.quantile(width, np.linspace(0, 1, CLASSES + 1)[1:-1])
    classes = np.searchsorted(edges, width, side="left")
    reliabilities = []
    for number, label in enumerate(LABELS):
        member = classes == number
        if not member.any():
            continue
        below = float((actual[member] < low[member]).mean())
        above = float((actual[member] > high[member]).mean())
        reliabilities.append(
            IntervalReliability(label, int(member.sum()), below, 1.0 - below - above, above)
        )
    return reliabilities
