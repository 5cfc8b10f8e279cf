"""The report: one self-contained HTML file of forecasts, accuracy, data quality and runs.

Reads a migrated database; writes `yieldspark-report.html`. Numbers come from `reporting.figures`,
plots from `pool_plot` and `score_plots`, texts from the templates.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from sqlalchemy import Engine

from reporting.figures.accuracy import accuracy, newest_evaluated
from reporting.figures.data_quality import data_quality, raw_end
from reporting.figures.forecasts import (
    SERIES_DAYS,
    PoolForecast,
    forecast_table,
    further_horizons,
    pool_series,
    recent_runs,
)
from reporting.figures.model_health import model_health
from reporting.report.evaluation_parts import evaluation_parts
from reporting.report.page import write_page
from reporting.report.pool_plot import apy_plot

REPORT_NAME = "yieldspark-report.html"
SCORED_DAYS = 30


def write_report(engine: Engine, folder: Path) -> Path:
    """Writes the report and returns its path; a report of an empty database says which commands to
    run.

    Args:
        engine: the database.
        folder: made if it is missing.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
        ConfigurationError: the folder can't be written.
    """
    now = dt.datetime.now(dt.UTC)
    return write_page(folder, REPORT_NAME, "report.html", _contents(engine, now), now)


def _contents(engine: Engine, now: dt.datetime) -> dict[str, Any]:
    forecasts = forecast_table(engine)
    plots = []
    for series in pool_series(engine, forecasts):
        svg, clipped = apy_plot(series)
        plots.append({"pool": series.pool, "svg": Markup(svg), "clipped": clipped})
    return {
        "newest": _newest(forecasts, now.date()),
        "forecasts": forecasts,
        "plots": plots,
        "series_days": SERIES_DAYS,
        **evaluation_parts(
            engine, newest_evaluated(engine, days=SERIES_DAYS), scored_days=SCORED_DAYS
        ),
        "further": [_further(engine, horizon) for horizon in further_horizons(engine)],
        "model_health": model_health(engine),
        "health": data_quality(engine),
        "raw": raw_end(engine),
        "runs": recent_runs(engine),
    }


def _further(engine: Engine, horizon: int) -> dict[str, Any]:
    """The forecasts of a further horizon and their accuracy."""
    rows = newest_evaluated(engine, days=SCORED_DAYS, horizon=horizon)
    forecasts = forecast_table(engine, horizon)
    return {
        "horizon_days": horizon,
        "target_date": forecasts[0].target_date,
        "forecasts": forecasts,
        "scores": accuracy(rows),
    }


@dataclass(frozen=True)
class NewestForecasts:
    """Facts of all rows of the newest forecasts.

    Attributes:
        age_days: complete days between the as-of day and today.
        by_model: forecasts that no fallback replaced.
        fallbacks: reasons and their numbers of forecasts, the most frequent first.
        tvl: sum over the pools on the as-of day; USD.
    """

    as_of: dt.date
    target_date: dt.date
    horizon_days: int
    interval_level: float
    engines: list[str]
    versions: list[str]
    age_days: int
    by_model: int
    fallbacks: list[tuple[str, int]]
    tvl: float


def _newest(forecasts: Sequence[PoolForecast], today: dt.date) -> NewestForecasts | None:
    if not forecasts:
        return None
    first = forecasts[0]
    reasons = Counter(row.apy_fallback_reason for row in forecasts if row.apy_fallback_reason)
    return NewestForecasts(
        as_of=first.as_of,
        target_date=first.target_date,
        horizon_days=first.horizon_days,
        interval_level=first.interval_level,
        engines=sorted({row.engine for row in forecasts}),
        versions=sorted({row.model_version for row in forecasts}),
        # today is never complete, so data up to yesterday are 0 days old
        age_days=(today - first.as_of).days - 1,
        by_model=len(forecasts) - reasons.total(),
        fallbacks=reasons.most_common(),
        tvl=sum(row.tvl_today or 0.0 for row in forecasts),
    )
