"""Names of the model's features and of the columns of a feature row.

Imports no Spark, so that the registry and an API can compare a model's features with the code's.
"""

from __future__ import annotations

from itertools import product

from forecasting.features.pool_features import BASELINES, LEVELS, POOL_FEATURES, SCALES

SCOPES = {"all": ("date",), "group": ("date", "known_group")}
STATISTICS = ("move_mean", "move_median", "move_dispersion", "up_share", "tvl_move_mean")
CROSS_SECTION = tuple(
    f"{scope}_{name}{day}" for scope, name, day in product(SCOPES, STATISTICS, ("", "_yesterday"))
)

MARKET_SERIES, MARKET_SPANS = ("eth", "btc", "gas"), (1, 7)
MARKET = tuple(f"{series}_change_{days}" for series, days in product(MARKET_SERIES, MARKET_SPANS))

LABELS = ("apy_label", "apy_asinh_label", "tvl_label")
NUMBERS = ("apy", "tvl", "apy_next", "tvl_next", *SCALES, *LEVELS, *BASELINES)
FLAGS = ("apy_observed", "tvl_observed")
ROW_COLUMNS = ("pool_id", "date", "pool_group", *FLAGS, *NUMBERS, *LABELS)
FEATURES = (*POOL_FEATURES, *CROSS_SECTION)


def feature_names(*, market: bool) -> tuple[str, ...]:
    """Returns the names of the features, in the order of a model's matrix.

    Args:
        market: whether the features of MARKET are among them (setting MARKET_FEATURES).
    """
    return (*FEATURES, *MARKET) if market else FEATURES
