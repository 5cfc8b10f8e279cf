"""What a page says of forecasts that have come true: scores, pictures by day and by group, the
biggest misses.

The report and a backtest's page share it. In: evaluation rows of one engine and horizon (columns of
`yieldspark.forecast_evaluation`).
Out: what `templates/parts` word.
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
from reporting.report.score_plots import SEGMENT_TITLES, coverage_plot, group_plot, ratio_plot


def evaluation_parts(engine: Engine, rows: pd.DataFrame, *, scored_days: int) -> dict[str, Any]:
    """scores (`accuracy`), by_day, by_group and misses: pictures by day are of all rows, everything
    else of the last `scored_days` target days.
    """
    if rows.empty:
        return {
            "scores": [],
            "by_day": [],
            "by_group": [],
            "misses": {},
            "recent_days": RECENT_DAYS,
        }
    level = published_level(rows)
    scored = describe_pools(
        engine,
        rows[rows["target_date"] > rows["target_date"].max() - dt.timedelta(days=scored_days)],
    )
    groups = [one for one in segment_scores(scored, level) if one["by"] in SEGMENT_TITLES]
    return {
        "scores": accuracy(scored),
        "by_day": [
            _by_day(str(target), of_target, level) for target, of_target in rows.groupby("target")
        ],
        "by_group": [
            _by_group(target, [one for one in groups if one["target"] == target])
            for target in sorted({one["target"] for one in groups})
        ],
        "misses": largest_errors(engine, scored),
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
    """The last four weeks and their noise; None where days are too few."""
    newest = days.iloc[-1]
    names = {"recent": f"{measure}_recent", "low": f"{measure}_low", "high": f"{measure}_high"}
    return {
        name: None if pd.isna(newest[column]) else float(newest[column])
        for name, column in names.items()
    }


def _by_group(target: str, groups: list[dict[str, Any]]) -> dict[str, Any]:
    svg, clipped = group_plot(groups, f"groups-{target}")
    return {"target": target, "svg": Markup(svg), "clipped": clipped, "groups": groups}
