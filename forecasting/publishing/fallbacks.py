"""What is published for every active pool: the model's forecast, or a rule's where the model has
nothing to say, with the reason.

In: what is known of each pool (`known_query`: newest values, their days, observed days) and the
as-of day's model forecasts.
Out: one row per pool for D + horizon. Rules, first that fits:
- stale: it was not observed on the as-of day -> the last known value; models are trained on
observed days, and know nothing of others;
- what the published row says: cold_start (fewer observed days than MIN_HISTORY_DAYS among those
that are read), no_model (too few rows to fit one),
  no_ledger or few_pools (nothing to learn the gate from), gate (it chose persistence, or the step
  was too small) -> the newest value.
- no_value: the pool has never had this target -> null, and no interval.
Intervals of stale pools come from the panel's
relative day-to-day changes.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd

from forecasting.features.targets import Target

_KNOWN = """
SELECT m.pool_id,
    (array_agg(m.actual_apy ORDER BY m.date DESC)
        FILTER (WHERE m.actual_apy IS NOT NULL))[1]::float8 AS apy,
    (array_agg(m.actual_tvl ORDER BY m.date DESC)
        FILTER (WHERE m.actual_tvl IS NOT NULL))[1]::float8 AS tvl,
    min(m.date) AS first_day,
    max(m.date) FILTER (
        WHERE m.actual_apy IS NOT NULL AND coalesce(a.apy_staleness_days, 0) = 0
    ) AS apy_day,
    max(m.date) FILTER (
        WHERE m.actual_tvl IS NOT NULL AND coalesce(a.tvl_staleness_days, 0) = 0
    ) AS tvl_day
FROM {metrics} m
LEFT JOIN yieldspark.value_staleness a ON a.pool_id = m.pool_id AND a.date = m.date
LEFT JOIN pools p ON p.pool_id = m.pool_id
WHERE m.date <= :as_of
    AND p.is_active IS NOT FALSE
    AND (m.actual_apy IS NOT NULL OR m.actual_tvl IS NOT NULL)
GROUP BY m.pool_id
ORDER BY m.pool_id
"""
KNOWN_COLUMNS = ("pool_id", "apy", "tvl", "first_day", "apy_day", "tvl_day")

STALE, NO_VALUE = "stale", "no_value"


def known_query(metrics: str) -> str:
    """SELECT of KNOWN_COLUMNS for each active pool, up to the day `:as_of`. Args: metrics is the
    quoted name of the metrics table.
    """
    return _KNOWN.format(metrics=metrics)


def apply_rules(
    known: pd.DataFrame,
    tonight: pd.DataFrame,
    target: Target,
    relative: tuple[float, float],
    as_of: dt.date,
) -> pd.DataFrame:
    """One target of every known pool: pool_id, value, low, high, fallback_reason (None where the
    model forecast).

    Args: known has KNOWN_COLUMNS; tonight is the as-of day's published rows; relative are
    `intervals.relative_quantiles`.
    """
    rows = known.merge(
        tonight[["pool_id", "forecast", "low", "high", "fallback_reason"]], on="pool_id", how="left"
    )
    value = rows[target.name].to_numpy(float)
    observed = (pd.to_datetime(rows[f"{target.name}_day"]) == pd.Timestamp(as_of)).to_numpy()
    lowest = np.zeros(len(rows)) if target.logarithmic else np.minimum(value, 0.0)
    low, high = (target.moved(value, target.size(value) * added, lowest) for added in relative)
    said = rows["fallback_reason"].astype(object).where(rows["fallback_reason"].notna(), None)
    return pd.DataFrame(
        {
            "pool_id": rows["pool_id"],
            "value": np.where(observed, rows["forecast"].to_numpy(float), value),
            "low": np.where(observed, rows["low"].to_numpy(float), low),
            "high": np.where(observed, rows["high"].to_numpy(float), high),
            "fallback_reason": said.mask(~observed, STALE).mask(np.isnan(value), NO_VALUE),
        }
    )


def join_targets(apy: pd.DataFrame, tvl: pd.DataFrame) -> pd.DataFrame:
    """Both targets side by side: pool_id, apy, apy_low, apy_high, apy_fallback_reason, tvl,
    tvl_low, tvl_high, tvl_fallback_reason.
    """
    named = [
        rows.rename(
            columns={
                "value": name,
                "low": f"{name}_low",
                "high": f"{name}_high",
                "fallback_reason": f"{name}_fallback_reason",
            }
        )
        for name, rows in (("apy", apy), ("tvl", tvl))
    ]
    return named[0].merge(named[1], on="pool_id", how="inner", validate="one_to_one")
