"""What is published for every active pool: the model's forecast, or a rule's where the model has nothing to say, with the reason.

In: what is known of each pool (`KNOWN_QUERY`: newest values, their days, observed days) and the as-of day's model forecasts.
Out: one row per pool for D + horizon. Rules, first that fits:
- stale: the newest observation is older than the limit, or too old to be carried to the as-of day -> the last known value;
- cold_start: fewer observed days than the limit (in the training window, after a long gap) -> the newest value;
- no_model: no model could be fitted (too few pools or rows) -> the newest value.
A target that a pool has never had stays null. Intervals of rules come from the panel's relative day-to-day residuals.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import pandas as pd

from forecasting.backtest import TargetForecasts

KNOWN_QUERY = """
SELECT m.pool_id,
       (array_agg(m.actual_apy ORDER BY m.date DESC) FILTER (WHERE m.actual_apy IS NOT NULL))[1]::float8 AS apy,
       (array_agg(m.actual_tvl ORDER BY m.date DESC) FILTER (WHERE m.actual_tvl IS NOT NULL))[1]::float8 AS tvl,
       max(m.date) FILTER (WHERE m.actual_apy IS NOT NULL AND coalesce(a.apy_age_days, 0) = 0) AS apy_day,
       max(m.date) FILTER (WHERE m.actual_tvl IS NOT NULL AND coalesce(a.tvl_age_days, 0) = 0) AS tvl_day,
       count(*) FILTER (WHERE m.actual_apy IS NOT NULL AND coalesce(a.apy_age_days, 0) = 0) AS apy_days,
       count(*) FILTER (WHERE m.actual_tvl IS NOT NULL AND coalesce(a.tvl_age_days, 0) = 0) AS tvl_days
FROM pool_daily_metrics m
LEFT JOIN yieldspark.observation_age a ON a.pool_id = m.pool_id AND a.date = m.date
LEFT JOIN pools p ON p.pool_id = m.pool_id
WHERE m.date <= :as_of AND p.is_active IS NOT FALSE AND (m.actual_apy IS NOT NULL OR m.actual_tvl IS NOT NULL)
GROUP BY m.pool_id ORDER BY m.pool_id
"""
KNOWN_COLUMNS = ("pool_id", "apy", "tvl", "apy_day", "tvl_day", "apy_days", "tvl_days")

STALE, COLD_START, NO_MODEL = "stale", "cold_start", "no_model"


@dataclass(frozen=True)
class RuleLimits:
    """Days: age of the newest observation beyond which a pool is stale or its value not carried on, and observed days below which it is new."""

    stale_after_days: int
    max_fill_days: int
    min_history_days: int


def apply_rules(known: pd.DataFrame, forecasts: TargetForecasts, as_of: dt.date, limits: RuleLimits) -> pd.DataFrame:
    """One target of every known pool: pool_id, value, low, high, rule (None where the model forecast, or where nothing was ever known)."""
    name, target = forecasts.target.name, forecasts.target
    today = forecasts.rows[forecasts.rows["date"] == pd.Timestamp(as_of)]
    rows = known.merge(today[["pool_id", "now", "forecast", "low", "high", "modelled"]], on="pool_id", how="left")
    value = rows[name].to_numpy(float)
    rule = _rules(rows, name, as_of, limits)
    ruled = np.array([reason is not None for reason in rule], dtype=bool)
    lowest = np.zeros(len(rows)) if target.logarithmic else np.minimum(value, 0.0)
    low, high = (target.moved(value, target.relative_scale(value) * added, lowest) for added in forecasts.relative_residuals)
    return pd.DataFrame(
        {
            "pool_id": rows["pool_id"],
            "value": np.where(ruled, value, rows["forecast"].to_numpy(float)),
            "low": np.where(ruled, low, rows["low"].to_numpy(float)),
            "high": np.where(ruled, high, rows["high"].to_numpy(float)),
            "rule": rule,
        }
    )


def _rules(rows: pd.DataFrame, name: str, as_of: dt.date, limits: RuleLimits) -> list[str | None]:
    never = rows[name].isna().to_numpy()
    age = (pd.Timestamp(as_of) - pd.to_datetime(rows[f"{name}_day"])).dt.days.to_numpy(float)
    no_level = rows["now"].isna().to_numpy()
    stale = ~(age <= limits.stale_after_days) | (no_level & (age > limits.max_fill_days))
    new = (rows[f"{name}_days"] < limits.min_history_days).to_numpy() | no_level
    unmodelled = ~rows["modelled"].eq(True).to_numpy()
    chosen = np.select([never, stale, new, unmodelled], ["", STALE, COLD_START, NO_MODEL], default="")
    return [str(reason) or None for reason in chosen]


def join_targets(apy: pd.DataFrame, tvl: pd.DataFrame) -> pd.DataFrame:
    """Both targets side by side: pool_id, apy, apy_low, apy_high, tvl, tvl_low, tvl_high, rule (APY's reason first)."""
    named = [
        rows.rename(columns={"value": name, "low": f"{name}_low", "high": f"{name}_high", "rule": f"{name}_rule"})
        for name, rows in (("apy", apy), ("tvl", tvl))
    ]
    joined = named[0].merge(named[1], on="pool_id", how="inner", validate="one_to_one")
    reason = joined["apy_rule"].where(joined["apy_rule"].notna(), joined["tvl_rule"])
    return joined.drop(columns=["apy_rule", "tvl_rule"]).assign(rule=reason)
