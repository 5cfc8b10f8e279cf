"""Accuracy of the newest engine's forecasts, compared with persistence and the 7-day median.

Reads evaluation rows; returns plain numbers of `forecasting.evaluation.scores`. Errors and widths
are in APY points or USD.
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
    """Reads evaluation rows of the newest forecasts' engine and horizon.

    Args:
        engine: the database.
        days: number of target days up to the newest as-of day.

    Returns:
        Rows of `yieldspark.forecast_evaluation` with actual values; empty without forecasts.

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    with checked_connection(engine) as connection:
        newest = connection.execute(text(NEWEST)).mappings().first()
    if newest is None:
        return pd.DataFrame()
    return scored_rows(
        engine, newest["engine"], horizon=newest["horizon_days"], last=newest["as_of"], days=days
    )


def accuracy(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Scores one engine's rows by target and class.

    Args:
        rows: evaluation rows with actual values.

    Returns:
        A dict for each target (apy, tvl) and class (restricted: TVL over 1 M USD and APY under 100
        % that day; all): rows, pools, first_day, last_day, coverage of the interval and its nominal
        interval_level, mean_width, `ratio` (MAE to persistence's with its bootstrap interval: mae,
        mae_low, mae_high), and `forecasters`: model, persistence and median_7d with mae, median_ae,
        rmse and ratio (its MAE to persistence's; None where that is zero).
    """
    if rows.empty:
        return []
    entries = []
    for target, classes in score_table(rows, published_level(rows)).items():
        of_target = rows[rows["target"] == target]
        for name, score in classes.items():
            if score["rows"]:
                entries.append(_entry(target, name, score, of_target))
    return entries


def published_level(rows: pd.DataFrame) -> float:
    """Returns the nominal level of the rows' intervals, 0 to 1."""
    return float(rows["interval_level"].max())


def _entry(target: str, name: str, score: dict[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    persistence = score["persistence"]["mae"]
    forecasters = []
    for forecaster, label in FORECASTERS.items():
        errors = score[forecaster]
        ratio = errors["mae"] / persistence if persistence else None
        forecasters.append(
            {"name": label, **{error: errors[error] for error in ERRORS}, "ratio": ratio}
        )
    return {
        "target": target,
        "class": name,
        "engine": rows["engine"].iloc[0],
        "rows": score["rows"],
        "pools": score["pools"],
        "first_day": rows["target_date"].min(),
        "last_day": rows["target_date"].max(),
        "interval_level": score["interval"]["level"],
        "coverage": score["interval"]["coverage"],
        "mean_width": score["interval"]["mean_width"],
        "ratio": score["ratio"],
        "forecasters": forecasters,
    }
