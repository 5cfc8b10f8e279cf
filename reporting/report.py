"""The report: one self-contained HTML file of what was forecast, how good forecasts were, the state of the data and the last runs.

In: an SQLAlchemy engine of a migrated database, a folder. Out: `yieldspark-report.html` in it. Numbers come from `figures`, `accuracy` and
`data_health`, pictures from `plots`; this module brings them together and the template words them. The page asks nothing of any network.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import logging
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from sqlalchemy import Engine

from config_spark import PRODUCT_VERSION
from product_errors import ConfigurationError
from reporting import number_words
from reporting.accuracy import accuracy
from reporting.data_health import data_health
from reporting.figures import SERIES_DAYS, forecast_table, pool_series, recent_runs
from reporting.plots import apy_plot

log = logging.getLogger(__name__)

REPORT_NAME = "yieldspark-report.html"
TEMPLATES = Path(__file__).resolve().parent / "templates"
FORMATS = ("percent", "points", "signed_points", "usd", "share", "ratio", "count", "age")


def write_report(engine: Engine, folder: Path) -> Path:
    """Write the report into `folder` (made where missing) and return its path. A reader never meets half a file.

    An empty database gives a report too: it says what to run. Raises: DatabaseError; ConfigurationError where the folder can't be written.
    """
    page = render(_contents(engine, dt.datetime.now(dt.UTC)))
    path = folder.resolve() / REPORT_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_whole(path, page)
    except OSError as error:
        raise ConfigurationError(f"the report can't be written to {path}: {error.strerror}. Set REPORT_DIR to a folder you may write to") from error
    log.info("report written to %s", path)
    return path


def render(contents: dict[str, Any]) -> str:
    """The page as text; every value of `contents` is escaped but the pictures."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    environment.filters.update({name: getattr(number_words, name) for name in FORMATS})
    style, script = ((TEMPLATES / name).read_text("utf-8") for name in ("report.css", "report.js"))
    return environment.get_template("report.html").render(
        contents, style=Markup(style), script=Markup(script), script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    )


def _contents(engine: Engine, now: dt.datetime) -> dict[str, Any]:
    forecasts = forecast_table(engine)
    plots = []
    for number, series in enumerate(pool_series(engine, forecasts), start=1):
        svg, clipped = apy_plot(series, number)
        plots.append({"pool": series, "svg": Markup(svg), "clipped": clipped})
    return {
        "written": now,
        "version": PRODUCT_VERSION,
        "newest": _newest(forecasts, now.date()),
        "forecasts": forecasts,
        "plots": plots,
        "series_days": SERIES_DAYS,
        "scores": accuracy(engine),
        "health": data_health(engine),
        "runs": recent_runs(engine),
    }


def _newest(forecasts: list[dict[str, Any]], today: dt.date) -> dict[str, Any] | None:
    """What all rows of the newest forecasts have in common; `age_days` is how far their as-of day lies behind the last complete UTC day."""
    if not forecasts:
        return None
    first = forecasts[0]
    rules = Counter(row["rule"] for row in forecasts if row["rule"])
    return {
        **{name: first[name] for name in ("as_of", "target_date", "horizon_days", "interval_level")},
        "engines": sorted({row["engine"] for row in forecasts}),
        "versions": sorted({row["model_version"] for row in forecasts}),
        "age_days": (today - first["as_of"]).days - 1,
        "by_model": len(forecasts) - rules.total(),
        "rules": rules.most_common(),
        "tvl": sum(row["tvl_today"] or 0.0 for row in forecasts),
    }


def _write_whole(path: Path, page: str) -> None:
    """Through a file beside it and one rename: an interrupted run leaves the report as it was."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{REPORT_NAME}.")
    unfinished = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(page)
        unfinished.chmod(0o644)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
