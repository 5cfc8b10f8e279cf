"""Scores by segment of pools: by volatility, size, age, chain and project.

Reads evaluation rows (columns of `yieldspark.forecast_evaluation`); returns one `SegmentScore` for
each segment. Segments are of the as-of day.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from forecasting.evaluation.day_bootstrap import mean_ratio_interval
from forecasting.evaluation.error_measures import interval_scores, mean, median, ratio, values
from forecasting.evaluation.scores import category_codes
from forecasting.features.targets import Values, apy_size

# the pool's scale as a share of its size; fixed, so that a segment means the same on every panel
VOLATILITY_LIMITS = {"apy": (0.01, 0.05), "tvl": (0.005, 0.02)}
VOLATILITY_CLASSES = ("calm", "medium", "wild")
TVL_LIMITS_USD = (100_000.0, 1_000_000.0, 10_000_000.0)
TVL_CLASSES = ("<100k", "100k-1M", "1M-10M", "10M+")
AGE_LIMITS_DAYS = (30.0, 90.0, 365.0)
AGE_CLASSES = ("<30", "30-90", "90-365", "365+")
# chains and projects with a segment of their own
LARGEST = 10

SCORED = (
    "pool_id",
    "as_of",
    "actual",
    "forecast",
    "persistence",
    "low",
    "high",
    "naive_low",
    "naive_high",
)


@dataclass(frozen=True)
class SegmentScore:
    """Scores of one segment of one target; None where a score has no value.

    Attributes:
        by: class of segments: instability (VOLATILITY_CLASSES), tvl_class, age_class (days), chain
            or project.
        group: name of the segment.
        rows: scored forecasts.
        mae: mean absolute error of the model, in APY points or USD.
        mae_ratio: to persistence's MAE, with its bootstrap interval mae_ratio_low, mae_ratio_high.
        coverage: share of actual values inside the interval, 0 to 1.
        pinball_ratio: interval loss relative to the naive interval's.
    """

    target: str
    by: str
    group: str
    rows: int
    pools: int
    mae: float | None
    persistence_mae: float | None
    mae_ratio: float | None
    mae_ratio_low: float | None
    mae_ratio_high: float | None
    median_ae_ratio: float | None
    coverage: float | None
    pinball_ratio: float | None


def segment_scores(rows: pd.DataFrame, level: float) -> list[SegmentScore]:
    """Scores each segment of each target that has rows.

    Args:
        rows: evaluation rows, with age_days, chain and project if the caller joined them.
        level: nominal coverage of the intervals, 0 to 1.

    Returns:
        Scores of the segments that have rows. A class is left out if the rows lack its column; rows
        without a value are in the segment `unknown`.
    """
    scores = []
    for target, of_target in rows.groupby("target"):
        scored = of_target[[column for column in SCORED if column in rows]]
        for by, segments in segments_of(of_target, str(target)):
            for segment in segments.categories:
                members = scored[segments == segment]
                if len(members):
                    scores.append(_segment_score(members, level, str(target), by, str(segment)))
    return scores


def segments_of(rows: pd.DataFrame, target: str) -> Iterator[tuple[str, pd.Categorical]]:
    """Yields each class of segments and the segment of each row.

    Args:
        rows: rows with tvl_usd and apy_percent; volatility_scale, age_days, chain and project are
            optional.
        target: `apy` or `tvl`.

    Yields:
        Name of the class, and a categorical in the order in which segments are listed.
    """
    if "volatility_scale" in rows:
        # the scale of TVL is one of logarithms, and so a share already
        size = apy_size(values(rows, "apy_percent")) if target == "apy" else 1.0
        yield (
            "instability",
            _classes(
                values(rows, "volatility_scale") / size,
                VOLATILITY_LIMITS[target],
                VOLATILITY_CLASSES,
            ),
        )
    yield "tvl_class", _classes(values(rows, "tvl_usd"), TVL_LIMITS_USD, TVL_CLASSES)
    if "age_days" in rows:
        yield "age_class", _classes(values(rows, "age_days"), AGE_LIMITS_DAYS, AGE_CLASSES)
    for column in ("chain", "project"):
        if column in rows:
            yield column, _largest(rows[column])


def _classes(numbers: Values, limits: tuple[float, ...], names: tuple[str, ...]) -> pd.Categorical:
    """Names by class of value; a value at a limit belongs to the class above it."""
    labels = np.array([*names, "unknown"])
    position = np.searchsorted(limits, numbers, side="right")
    return pd.Categorical(labels[np.where(np.isnan(numbers), len(names), position)], labels)


def _largest(labels: pd.Series[str]) -> pd.Categorical:
    """The LARGEST labels by rows, the first of the alphabet among equals; then `other`."""
    filled = labels.fillna("unknown")
    largest = (
        filled.value_counts()
        .sort_index()
        .sort_values(ascending=False, kind="stable")
        .index[:LARGEST]
    )
    order = [*(name for name in largest if name != "other"), "other"]
    return pd.Categorical(filled.where(filled.isin(order), "other"), order)


def _segment_score(
    rows: pd.DataFrame, level: float, target: str, by: str, group: str
) -> SegmentScore:
    model, persistence = (
        np.abs(values(rows, "actual") - values(rows, name)) for name in ("forecast", "persistence")
    )
    low, high = mean_ratio_interval(model, persistence, category_codes(rows["as_of"]))
    interval = interval_scores(rows, level)
    return SegmentScore(
        target=target,
        by=by,
        group=group,
        rows=len(rows),
        pools=int(rows["pool_id"].nunique()),
        mae=mean(model),
        persistence_mae=mean(persistence),
        mae_ratio=ratio(mean(model), mean(persistence)),
        mae_ratio_low=low,
        mae_ratio_high=high,
        median_ae_ratio=ratio(median(model), median(persistence)),
        coverage=interval.coverage,
        pinball_ratio=interval.pinball_ratio,
    )
