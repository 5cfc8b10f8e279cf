"""The page of a backtest: scores of its rows, by day and by segment, and its largest errors.

Reads rows of `forecasting.backtest_spark`, and the pools' names from the database; writes
`yieldspark-backtest.html`.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import Engine

from reporting.figures.accuracy import accuracy
from reporting.report.evaluation_parts import evaluation_parts
from reporting.report.page import write_page

BACKTEST_NAME = "yieldspark-backtest.html"


def write_backtest(engine: Engine, rows: pd.DataFrame, folder: Path) -> Path:
    """Writes the page of one backtest and returns its path.

    Args:
        engine: the database, for the names of the pools.
        rows: evaluation rows of the backtest. The page has all parts of the shortest horizon, and
            the accuracy of the others.
        folder: made if it is missing.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
        ConfigurationError: the folder can't be written.
    """
    by_horizon = [(int(str(days)), part) for days, part in rows.groupby("horizon_days")]
    if by_horizon:
        rows = by_horizon[0][1]
    days = rows["target_date"].nunique()
    backtest: dict[str, Any] = {
        "days": days,
        "pools": rows["pool_id"].nunique(),
        "models": rows["model_version"].nunique(),
    }
    # an empty frame has no first row
    if days:
        names = ("engine", "horizon_days", "interval_level", "run_id")
        backtest |= {name: rows[name].iloc[0] for name in names}
    contents = {
        "backtest": backtest,
        **evaluation_parts(engine, rows, scored_days=days),
        "further": [
            {"horizon_days": horizon, "scores": accuracy(part)} for horizon, part in by_horizon[1:]
        ],
    }
    return write_page(folder, BACKTEST_NAME, "backtest.html", contents, dt.datetime.now(dt.UTC))
