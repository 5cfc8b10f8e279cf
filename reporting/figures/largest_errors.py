"""The forecasts that went most wrong, with what explains them.

In: evaluation rows that have come true, with age_days
(`forecasting.publishing.forecast_history.describe_pools`). Out: plain rows, APY in percent, TVL in
USD. A miss is ranked by its size in the pool's own scales: in points the same absurd pool would
fill the table. A pool without a scale is not ranked.
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

MISSES = 10
MISSES_OF_A_POOL = 2
SHOWN = ("pool_id", "target_date", "persistence", "forecast", "low", "high", "actual", "tvl_usd")

LABELS = "SELECT pool_id, name, symbol, protocol, chain FROM pools WHERE pool_id = ANY(:pools)"
NO_LABEL = dict.fromkeys(("name", "symbol", "protocol", "chain"))


def biggest_misses(engine: Engine, rows: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Of each target the MISSES largest errors, at most MISSES_OF_A_POOL of one pool: SHOWN, the
    pool's labels, error (value units), scales, and reasons, of: spike (it moved by more than
    SPIKE_SCALES that day), new (observed first less than 30 days before), no_model, as_today (the
    rule or the gate published today's value). Raises: DatabaseError.
    """
    chosen = {str(target): _largest(of_target) for target, of_target in rows.groupby("target")}
    labels = _labels(engine, [one["pool_id"] for misses in chosen.values() for one in misses])
    return {
        target: [one | labels.get(one["pool_id"], NO_LABEL) for one in misses]
        for target, misses in chosen.items()
    }


def _largest(rows: pd.DataFrame) -> list[dict[str, Any]]:
    measured = rows.assign(
        error=np.abs(values(rows, "actual") - values(rows, "forecast")),
        scales=errors_in_scales(rows, "forecast"),
        spike=errors_in_scales(rows, "persistence") > SPIKE_SCALES,
        new=values(rows, "age_days") < AGE_LIMITS_DAYS[0],
        no_model=np.isnan(values(rows, "model_change")),
        as_today=values(rows, "forecast") == values(rows, "persistence"),
    )
    ranked = measured[measured["scales"] > 0.0].sort_values(
        ["scales", "pool_id", "target_date"], ascending=[False, True, True]
    )
    first = ranked.groupby("pool_id", sort=False).head(MISSES_OF_A_POOL).head(MISSES)
    return [_shown(row) for row in first.to_dict("records")]


def _shown(row: dict[Any, Any]) -> dict[str, Any]:
    known = {
        name: None if isinstance(row[name], float) and np.isnan(row[name]) else row[name]
        for name in (*SHOWN, "error", "scales")
    }
    reasons = [reason for reason in ("spike", "new", "no_model", "as_today") if row[reason]]
    return known | {
        "reasons": [
            reason for reason in reasons if not (reason == "as_today" and "no_model" in reasons)
        ]
    }


def _labels(engine: Engine, pools: Sequence[str]) -> dict[str, dict[str, Any]]:
    with checked_connection(engine) as connection:
        return {
            row["pool_id"]: dict(row)
            for row in connection.execute(text(LABELS), {"pools": list(pools)}).mappings()
        }
