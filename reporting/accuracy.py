"""How good the newest engine's forecasts were, beside persistence and the 7-day median, on the same rows.

In: `yieldspark.forecast_evaluation`. Out: plain numbers; errors and widths in APY points or USD, by `forecasting.scores`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from sqlalchemy import Engine, text

from database.connection import checked_connection
from forecasting.forecast_ledger import scored_rows
from forecasting.scores import score_table
from reporting.figures import NEWEST_FORECASTS

SCORED_DAYS = 30
"""A longer backtest is shown by its last month."""

NEWEST = f"WITH {NEWEST_FORECASTS} SELECT * FROM newest"

FORECASTERS = {"model": "model", "persistence": "persistence", "median7": "median_7d"}
ERRORS = ("mae", "median_ae", "rmse")


def accuracy(engine: Engine, *, days: int = SCORED_DAYS) -> list[dict[str, Any]]:
    """Scores by target (apy, tvl) and class (restricted: TVL over 1 M USD and APY under 100 % that day; all) over the last `days` target days.

    Each has rows, pools, first_day, last_day, coverage of the interval beside its nominal interval_level, mean_width, and `forecasters`: model,
    persistence and median_7d with mae, median_ae, rmse and ratio (its MAE to persistence's; None where that is zero). Raises: DatabaseError.
    """
    with checked_connection(engine) as connection:
        newest = connection.execute(text(NEWEST)).mappings().first()
    if newest is None:
        return []
    rows = scored_rows(engine, newest["engine"], horizon=newest["horizon_days"], last=newest["as_of"], days=days)
    if rows.empty:
        return []
    table = score_table(rows, float(rows["interval_level"].max()))
    return [
        _shown(target, name, found, rows[rows["target"] == target], newest["engine"])
        for target, classes in table.items()
        for name, found in classes.items()
        if found["rows"]
    ]


def _shown(target: str, name: str, found: dict[str, Any], rows: pd.DataFrame, engine: str) -> dict[str, Any]:
    persistence = found["persistence"]["mae"]
    forecasters = [
        {
            "name": shown,
            **{error: found[forecaster][error] for error in ERRORS},
            "ratio": found[forecaster]["mae"] / persistence if persistence else None,
        }
        for forecaster, shown in FORECASTERS.items()
    ]
    return {
        "target": target,
        "class": name,
        "engine": engine,
        "rows": found["rows"],
        "pools": found["pools"],
        "first_day": rows["target_date"].min(),
        "last_day": rows["target_date"].max(),
        "interval_level": found["interval"]["level"],
        "coverage": found["interval"]["coverage"],
        "mean_width": found["interval"]["mean_width"],
        "forecasters": forecasters,
    }
