"""The largest forecast errors, with the reasons that explain them.

Reads evaluation rows with actual values and age_days (`forecast_history.describe_pools`); returns
plain rows, APY in percent, TVL in USD.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Engine, text

from database.connections.engine import checked_connection
from forecasting.evaluation.error_measures import errors_in_scales, values
from forecasting.evaluation.segments import AGE_LIMITS_DAYS
from forecasting.features.pool_features import SPIKE_SCALES

MAX_ERRORS = 10
MAX_ERRORS_OF_A_POOL = 2
COLUMNS = ("pool_id", "target_date", "persistence", "forecast", "low", "high", "actual", "tvl_usd")

LABELS = "SELECT pool_id, name, symbol, protocol, chain FROM pools WHERE pool_id = ANY(:pools)"
NO_LABEL = dict.fromkeys(("name", "symbol", "protocol", "chain"))


def largest_errors(engine: Engine, rows: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Ranks the errors of each target.

    Args:
        engine: the database, for the names of the pools.
        rows: evaluation rows with actual values and age_days.

    Returns:
        Of each target up to MAX_ERRORS rows, at most MAX_ERRORS_OF_A_POOL of one pool: COLUMNS, the
            pool's labels, error (value units), scales and reasons: spike (the value moved by more
            than SPIKE_SCALES that day), new (observed for less than 30 days), no_model, as_today
            (today's value was published).

    Raises:
        DatabaseError: the database does not answer or refuses a statement.
    """
    by_target = {str(target): _largest(of_target) for target, of_target in rows.groupby("target")}
    pools: list[str] = []
    for errors in by_target.values():
        pools += [error["pool_id"] for error in errors]
    labels = _labels(engine, pools)
    labelled = {}
    for target, errors in by_target.items():
        labelled[target] = [error | labels.get(error["pool_id"], NO_LABEL) for error in errors]
    return labelled


def _largest(rows: pd.DataFrame) -> list[dict[str, Any]]:
    measured = rows.assign(
        error=np.abs(values(rows, "actual") - values(rows, "forecast")),
        scales=errors_in_scales(rows, "forecast"),
        spike=errors_in_scales(rows, "persistence") > SPIKE_SCALES,
        new=values(rows, "age_days") < AGE_LIMITS_DAYS[0],
        no_model=np.isnan(values(rows, "model_change")),
        as_today=values(rows, "forecast") == values(rows, "persistence"),
    )
    # ranked in the pool's own scales: in points the same absurd pool would fill the table
    ranked = measured[measured["scales"] > 0.0].sort_values(
        ["scales", "pool_id", "target_date"], ascending=[False, True, True]
    )
    first = ranked.groupby("pool_id", sort=False).head(MAX_ERRORS_OF_A_POOL).head(MAX_ERRORS)
    return [_error(row) for row in first.to_dict("records")]


def _error(row: dict[Any, Any]) -> dict[str, Any]:
    values_of_row = {
        name: None if isinstance(row[name], float) and np.isnan(row[name]) else row[name]
        for name in (*COLUMNS, "error", "scales")
    }
    reasons = [reason for reason in ("spike", "new", "no_model", "as_today") if row[reason]]
    if "no_model" in reasons and "as_today" in reasons:
        # without a model, today's value is always published
        reasons.remove("as_today")
    return values_of_row | {"reasons": reasons}


def _labels(engine: Engine, pools: Sequence[str]) -> dict[str, dict[str, Any]]:
    with checked_connection(engine) as connection:
        return {
            row["pool_id"]: dict(row)
            for row in connection.execute(text(LABELS), {"pools": list(pools)}).mappings()
        }
