"""How good the newest engine's forecasts were, beside persistence and the 7-day median, on the same rows.

In: `yieldspark.forecast_evaluation` (out-of-sample, rolling origin). Out: plain numbers; errors and widths in APY points or USD. The same scores as
`forecasting.scores`, computed in SQL over what is stored. Only rows that the model forecast are there: rules are not scored.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from sqlalchemy import Engine, text

from database.connection import checked_connection
from forecasting.scores import RESTRICTED_APY_PERCENT, RESTRICTED_TVL_USD
from reporting.figures import NEWEST_FORECASTS

SCORED_DAYS = 30
"""The job's own default length of a backtest: a longer one is shown by its last month."""

SCORE_ROWS = f"""
WITH {NEWEST_FORECASTS},
scored AS (
    SELECT e.* FROM newest n JOIN yieldspark.forecast_evaluation e
      ON e.engine = n.engine AND e.horizon_days = n.horizon_days AND e.target_date > n.as_of - :days AND e.target_date <= n.as_of
),
grouped AS (
    SELECT 'restricted' AS class, * FROM scored WHERE tvl_usd > :tvl AND apy_percent < :apy UNION ALL SELECT 'all', * FROM scored
),
compared AS (
    SELECT g.*, f.place, f.forecaster, abs(g.actual - f.value) AS error,
           CASE WHEN low IS NOT NULL AND high IS NOT NULL THEN (actual BETWEEN low AND high)::int END AS inside
    FROM grouped g
    CROSS JOIN LATERAL (VALUES (1, 'model', forecast), (2, 'persistence', persistence), (3, 'median_7d', median_7d)) f (place, forecaster, value)
)
SELECT target, class, engine, forecaster, count(*) AS rows, count(DISTINCT pool_id) AS pools,
       min(target_date) AS first_day, max(target_date) AS last_day, max(interval_level) AS interval_level,
       avg(error) AS mae, percentile_cont(0.5) WITHIN GROUP (ORDER BY error) AS median_ae, sqrt(avg(error * error)) AS rmse,
       avg(inside)::float8 AS coverage, avg(high - low) FILTER (WHERE inside IS NOT NULL) AS mean_width
FROM compared GROUP BY target, class, engine, place, forecaster ORDER BY target, class DESC, place
"""

SHARED = ("target", "class", "engine", "rows", "pools", "first_day", "last_day", "interval_level", "coverage", "mean_width")
ERRORS = ("mae", "median_ae", "rmse")


def accuracy(engine: Engine, *, days: int = SCORED_DAYS) -> list[dict[str, Any]]:
    """Scores by target (apy, tvl) and class (restricted: TVL over 1 M USD and APY under 100 % that day; all) over the last `days` target days.

    Each has rows, pools, first_day, last_day, coverage of the interval beside its nominal interval_level, mean_width, and `forecasters`: model,
    persistence and median_7d with mae, median_ae, rmse and ratio (its MAE to persistence's; None where that is zero). Raises: DatabaseError.
    """
    limits = {"days": days, "tvl": RESTRICTED_TVL_USD, "apy": RESTRICTED_APY_PERCENT}
    with checked_connection(engine) as connection:
        rows = [dict(row) for row in connection.execute(text(SCORE_ROWS), limits).mappings()]
    return [_scores(list(group)) for _, group in groupby(rows, key=lambda row: (row["target"], row["class"]))]


def _scores(rows: list[dict[str, Any]]) -> dict[str, Any]:
    persistence = next(row["mae"] for row in rows if row["forecaster"] == "persistence")
    forecasters = [
        {"name": row["forecaster"], **{error: row[error] for error in ERRORS}, "ratio": row["mae"] / persistence if persistence else None}
        for row in rows
    ]
    return {name: rows[0][name] for name in SHARED} | {"forecasters": forecasters}
