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

from reporting.report.evaluation_parts import evaluation_parts
from reporting.report.page import write_page

BACKTEST_NAME = "yieldspark-backtest.html"


def write_backtest(engine: Engine, rows: pd.DataFrame, folder: Path) -> Path:
    """Writes the page of one backtest and returns its path.

    Args:
        engine: the database, for the names of the pools.
        rows: evaluation rows of the backtest.
        folder: made if it is missing.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
        ConfigurationError: the folder can't be written.
    """
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
    contents = {"backtest": backtest, **evaluation_parts(engine, rows, scored_days=days)}
    return write_page(folder, BACKTEST_NAME, "backtest.html", contents, dt.datetime.now(dt.UTC))
