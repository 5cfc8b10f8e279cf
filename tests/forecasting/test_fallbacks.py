"""Every active pool gets a row; a row without a model's forecast has its reason."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forecasting.features.targets import Target, targets
from forecasting.publishing.fallbacks import apply_fallbacks, join_targets

AS_OF = dt.date(2024, 6, 30)
APY, TVL = targets(max_apy_percent=1e6, max_tvl_usd=1e12)
RELATIVE = (-0.1, 0.2)


def active_pool(pool_id: str, value: float | None, *, age: int = 0) -> dict[str, object]:
    day = AS_OF - dt.timedelta(days=age) if value is not None else None
    return {"pool_id": pool_id, "apy": value, "tvl": value, "apy_day": day, "tvl_day": day}


def published(values: dict[str, float], *, rule: str | None = None) -> pd.DataFrame:
    rows = {"pool_id": list(values), "forecast": [value + 1 for value in values.values()]}
    ends = {
        "low": [value - 1 for value in values.values()],
        "high": [value + 3 for value in values.values()],
    }
    return pd.DataFrame(
        rows | ends | {"fallback_reason": pd.Series([rule] * len(values), dtype=object)}
    )


def ruled(
    pools: list[dict[str, object]],
    published: pd.DataFrame,
    target: Target = APY,
    relative: tuple[float, float] = RELATIVE,
) -> Any:
    return apply_fallbacks(pd.DataFrame(pools), published, target, relative, AS_OF).set_index(
        "pool_id"
    )


def test_the_models_forecast_is_used_for_a_pool_with_history() -> None:
    row = ruled([active_pool("a", 5.0)], published({"a": 5.0})).loc["a"]
    assert row.tolist() == [6.0, 4.0, 8.0, None]


@pytest.mark.parametrize("rule", ["cold_start", "no_model", "no_ledger", "few_pools", "gate"])
def test_a_published_row_keeps_its_reason(rule: str) -> None:
    row = ruled([active_pool("a", 5.0)], published({"a": 5.0}, rule=rule)).loc["a"]
    assert row.tolist() == [6.0, 4.0, 8.0, rule]


@pytest.mark.parametrize("age", [1, 8, 400])
def test_a_pool_that_was_not_observed_that_day_keeps_its_last_value_with_the_panels_interval(
    age: int,
) -> None:
    row = ruled([active_pool("a", 5.0, age=age), active_pool("b", 1.0)], published({"b": 1.0})).loc[
        "a"
    ]
    assert (row["fallback_reason"], row["value"]) == ("stale", 5.0)
    assert (row["low"], row["high"]) == (
        pytest.approx(5.0 - 5.1 * 0.1),
        pytest.approx(5.0 + 5.1 * 0.2),
    )


def test_a_target_that_a_pool_never_had_stays_unknown() -> None:
    row = ruled([active_pool("a", None)], published({})).loc["a"]
    assert row[["value", "low", "high"]].isna().all()
    assert row["fallback_reason"] == "no_value"


def test_fallbacks_never_publish_a_negative_apy_or_tvl() -> None:
    pools = [active_pool("a", 0.0, age=3), active_pool("b", 1e9, age=3)]
    for target in (APY, TVL):
        row = ruled(pools, published({}), target, (-80.0, 0.5))
        assert (row["low"] >= 0.0).all()
        assert (row["low"] <= row["value"]).all()
        assert (row["value"] <= row["high"]).all()
        assert np.isfinite(row[["value", "low", "high"]].to_numpy(float)).all()


def test_a_row_gives_each_targets_reason() -> None:
    pools = [
        active_pool("model", 5.0),
        active_pool("gone", 5.0, age=2),
        active_pool("apy_only", 5.0) | {"tvl_day": AS_OF - dt.timedelta(days=1)},
    ]
    targets_with_fallbacks = [
        ruled(pools, published({"model": 5.0, "apy_only": 5.0}), target).reset_index()
        for target in (APY, TVL)
    ]
    rows = join_targets(*targets_with_fallbacks).set_index("pool_id")
    assert rows["apy_fallback_reason"].to_dict() == {
        "model": None,
        "gone": "stale",
        "apy_only": None,
    }
    assert rows["tvl_fallback_reason"].to_dict() == {
        "model": None,
        "gone": "stale",
        "apy_only": "stale",
    }
    assert list(rows.columns) == [
        "apy",
        "apy_low",
        "apy_high",
        "apy_fallback_reason",
        "tvl",
        "tvl_low",
        "tvl_high",
        "tvl_fallback_reason",
    ]
