"""Gain by feature and by group; every feature has exactly one group."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import lightgbm
import numpy as np
import pytest

from forecasting.features.feature_names import feature_names
from forecasting.features.pool_features import CALENDAR, POOL_FEATURES
from forecasting.models.feature_groups import FEATURE_GROUPS, SAME_FOR_ALL_POOLS
from forecasting.models.feature_importance import gain_by_feature, gain_by_group
from forecasting.models.stacked_model import TVL_FORECAST

NAMES = ("apy_move_0", "tvl_level", "weekday")


def text_of(*weights: float, leaves: int = 7) -> str:
    """Fits a model of a label that is the sum of the weighted features."""
    matrix = np.random.default_rng(1).standard_normal((400, len(weights)))
    parameters = {
        "num_leaves": leaves,
        "min_data_in_leaf": 5,
        "verbosity": -1,
        "num_threads": 1,
        "deterministic": True,
    }
    return str(
        lightgbm.train(
            parameters, lightgbm.Dataset(matrix, matrix @ np.array(weights)), 20
        ).model_to_string()
    )


def test_every_feature_has_exactly_one_group() -> None:
    grouped = Counter(chain.from_iterable(FEATURE_GROUPS.values()))
    assert set(grouped) == {*feature_names(market=True), TVL_FORECAST}
    assert set(grouped.values()) == {1}


def test_feature_groups_contain_the_features_of_their_name() -> None:
    assert len(FEATURE_GROUPS["apy_moves"]) == 7
    assert "all_up_share_yesterday" in FEATURE_GROUPS["cross_section_all"]
    assert "group_up_share" in FEATURE_GROUPS["cross_section_group"]
    assert {"eth_change_1", "gas_change_7"} < set(FEATURE_GROUPS["market"])
    assert set(POOL_FEATURES) & SAME_FOR_ALL_POOLS == set(CALENDAR)


def test_shares_add_up_to_one_and_the_largest_comes_first() -> None:
    shares = gain_by_feature([text_of(1.0, 5.0, 0.0), text_of(1.0, 4.0, 0.0)], NAMES)
    assert next(iter(shares)) == "tvl_level"
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["tvl_level"] > 0.8


def test_gain_is_summed_over_the_models() -> None:
    first, second = text_of(1.0, 0.0, 0.0), text_of(0.0, 0.0, 9.0)
    gains = {
        text: lightgbm.Booster(model_str=text).feature_importance("gain")
        for text in (first, second)
    }
    total = gains[first] + gains[second]
    assert gain_by_feature([first, second], NAMES) == pytest.approx(
        dict(zip(NAMES, total / total.sum(), strict=True))
    )
    assert gain_by_feature([second], NAMES)["weekday"] > 0.99


def test_a_model_without_a_split_has_no_gain() -> None:
    assert gain_by_feature([text_of(0.0, 0.0, 0.0)], NAMES) == dict.fromkeys(NAMES, 0.0)


def test_groups_sum_their_features() -> None:
    gains = gain_by_group(
        {"apy_move_0": 0.3, "apy_move_1": 0.2, "tvl_level": 0.4, TVL_FORECAST: 0.1}
    )
    assert list(gains)[:3] == ["apy_moves", "tvl", "tvl_forecast"]
    assert gains == pytest.approx(
        dict.fromkeys(FEATURE_GROUPS, 0.0) | {"apy_moves": 0.5, "tvl": 0.4, "tvl_forecast": 0.1}
    )


def test_a_feature_without_a_group_is_an_error() -> None:
    with pytest.raises(KeyError, match="unheard_of"):
        gain_by_group({"unheard_of": 1.0})
