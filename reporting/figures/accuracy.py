"""How good the newest engine's forecasts were, beside persistence and the 7-day median, on the same
rows.

In: evaluation rows. Out: plain numbers; errors and widths in APY points or USD, by
`forecasting.evaluation.scores`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from sqlalchemy import Engine, text

from database.connections.engine import checked_connection
from forecasting.evaluation.scores import score_table
from forecasting.publishing.forecast_history import scored_rows
from reporting.figures.forecasts import NEWEST_FORECASTS

NEWEST = f"WITH {NEWEST_FORECASTS} SELECT * FROM newest"

FORECASTERS = {"model": "model", "persistence": "persistence", "median7": "median_7d"}
ERRORS = ("mae", "median_ae", "rmse")


def newest_evaluated(engine: Engine, *, days: int) -> pd.DataFrame:
    """Rows of `yieldspark.forecast_evaluation` that have come true, of the newest forecasts' engine
    and horizon and the `days` target days up to their as-of day; empty without forecasts. Raises:
    DatabaseError.
    """
    with checked_connection(engine) as connection:
        newest = connection.execute(text(NEWEST)).mappings().first()
    if newest is None:
        return pd.DataFrame()
    return scored_rows(
        engine, newest["engine"], horizon=newest["horizon_days"], last=newest["as_of"], days=days
    )


def accuracy(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Scores by target (apy, tvl) and class (restricted: TVL over 1 M USD and APY under 100 % that
    day; all) of one engine's rows.

    Each has rows, pools, first_day, last_day, coverage of the interval beside its nominal
    interval_level, mean_width, `ratio` (MAE to persistence's, with the bootstrap's interval: mae,
    mae_low, mae_high), and `forecasters`: model, persistence and median_7d with mae, median_ae,
    rmse and ratio (its MAE to persistence's; None where that is zero).
    """
    if rows.empty:
        return []
    table = score_table(rows, published_level(rows))
    return [
        _shown(target, name, found, rows[rows["target"] == target])
        for target, classes in table.items()
        for name, found in classes.items()
        if found["rows"]
    ]


def published_level(rows: pd.DataFrame) -> float:
    """Nominal level of the rows' intervals."""
    return float(rows["interval_level"].max())


def _shown(target: str, name: str, found: dict[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
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
        "engine": rows["engine"].iloc[0],
        "rows": found["rows"],
        "pools": found["pools"],
        "first_day": rows["target_date"].min(),
        "last_day": rows["target_date"].max(),
        "interval_level": found["interval"]["level"],
        "coverage": found["interval"]["coverage"],
        "mean_width": found["interval"]["mean_width"],
        "ratio": found["ratio"],
        "forecasters": forecasters,
    }
