"""Scores of the page Quality, computed once for each run that ends.

At many pools they take longer than a visitor waits, so a thread of the server computes them when it
starts and after every run.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import pandas as pd

from common.errors import YieldSparkError, summarize_error
from forecasting.evaluation.segments import SegmentScore, segment_scores
from forecasting.publishing.forecast_history import describe_pools
from reporting.dashboard.connection import (
    DataVersion,
    connected,
    data_version,
    database_problem,
)
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

log = logging.getLogger(__name__)

CHECK_SECONDS = 30.0
"""Time between two looks for a run that has ended."""
KEPT_VERSIONS = 2


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


_lock = threading.Lock()
_kept: dict[DataVersion, Scores | None] = {}


def scores_of(version: DataVersion) -> Scores | None:
    """Return the scores of a version of the data; None without a scored forecast.

    A second caller waits for the first one.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with _lock:
        if version not in _kept:
            _kept[version] = _compute()
            while len(_kept) > KEPT_VERSIONS:
                del _kept[next(iter(_kept))]
        return _kept[version]


def forget() -> None:
    """Compute all scores again when they are next asked for."""
    with _lock:
        _kept.clear()


def keep_computed(stop: threading.Event) -> None:
    """Compute the scores of every new version of the data, until `stop` is set."""
    while not stop.is_set():
        try:
            if database_problem() is None:
                scores_of(data_version())
        except YieldSparkError as error:
            # a visitor of the page sees the error
            log.debug("the scores can't be computed: %s", summarize_error(error))
        stop.wait(CHECK_SECONDS)


def _compute() -> Scores | None:
    engine = connected().engine
    by_day = newest_by_day(engine, days=SERIES_DAYS)
    rows = newest_evaluated(engine, days=SCORED_DAYS)
    if rows.empty:
        return None
    level = published_level(rows)
    scored = describe_pools(engine, rows)
    return Scores(
        accuracy(scored),
        by_day,
        segment_scores(scored, level),
        largest_errors(engine, scored),
        interval_reliability(scored),
        level,
    )
