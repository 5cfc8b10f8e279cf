"""Groups of features: every feature of a model is in exactly one, so shares by group add up to 1.

Defines FEATURE_GROUPS, and the features with nearly one value for all pools of a day.
"""

from __future__ import annotations

from forecasting.features.feature_names import CROSS_SECTION, MARKET, SCOPES
from forecasting.features.pool_features import (
    APY_DISTANCES,
    APY_LEVEL,
    APY_MOVES,
    APY_SLOPES,
    APY_SPIKES,
    APY_VOLATILITY,
    CALENDAR,
    TVL_FEATURES,
)
from forecasting.models.stacked_model import TVL_FORECAST


def _of_scope(scope: str) -> tuple[str, ...]:
    return tuple(name for name in CROSS_SECTION if name.startswith(f"{scope}_"))


FEATURE_GROUPS: dict[str, tuple[str, ...]] = {
    "apy_moves": APY_MOVES,
    "apy_distances": APY_DISTANCES,
    "apy_restlessness": APY_VOLATILITY,
    "apy_slopes": APY_SLOPES,
    "apy_spikes": APY_SPIKES,
    "apy_scale_and_level": APY_LEVEL,
    "tvl": TVL_FEATURES,
    "tvl_forecast": (TVL_FORECAST,),
    "calendar": CALENDAR,
    **{f"cross_section_{scope}": _of_scope(scope) for scope in SCOPES},
    "market": MARKET,
}

# the TVL forecast is one of them: it follows the cross-section
SAME_FOR_ALL_POOLS = frozenset(
    (TVL_FORECAST, *CALENDAR, *CROSS_SECTION, *MARKET),
)
