"""The parts of a page about past forecasts: scores, plots by day and by segment, largest errors.

Reads evaluation rows of one engine and horizon; returns the values of `templates/parts`. The report
and the page of a backtest share it.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
from markupsafe import Markup
from sqlalchemy import Engine

from forecasting.evaluation.daily_scores import RECENT_DAYS, daily_scores
from forecasting.evaluation.segments import segment_scores
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
        scores (see `accuracy`), by_day, by_group, largest_errors and recent_days.
    """
    if rows.empty:
        return {
            "scores": [],
            "by_day": [],
            "by_group": [],
            "largest_errors": {},
            "recent_days": RECENT_DAYS,
        }
    level = published_level(rows)
    scored = describe_pools(
        engine,
        rows[rows["target_date"] > rows["target_date"].max() - dt.timedelta(days=scored_days)],
    )
    segments = [
        segment for segment in segment_scores(scored, level) if segment["by"] in SEGMENT_TITLES
    ]
    by_group = []
    for target in sorted({segment["target"] for segment in segments}):
        of_target = [segment for segment in segments if segment["target"] == target]
        by_group.append(_by_group(target, of_target))
    return {
        "scores": accuracy(scored),
        "by_day": [
            _by_day(str(target), rows_of_target, level)
            for target, rows_of_target in rows.groupby("target")
        ],
        "by_group": by_group,
        "largest_errors": largest_errors(engine, scored),
        "recent_days": RECENT_DAYS,
    }


def _by_day(target: str, rows: pd.DataFrame, level: float) -> dict[str, Any]:
    days = daily_scores(rows)
    ratio, ratio_clipped = ratio_plot(days, f"ratio-{target}")
    coverage, coverage_clipped = coverage_plot(days, level, f"coverage-{target}")
    newest = days.iloc[-1]
    plain = days["mae_ratio"].dropna()
    return {
        "target": target,
        "first_day": days["target_date"].iloc[0],
        "last_day": newest["target_date"],
        "level": level,
        "ratio": {"svg": Markup(ratio), "clipped": ratio_clipped} | _recent(days, "capped_ratio"),
        "coverage": (
            {"svg": Markup(coverage), "clipped": coverage_clipped} | _recent(days, "coverage")
        ),
        "plain": {"lowest": plain.min(), "highest": plain.max()} if len(plain) else None,
    }


def _recent(days: pd.DataFrame, measure: str) -> dict[str, float | None]:
    """The newest four-week score and its interval; None with too few days."""
    newest = days.iloc[-1]
    names = {"recent": f"{measure}_recent", "low": f"{measure}_low", "high": f"{measure}_high"}
    return {
        name: None if pd.isna(newest[column]) else float(newest[column])
        for name, column in names.items()
    }


def _by_group(target: str, groups: list[dict[str, Any]]) -> dict[str, Any]:
    svg, clipped = segment_plot(groups, f"groups-{target}")
    return {"target": target, "svg": Markup(svg), "clipped": clipped, "groups": groups}
