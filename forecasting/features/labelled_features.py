"""Features, labels and flags of pools as dense numpy arrays, for training and prediction alike.

Reads a `PoolHistory`; returns arrays of its shape by name. Imports no Spark; features that need
other pools are in `cross_section`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np

from forecasting.features.feature_names import FLAGS
from forecasting.features.pool_features import SCALES, pool_features
from forecasting.features.pool_history import Observed, PoolHistory
from forecasting.features.rolling_windows import Days, lag
from forecasting.features.targets import LABEL_LIMIT, asinh_level


@dataclass(frozen=True)
class FeatureSpec:
    """Selects the as-of days [first_day, as_of] and how their rows are computed.

    Attributes:
        horizon: days between a row and its label.
        level: nominal coverage of the naive interval, 0 to 1.
        min_history_days: a pool observed on fewer days has no scale yet, so neither labels nor a
            model's forecast.
    """

    first_day: dt.date
    as_of: dt.date
    horizon: int
    level: float
    min_history_days: int


def labelled_features(history: PoolHistory, spec: FeatureSpec) -> dict[str, Days | Observed]:
    """Computes all columns of a feature row but its key and the cross-section.

    Returns:
        Arrays of shape (pools, days) for FLAGS, NUMBERS, LABELS and POOL_FEATURES. APY in percent,
        TVL in USD, `apy_label` and `tvl_label` in scales, `apy_asinh_label` in asinh space.
    """
    features = pool_features(history, spec.level, spec.horizon)
    is_new = np.cumsum(history.apy_observed | history.tvl_observed, axis=1) < spec.min_history_days
    features |= {name: np.where(is_new, np.nan, features[name]) for name in SCALES}
    apy_next = _next(history.apy, history.apy_observed, spec.horizon)
    tvl_next = _next(history.tvl, history.tvl_observed, spec.horizon)
    labels = {
        "apy_label": (apy_next - history.apy) / features["apy_scale"],
        # null where the other APY label is null: both are fitted on the same rows
        "apy_asinh_label": np.where(
            np.isnan(features["apy_scale"]),
            np.nan,
            asinh_level(apy_next) - asinh_level(history.apy),
        ),
        "tvl_label": (np.log1p(tvl_next) - np.log1p(history.tvl)) / features["tvl_scale"],
    }
    return {
        **{name: getattr(history, name) for name in ("apy", "tvl", *FLAGS)},
        **{"apy_next": apy_next, "tvl_next": tvl_next},
        **features,
        **{name: np.clip(values, -LABEL_LIMIT, LABEL_LIMIT) for name, values in labels.items()},
    }


def _next(values: Days, observed: Observed, horizon: int) -> Days:
    """The value of D + horizon where both days are observed."""
    observed_values = np.where(observed, values, np.nan)
    return np.where(observed, lag(observed_values, -horizon), np.nan)
