"""Every known pool gets a row, and a row that the model did not make says why."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forecasting.backtest import TargetForecasts
from forecasting.rules import RuleLimits, apply_rules, join_targets
from forecasting.targets import Target, targets

AS_OF = dt.date(2024, 6, 30)
APY, TVL = targets(max_apy_percent=1e6, max_tvl_usd=1e12)
LIMITS = RuleLimits(stale_after_days=7, max_fill_days=3, min_history_days=8)


def known(pool_id: str, value: float | None, *, age: int = 0, days: int = 100) -> dict[str, object]:
    day = AS_OF - dt.timedelta(days=age) if value is not None else None
    return {"pool_id": pool_id, "apy": value, "tvl": value, "apy_day": day, "tvl_day": day, "apy_days": days, "tvl_days": days}


def forecasts(target: Target, values: dict[str, float], *, modelled: bool = True, residuals: tuple[float, float] = (-0.1, 0.2)) -> TargetForecasts:
    rows = pd.DataFrame(
        {
            "pool_id": list(values),
            "date": pd.Timestamp(AS_OF),
            "now": list(values.values()),
            "forecast": [value + 1 for value in values.values()],
            "low": [value - 1 for value in values.values()],
            "high": [value + 3 for value in values.values()],
            "modelled": modelled,
        }
    )
    return TargetForecasts(target, rows, {}, residuals)


def ruled(pools: list[dict[str, object]], made: TargetForecasts) -> Any:
    return apply_rules(pd.DataFrame(pools), made, AS_OF, LIMITS).set_index("pool_id")


def test_the_model_speaks_for_a_pool_with_history() -> None:
    found = ruled([known("a", 5.0)], forecasts(APY, {"a": 5.0})).loc["a"]
    assert found.tolist() == [6.0, 4.0, 8.0, None]


@pytest.mark.parametrize(
    ("pool", "rule"),
    [
        (known("a", 5.0, age=8), "stale"),
        (known("a", 5.0, days=7), "cold_start"),
        (known("a", 5.0, age=8, days=7), "stale"),
    ],
)
def test_stale_and_new_pools_keep_their_last_value_with_the_panels_interval(pool: dict[str, object], rule: str) -> None:
    found = ruled([pool], forecasts(APY, {"a": 5.0})).loc["a"]
    assert found["rule"] == rule
    assert found["value"] == 5.0
    assert (found["low"], found["high"]) == (pytest.approx(5.0 - 5.1 * 0.1), pytest.approx(5.0 + 5.1 * 0.2))


def test_a_value_too_old_to_be_carried_is_stale_though_the_limit_is_not_reached() -> None:
    assert ruled([known("a", 5.0, age=4)], forecasts(APY, {})).loc["a", "rule"] == "stale"


def test_a_pool_back_after_a_long_gap_is_new() -> None:
    assert ruled([known("a", 5.0, age=0, days=50)], forecasts(APY, {})).loc["a", "rule"] == "cold_start"


def test_without_a_model_the_newest_value_is_published_and_says_so() -> None:
    found = ruled([known("a", 5.0)], forecasts(APY, {"a": 5.0}, modelled=False)).loc["a"]
    assert (found["value"], found["rule"]) == (5.0, "no_model")


def test_what_a_pool_never_had_stays_unknown() -> None:
    found = ruled([known("a", None, days=0)], forecasts(APY, {})).loc["a"]
    assert found[["value", "low", "high"]].isna().all()
    assert found["rule"] is None


def test_rules_keep_apy_of_a_pool_at_zero_and_tvl_not_negative() -> None:
    pools = [known("a", 0.0, days=3), known("b", 1e9, days=3)]
    for target in (APY, TVL):
        found = ruled(pools, forecasts(target, {}, residuals=(-80.0, 0.5)))
        assert (found["low"] >= 0.0).all()
        assert (found["low"] <= found["value"]).all()
        assert (found["value"] <= found["high"]).all()
        assert np.isfinite(found[["value", "low", "high"]].to_numpy(float)).all()


def test_a_row_gives_apys_reason_first_and_tvls_otherwise() -> None:
    pools = [known("model", 5.0), known("new", 5.0, days=2), known("apy_only", 5.0) | {"tvl_days": 3}]
    made = [ruled(pools, forecasts(target, {"model": 5.0, "apy_only": 5.0})).reset_index() for target in (APY, TVL)]
    rows = join_targets(*made).set_index("pool_id")
    assert rows["rule"].to_dict() == {"model": None, "new": "cold_start", "apy_only": "cold_start"}
    assert list(rows.columns) == ["apy", "apy_low", "apy_high", "tvl", "tvl_low", "tvl_high", "rule"]
