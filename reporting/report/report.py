"""The report: one self-contained HTML file of what was forecast, how good forecasts were, the state
of the data and the last runs.

In: an SQLAlchemy engine of a migrated database, a folder. Out: `yieldspark-report.html` in it.
Numbers come from `figures`, `evaluation_parts`, `watch` and `data_health`, pictures from
`pool_plot`; this module brings them together and the template words them.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

from markupsafe import Markup
from sqlalchemy import Engine

from reporting.figures.accuracy import newest_evaluated
from reporting.figures.data_quality import data_health
from reporting.figures.forecasts import SERIES_DAYS, forecast_table, pool_series, recent_runs
from reporting.figures.model_health import watch
from reporting.report.evaluation_parts import evaluation_parts
from reporting.report.page import write_page
from reporting.report.pool_plot import apy_plot

REPORT_NAME = "yieldspark-report.html"
SCORED_DAYS = 30


def write_report(engine: Engine, folder: Path) -> Path:
    """Write the report into `folder` (made where missing) and return its path.

    An empty database gives a report too: it says what to run. Raises: DatabaseError;
    ConfigurationError where the folder can't be written.
    """
    now = dt.datetime.now(dt.UTC)
    return write_page(folder, REPORT_NAME, "report.html", _contents(engine, now), now)


def _contents(engine: Engine, now: dt.datetime) -> dict[str, Any]:
    forecasts = forecast_table(engine)
    plots = []
    for number, series in enumerate(pool_series(engine, forecasts), start=1):
        svg, clipped = apy_plot(series, number)
        plots.append({"pool": series, "svg": Markup(svg), "clipped": clipped})
    return {
        "newest": _newest(forecasts, now.date()),
        "forecasts": forecasts,
        "plots": plots,
        "series_days": SERIES_DAYS,
        **evaluation_parts(
            engine, newest_evaluated(engine, days=SERIES_DAYS), scored_days=SCORED_DAYS
        ),
        "watch": watch(engine),
        "health": data_health(engine),
        "runs": recent_runs(engine),
    }


def _newest(forecasts: list[dict[str, Any]], today: dt.date) -> dict[str, Any] | None:
    """What all rows of the newest forecasts have in common; `age_days` is how far their as-of day
    lies behind the last complete UTC day.
    """
    if not forecasts:
        return None
    first = forecasts[0]
    rules = Counter(row["apy_fallback_reason"] for row in forecasts if row["apy_fallback_reason"])
    return {
        **{
            name: first[name] for name in ("as_of", "target_date", "horizon_days", "interval_level")
        },
        "engines": sorted({row["engine"] for row in forecasts}),
        "versions": sorted({row["model_version"] for row in forecasts}),
        "age_days": (today - first["as_of"]).days - 1,
        "by_model": len(forecasts) - rules.total(),
        "rules": rules.most_common(),
        "tvl": sum(row["tvl_today"] or 0.0 for row in forecasts),
    }
