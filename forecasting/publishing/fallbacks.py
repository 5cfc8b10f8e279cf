"""Forecasts of all active pools: the model's, or a fallback with its reason.

Reads each pool's last values (`active_pools_query`) and the published rows of the as-of day;
returns one row for each pool, target day D + horizon. Values are in percent (APY) and USD (TVL).
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd

from forecasting.features.targets import Target

STALE, NO_VALUE = "stale", "no_value"


def apply_fallbacks(
    pools: pd.DataFrame,
    published: pd.DataFrame,
    target: Target,
    relative: tuple[float, float],
    as_of: dt.date,
) -> pd.DataFrame:
    """Completes one target's published rows to all active pools.

    Args:
        pools: POOL_COLUMNS.
        published: PUBLISHED_COLUMNS of the as-of day.
        target: APY or TVL.
        relative: ends of an interval without a model, see `relative_quantiles`.
        as_of: the as-of day.

    Returns:
        pool_id, value, low, high and fallback_reason. The reason is None for a model's forecast;
        STALE for a pool that was not observed on the as-of day, which keeps its last value;
        NO_VALUE for a pool that never had this target, without value and interval; otherwise the
        reason of the published row.
    """
    rows = pools.merge(
        published[["pool_id", "forecast", "low", "high", "fallback_reason"]],
        on="pool_id",
        how="left",
    )
    value = rows[target.name].to_numpy(float)
    # models are trained on observed days only, so a carried value gets a fallback
    observed = (pd.to_datetime(rows[f"{target.name}_day"]) == pd.Timestamp(as_of)).to_numpy()
    # TVL is never negative, and an interval of APY is so only if its value is
    lowest = np.zeros(len(rows)) if target.logarithmic else np.minimum(value, 0.0)
    low, high = (target.moved(value, target.size(value) * step, lowest) for step in relative)
    reason = rows["fallback_reason"].astype(object).where(rows["fallback_reason"].notna(), None)
    return pd.DataFrame(
        {
            "pool_id": rows["pool_id"],
            "value": np.where(observed, rows["forecast"].to_numpy(float), value),
            "low": np.where(observed, rows["low"].to_numpy(float), low),
            "high": np.where(observed, rows["high"].to_numpy(float), high),
            "fallback_reason": reason.mask(~observed, STALE).mask(np.isnan(value), NO_VALUE),
        }
    )


def join_targets(apy: pd.DataFrame, tvl: pd.DataFrame) -> pd.DataFrame:
    """Joins both targets of `apply_fallbacks`.

    Returns:
        pool_id, apy, apy_low, apy_high, apy_fallback_reason, tvl, tvl_low, tvl_high,
        tvl_fallback_reason.
    """
    apy, tvl = _of_target(apy, "apy"), _of_target(tvl, "tvl")
    return apy.merge(tvl, on="pool_id", how="inner", validate="one_to_one")


def _of_target(rows: pd.DataFrame, target: str) -> pd.DataFrame:
    names = {name: f"{target}_{name}" for name in ("low", "high", "fallback_reason")}
    return rows.rename(columns={"value": target} | names)
