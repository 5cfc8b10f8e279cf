"""The distribution of a feature in the training data, which is stored in the model's card.

Imports neither Spark nor numpy: lists of model versions read it too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FeatureReference:
    """Training rows of one feature, counted in bins.

    Attributes:
        edges: bounds between the bins, ascending.
        counts: rows below, between and above the edges, then those without a value; shape
            (edges + 2).
        usual: the highest PSI of a training day. Pools move together: any one day is far from a
            year of days (PSI 0.1 to 0.5, 2 on a volatile day), so a fixed limit would warn on
            every run.
    """

    feature: str
    edges: list[float]
    counts: list[int]
    usual: float


# one entry for each feature, in the order of the model's matrix
Reference = list[FeatureReference]
