"""Every known pool gets a row, and a row that the model did not make says why."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forecasting.features.targets import Target, targets
from forecasting.publishing.fallbacks import apply_rules, join_targets

AS_OF = dt.date(2024, 6, 30)
APY, TVL = targets(max_apy_percent=1e6, max_tvl_usd=1e12)
RELATIVE = (-0.1, 0.2)


def known(pool_id: str, value: float | None, *, age: int = 0) -> dict[str, object]:
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
    tonight: pd.DataFrame,
    target: Target = APY,
    relative: tuple[float, float] = RELATIVE,
) -> Any:
    return apply_rules(pd.DataFrame(pools), tonight, target, relative, AS_OF).set_index("pool_id")


def test_the_model_speaks_for_a_pool_with_history() -> None:
    found = ruled([known("a", 5.0)], published({"a": 5.0})).loc["a"]
    assert found.tolist() == [6.0, 4.0, 8.0, None]


@pytest.mark.parametrize("rule", ["cold_start", "no_model", "no_ledger", "few_pools", "gate"])
def test_a_published_row_keeps_its_reason(rule: str) -> None:
    found = ruled([known("a", 5.0)], published({"a": 5.0}, rule=rule)).loc["a"]
    assert found.tolist() == [6.0, 4.0, 8.0, rule]


@pytest.mark.parametrize("age", [1, 8, 400])
def test_a_pool_that_was_not_observed_that_day_keeps_its_last_value_with_the_panels_interval(
    age: int,
) -> None:
    found = ruled([known("a", 5.0, age=age), known("b", 1.0)], published({"b": 1.0})).loc["a"]
    assert (found["fallback_reason"], found["value"]) == ("stale", 5.0)
    assert (found["low"], found["high"]) == (
        pytest.approx(5.0 - 5.1 * 0.1),
        pytest.approx(5.0 + 5.1 * 0.2),
    )


def test_what_a_pool_never_had_stays_unknown() -> None:
    found = ruled([known("a", None)], published({})).loc["a"]
    assert found[["value", "low", "high"]].isna().all()
    assert found["fallback_reason"] == "no_value"


def test_rules_keep_apy_of_a_pool_at_zero_and_tvl_not_negative() -> None:
    pools = [known("a", 0.0, age=3), known("b", 1e9, age=3)]
    for target in (APY, TVL):
        found = ruled(pools, published({}), target, (-80.0, 0.5))
        assert (found["low"] >= 0.0).all()
        assert (found["low"] <= found["value"]).all()
        assert (found["value"] <= found["high"]).all()
        assert np.isfinite(found[["value", "low", "high"]].to_numpy(float)).all()


def test_a_row_gives_each_targets_reason() -> None:
    pools = [
        known("model", 5.0),
        known("gone", 5.0, age=2),
        known("apy_only", 5.0) | {"tvl_day": AS_OF - dt.timedelta(days=1)},
    ]
    made = [
        ruled(pools, published({"model": 5.0, "apy_only": 5.0}), target).reset_index()
        for target in (APY, TVL)
    ]
    rows = join_targets(*made).set_index("pool_id")
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
