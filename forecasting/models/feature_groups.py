"""Which features belong together: each name that a model can have stands in exactly one group, so
shares by group add up.

In: the definitions of pool, cross-section and market features. Out: FEATURE_GROUPS, and
SAME_FOR_ALL_POOLS: features that are nearly one value for all pools of a day. TVL's forecast is one of
them: it follows the cross-section.
"""

from __future__ import annotations

from forecasting.features.cross_section import CROSS_SECTION, SCOPES
from forecasting.features.market_features import MARKET
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

_SCOPED = {
    f"cross_section_{scope}": tuple(name for name in CROSS_SECTION if name.startswith(f"{scope}_"))
    for scope in SCOPES
}

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
    **_SCOPED,
    "market": MARKET,
}

SAME_FOR_ALL_POOLS = frozenset(
    name
    for group in ("tvl_forecast", "calendar", *_SCOPED, "market")
    for name in FEATURE_GROUPS[group]
)
