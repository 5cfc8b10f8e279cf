"""The number of target days of the forecast history that gate and interval can learn from.

Reads `yieldspark.forecast_evaluation` by SQL. Imports neither Spark nor pandas: a plan needs it.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import Engine, text

from database.connections.engine import checked_connection
from forecasting.publishing.actuals import TARGETS
from forecasting.publishing.history_window import PAST_DAYS

PAST_ROWS = """
FROM yieldspark.forecast_evaluation
WHERE engine = :engine
    AND horizon_days = :horizon
    AND actual IS NOT NULL
    AND target_date > :as_of - :days
    AND target_date <= :as_of
"""
"""FROM and WHERE of the past forecasts of an engine, by the parameters of `past_span`."""

_HISTORY_DAYS = f"""
SELECT target, count(DISTINCT target_date) AS days
{PAST_ROWS}
    AND model_change IS NOT NULL
GROUP BY target
"""


def history_days(database: Engine, engine: str, *, horizon: int, as_of: dt.date) -> int:
    """Counts the target days that gate and interval of `as_of` can learn from.

    Args:
        engine: name of the forecasting engine.
        horizon: days from the as-of day to the target day.
        as_of: last target day that counts; the PAST_DAYS days up to it do.

    Returns:
        Days with a model's forecast and an actual value, of the target that has fewer.
    """
    with checked_connection(database) as connection:
        rows = connection.execute(text(_HISTORY_DAYS), past_span(engine, horizon, as_of))
        days = {row.target: row.days for row in rows}
    return min(int(days.get(target, 0)) for target in TARGETS)


def past_span(engine: str, horizon: int, as_of: dt.date) -> dict[str, Any]:
    """Returns the parameters of PAST_ROWS."""
    return {"engine": engine, "horizon": horizon, "as_of": as_of, "days": PAST_DAYS}
