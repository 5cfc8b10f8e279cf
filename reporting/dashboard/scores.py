"""Scores of the page Quality: of the newest engine's forecasts, from evaluation rows.

At 20,000 pools they take longer than a visitor waits: `scoring` computes them beforehand, in a
process of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from sqlalchemy import Engine

from forecasting.evaluation.segments import SegmentScore, segment_scores
from forecasting.publishing.forecast_history import describe_pools
from reporting.figures.accuracy import (
    ClassAccuracy,
    accuracy,
    newest_by_day,
    newest_evaluated,
    published_level,
)
from reporting.figures.forecasts import SERIES_DAYS
from reporting.figures.interval_reliability import IntervalReliability, interval_reliability
from reporting.figures.largest_errors import ForecastError, largest_errors
from reporting.report.report import SCORED_DAYS

STEPS = (
    f"adding up the errors of {SERIES_DAYS} days",
    f"reading the scored forecasts of {SCORED_DAYS} days",
    "scoring large pools and all pools",
    "scoring the segments",
    "ranking the largest errors",
    "checking the intervals",
)
"""What `compute_scores` does, in this order."""


@dataclass(frozen=True)
class Scores:
    """Scores of the newest engine's forecasts.

    Attributes:
        scores: of the last SCORED_DAYS target days, by target and class of pools.
        by_day: `daily_scores` by target, of SERIES_DAYS target days.
        segments, errors, reliability: of the last SCORED_DAYS target days.
        level: nominal coverage of the intervals, 0 to 1.
    """

    scores: list[ClassAccuracy]
    by_day: dict[str, pd.DataFrame]
    segments: list[SegmentScore]
    errors: dict[str, list[ForecastError]]
    reliability: dict[str, list[IntervalReliability]]
    level: float


def compute_scores(
    engine: Engine, begin: Callable[[int], None] = lambda number: None
) -> Scores | None:
    """Compute the scores; None without a scored forecast.

    Args:
        begin: called with the number of a step, the index in STEPS, when it begins.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    begin(0)
    # the charts by day reach three times as far back: added up in the database
    by_day = newest_by_day(engine, days=SERIES_DAYS)
    begin(1)
    rows = newest_evaluated(engine, days=SCORED_DAYS)
    if rows.empty:
        return None
    level = published_level(rows)
    scored = describe_pools(engine, rows)
    begin(2)
    of_classes = accuracy(scored)
    begin(3)
    segments = segment_scores(scored, level)
    begin(4)
    errors = largest_errors(engine, scored)
    begin(5)
    return Scores(of_classes, by_day, segments, errors, interval_reliability(scored), level)
