"""The largest forecast errors, with the reasons that explain them.

Reads evaluation rows with actual values and age_days (`forecast_history.describe_pools`). APY is in
percent, TVL in USD.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class ForecastError:
    """One large error of a forecast.

    Attributes:
        persistence: value of the as-of day.
        low, high: interval of the forecast; None if half of it is unknown.
        tvl_usd: TVL of the as-of day.
        error: absolute error, in the units of the values.
        scales: the error in the pool's usual one-day steps.
        reasons: spike (the value moved by more than SPIKE_SCALES that day), new (observed for less
            than 30 days), no_model, as_today (today's value was published).
        name, symbol, protocol, chain: labels of the pool; None if `pools` lacks it.
    """

    pool_id: str
    target_date: dt.date
    persistence: float | None
    forecast: float | None
    low: float | None
    high: float | None
    actual: float
    tvl_usd: float | None
    error: float
    scales: float
    reasons: tuple[str, ...]
    name: str | None
    symbol: str | None
    protocol: str | None
    chain: str | None


def largest_errors(engine: Engine, rows: pd.DataFrame) -> dict[str, list[ForecastError]]:
    """Ranks the errors of each target.

    Args:
        engine: the database, for the names of the pools.
        rows: evaluation rows with actual values and age_days.

    Returns:
        Up to MAX_ERRORS errors of each target, at most MAX_ERRORS_OF_A_POOL of one pool.

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
        labelled[target] = [_error(row, labels.get(row["pool_id"], NO_LABEL)) for row in errors]
    return labelled


def _largest(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    measured = rows.assign(
        error=np.abs(values(rows, "actual") - values(rows, "forecast")),
        scales=errors_in_scales(rows, "forecast"),
        spike=errors_in_scales(rows, "persistence") > SPIKE_SCALES,
        new=values(rows, "age_days") < AGE_LIMITS_DAYS[0],
        no_model=np.isnan(values(rows, "model_change")),
        as_today=values(rows, "forecast") == values(rows, "persistence"),
    )
    # ranked in the pool's own scales: in points the same absurd pool would fill the table
    moved = measured[measured["scales"] > 0.0]
    largest_of_pools = moved.groupby("pool_id", sort=False)["scales"].max()
    if len(largest_of_pools) > MAX_ERRORS:
        # MAX_ERRORS pools have an error of this size: smaller ones are not listed, nor sorted
        moved = moved[moved["scales"] >= largest_of_pools.nlargest(MAX_ERRORS).iloc[-1]]
    ranked = moved.sort_values(["scales", "pool_id", "target_date"], ascending=[False, True, True])
    first = ranked.groupby("pool_id", sort=False).head(MAX_ERRORS_OF_A_POOL).head(MAX_ERRORS)
    return first.to_dict("records")


def _error(row: Mapping[Any, Any], labels: Mapping[str, Any]) -> ForecastError:
    values_of_row: dict[str, Any] = {
        name: None if isinstance(row[name], float) and np.isnan(row[name]) else row[name]
        for name in (*COLUMNS, "error", "scales")
    }
    reasons = [reason for reason in ("spike", "new", "no_model", "as_today") if row[reason]]
    if "no_model" in reasons and "as_today" in reasons:
        # without a model, today's value is always published
        reasons.remove("as_today")
    return ForecastError(**values_of_row, reasons=tuple(reasons), **labels)


def _labels(engine: Engine, pools: Sequence[str]) -> dict[str, dict[str, Any]]:
    labels = {}
    with checked_connection(engine) as connection:
        for row in connection.execute(text(LABELS), {"pools": list(pools)}).mappings():
            labels[row["pool_id"]] = {name: row[name] for name in NO_LABEL}
    return labels
