"""What a target's models learned from: each feature's share of the loss that their splits took
away.

In: native LightGBM texts of one target, and the features in the order they were fitted with. Out:
shares that add up to 1, by feature and by the groups of `feature_groups`. Gain says what a model
uses, not which way it moves a forecast: `contributions` has that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from forecasting.models.feature_groups import FEATURE_GROUPS


def gain_by_feature(texts: Sequence[str], features: Sequence[str]) -> dict[str, float]:
    """Share of the gain of all models together, largest first; zeros where no tree has a split.

    A split's gain is what LightGBM says the loss fell by. Models with much to learn weigh more, as
    they do in the sum.
    """
    from forecasting.engines.native import lightgbm

    gains = np.sum(
        [lightgbm.Booster(model_str=text).feature_importance("gain") for text in texts], axis=0
    )
    shares = gains / max(gains.sum(), np.finfo(float).tiny)
    found = dict(zip(features, shares.tolist(), strict=True))
    return dict(sorted(found.items(), key=lambda share: -share[1]))


def gain_by_group(shares: Mapping[str, float]) -> dict[str, float]:
    """The same by group, largest first. Raises: KeyError for a feature without a group."""
    group_of = {name: group for group, names in FEATURE_GROUPS.items() for name in names}
    found = dict.fromkeys(FEATURE_GROUPS, 0.0)
    for name, share in shares.items():
        found[group_of[name]] += share
    return dict(sorted(found.items(), key=lambda share: -share[1]))
