"""Texts of coded values, for the report and the dashboard."""

from __future__ import annotations

CLASSES = {
    "restricted": "Large pools: TVL over $1M and APY under 100 %",
    "all": "All pools",
}
FORECASTERS = {"model": "Model", "persistence": "Persistence", "median_7d": "7-day median"}
TARGETS = {"apy": "APY, percentage points", "tvl": "TVL, USD"}
FALLBACKS = {
    "gate": "persistence has been better for this pool lately, or the step was too small",
    "stale": "not observed on the as-of day: the last observed value",
    "cold_start": "too few observed days: the newest value",
    "no_model": "no model could be fitted: the newest value",
    "no_champion": "no model version passes: the newest value",
    "no_ledger": "too few past forecasts to learn from: the newest value",
    "few_pools": "too few pools to learn from: the newest value",
}
ERROR_REASONS = {
    "spike": "spike",
    "new": "new pool",
    "no_model": "no model",
    "as_today": "as today",
}
