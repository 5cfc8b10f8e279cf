"""The parts of a page about past forecasts: scores, plots by day and by segment, largest errors.

Reads evaluation rows of one engine and horizon; returns the values of `templates/parts`. The report
and the page of a backtest share it.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup
from sqlalchemy import Engine

from forecasting.evaluation.daily_scores import RECENT_DAYS, daily_scores
from forecasting.evaluation.segments import SegmentScore, segment_scores
from forecasting.publishing.forecast_history import describe_pools
from reporting.figures.accuracy import accuracy, published_level
from reporting.figures.largest_errors import largest_errors
from reporting.report.score_plots import SEGMENT_TITLES, coverage_plot, ratio_plot, segment_plot


def evaluation_parts(engine: Engine, rows: pd.DataFrame, *, scored_days: int) -> dict[str, Any]:
    """Computes the parts of a page.

    Args:
        engine: the database, for the names of the pools.
        rows: evaluation rows with actual values.
        scored_days: number of target days of all parts but the plots by day, which have all rows.

    Returns:
        scores (see `accuracy`), by_day, by_segment, largest_errors and recent_days.
    """
    if rows.empty:
        return {
            "scores": [],
            "by_day": [],
            "by_segment": [],
            "largest_errors": {},
            "recent_days": RECENT_DAYS,
        }
    level = published_level(rows)
    scored = describe_pools(
        engine,
        rows[rows["target_date"] > rows["target_date"].max() - dt.timedelta(days=scored_days)],
    )
    return {
        "scores": accuracy(scored),
        "by_day": [
            _daily_part(str(target), rows_of_target, level)
            for target, rows_of_target in rows.groupby("target")
        ],
        "by_segment": _segment_parts(segment_scores(scored, level)),
        "largest_errors": largest_errors(engine, scored),
        "recent_days": RECENT_DAYS,
    }


@dataclass(frozen=True)
class Plot:
    """A plot and the number of values off its scale."""

    svg: Markup
    clipped: int


@dataclass(frozen=True)
class DailyPlot(Plot):
    """A plot by day, with the newest four-week score and its interval; None with too few days."""

    recent: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class DailyPart:
    """Scores of one target by day.

    Attributes:
        level: nominal coverage of the interval, 0 to 1.
        ratio: capped errors of the model relative to persistence's.
        coverage: share of actual values inside the interval.
        lowest_ratio, highest_ratio: MAE ratio of single days; None without any.
    """

    target: str
    first_day: dt.date
    last_day: dt.date
    level: float
    ratio: DailyPlot
    coverage: DailyPlot
    lowest_ratio: float | None
    highest_ratio: float | None


@dataclass(frozen=True)
class SegmentPart:
    """Scores of one target by segment of pools."""

    target: str
    plot: Plot
    segments: list[SegmentScore]


def _daily_part(target: str, rows: pd.DataFrame, level: float) -> DailyPart:
    days = daily_scores(rows)
    single_days = days["mae_ratio"].dropna()
    return DailyPart(
        target=target,
        first_day=days["target_date"].iloc[0],
        last_day=days["target_date"].iloc[-1],
        level=level,
        ratio=_daily_plot(days, "capped_ratio", ratio_plot(days)),
        coverage=_daily_plot(days, "coverage", coverage_plot(days, level)),
        lowest_ratio=float(single_days.min()) if len(single_days) else None,
        highest_ratio=float(single_days.max()) if len(single_days) else None,
    )


def _daily_plot(days: pd.DataFrame, measure: str, plot: tuple[str, int]) -> DailyPlot:
    newest = days.iloc[-1]
    recent, low, high = (
        None if pd.isna(newest[column]) else float(newest[column])
        for column in (f"{measure}_recent", f"{measure}_low", f"{measure}_high")
    )
    svg, clipped = plot
    return DailyPlot(Markup(svg), clipped, recent, low, high)


def _segment_parts(segments: list[SegmentScore]) -> list[SegmentPart]:
    # segments by chain and protocol have names of the data, and are on the dashboard only
    drawn = [segment for segment in segments if segment.by in SEGMENT_TITLES]
    parts = []
    for target in sorted({segment.target for segment in drawn}):
        parts.append(_segment_part(target, [part for part in drawn if part.target == target]))
    return parts


def _segment_part(target: str, segments: list[SegmentScore]) -> SegmentPart:
    svg, clipped = segment_plot(segments)
    return SegmentPart(target, Plot(Markup(svg), clipped), segments)
