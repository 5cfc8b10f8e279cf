"""Feature importance: each feature's share of the loss that a model's splits removed.

Reads native LightGBM texts of one target; returns shares that add up to 1, by feature and by group.
Gain says which features a model uses, not in which direction they move a forecast (see
`shap_values`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from forecasting.models.feature_groups import FEATURE_GROUPS


def gain_by_feature(texts: Sequence[str], features: Sequence[str]) -> dict[str, float]:
    """Returns each feature's share of the gain of all models together.

    Args:
        texts: native LightGBM texts of one target.
        features: names in the order in which the models were fitted.

    Returns:
        Shares by feature, largest first; zeros if no tree has a split.
    """
    from forecasting.engines.native import lightgbm

    gains = np.sum(
        [lightgbm.Booster(model_str=text).feature_importance("gain") for text in texts], axis=0
    )
    # the sum weighs models that reduce the loss more, as their gain is larger
    shares = gains / max(gains.sum(), np.finfo(float).tiny)
    by_feature = dict(zip(features, shares.tolist(), strict=True))
    return dict(sorted(by_feature.items(), key=lambda share: -share[1]))


def gain_by_group(shares: Mapping[str, float]) -> dict[str, float]:
    """Returns the shares by group of FEATURE_GROUPS, largest first.

    Raises:
        KeyError: a feature is in no group.
    """
    group_of: dict[str, str] = {}
    for group, names in FEATURE_GROUPS.items():
        group_of |= dict.fromkeys(names, group)
    by_group = dict.fromkeys(FEATURE_GROUPS, 0.0)
    for name, share in shares.items():
        by_group[group_of[name]] += share
    return dict(sorted(by_group.items(), key=lambda share: -share[1]))
