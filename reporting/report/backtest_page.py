"""A backtest's own page: the scores of its rows, by day, by group, and where it missed.

In: the rows that `forecasting.backtest_spark` scored, and the database for the pools' names. Out:
`yieldspark-backtest.html`.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pandas as pd
from sqlalchemy import Engine

from reporting.report.evaluation_parts import evaluation_parts
from reporting.report.page import write_page

BACKTEST_NAME = "yieldspark-backtest.html"


def write_backtest(engine: Engine, rows: pd.DataFrame, folder: Path) -> Path:
    """Write the page of evaluation rows of one backtest into `folder` and return its path. Raises:
    DatabaseError; ConfigurationError where the folder can't be written.
    """
    days = rows["target_date"].nunique()
    facts = (
        {
            name: rows[name].iloc[0]
            for name in ("engine", "horizon_days", "interval_level", "run_id")
        }
        if days
        else {}
    )
    contents = {
        "backtest": (
            facts
            | {
                "days": days,
                "pools": rows["pool_id"].nunique(),
                "models": rows["model_version"].nunique(),
            }
        ),
        **evaluation_parts(engine, rows, scored_days=days),
    }
    return write_page(folder, BACKTEST_NAME, "backtest.html", contents, dt.datetime.now(dt.UTC))
