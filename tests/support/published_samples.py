"""Out-of-sample rows of a generated panel, and their published forecasts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from forecasting.engines.folds import DaySpan
from forecasting.features.targets import Target, targets
from forecasting.models.stacked_model import OutOfSample, StackedModel
from forecasting.publishing.history_window import MIN_DAYS
from forecasting.publishing.past_forecasts import empty_history
from forecasting.publishing.publish import (
    evaluation_rows,
    publish_days,
)

FIRST = dt.date(2024, 1, 1)
DAYS = 101
APY, TVL = targets(max_apy_percent=1e6, max_tvl_usd=1e12)


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


def days(first: int = 0, end: int = DAYS) -> list[dt.date]:
    return DaySpan(day(first), day(end)).days


def out_of_sample(
    skill: float, *, pools: int = 20, horizon: int = 1, shake: float = 1.0, length: int = DAYS
) -> pd.DataFrame:
    """Returns `OutOfSample.rows` around 50 % and 2 M USD.

    Args:
        shake: standard deviation of the levels, in scales.
        correlation: correlation of the model's moves with the actual ones. Its quantiles are half a
            scale to both sides, much too close.
    """
    random = np.random.default_rng(2)
    shape = (pools, length + horizon)
    sizes = {"apy": np.exp(random.uniform(-3, 1, (pools, 1))), "tvl": np.full((pools, 1), 0.01)}
    levels = {"apy": 50.0 + shake * sizes["apy"] * random.standard_normal(shape)}
    levels["tvl"] = np.expm1(np.log1p(2e6) + 0.01 * shake * random.standard_normal(shape))
    columns: dict[str, Any] = {
        "pool_id": np.repeat([f"p{number:02d}" for number in range(pools)], length),
        "date": np.tile(pd.date_range(FIRST, periods=length), pools),
        "apy_lowest_30": 0.0,
    }
    for target in (APY, TVL):
        values, name, scale = levels[target.name], target.name, sizes[target.name]
        moves = (target.level(values[:, horizon:]) - target.level(values[:, :-horizon])) / scale
        move = skill * moves + np.sqrt(1 - skill**2) * random.standard_normal(moves.shape)
        come_true = np.where(np.arange(length) + horizon < length, values[:, horizon:], np.nan)
        forecast_moves = {
            "": values[:, :-horizon],
            "_next": come_true,
            "_scale": np.broadcast_to(scale, moves.shape),
            "_move": move,
        }
        columns |= {f"{name}{ending}": of.ravel() for ending, of in forecast_moves.items()}
        columns |= {
            f"{name}_observed": True,
            f"{name}_move_low": columns[f"{name}_move"] - 0.5,
            f"{name}_move_high": columns[f"{name}_move"] + 0.5,
        }
        baselines = {
            "median_7": 0.0,
            "reverted": 1.0,
            "naive_low": -2.0,
            "naive_high": 2.0,
            "mean_abs_change": 3.0,
        }
        columns |= {
            f"{name}_{baseline}": columns[name] + gap for baseline, gap in baselines.items()
        }
    return pd.DataFrame(columns)


def published(
    sample: pd.DataFrame,
    target: Target = APY,
    forecast_days: Sequence[dt.date] | None = None,
    *,
    horizon: int = 1,
    level: float = 0.8,
    history: pd.DataFrame | None = None,
    is_shadow: bool = False,
) -> pd.DataFrame:
    past = empty_history() if history is None else history
    return publish_days(
        sample,
        target,
        days() if forecast_days is None else forecast_days,
        horizon=horizon,
        level=level,
        history=past,
        is_shadow=is_shadow,
    )


def evaluated(
    rows: pd.DataFrame, target: Target, models: Sequence[StackedModel] = (), *, horizon: int = 1
) -> pd.DataFrame:
    sample = OutOfSample(pd.DataFrame(), tuple(models))
    return evaluation_rows(
        rows,
        sample,
        target,
        horizon=horizon,
        engine="lightgbm",
        level=0.8,
        source="backtest",
        run_id="run",
    )


def after_warm_up(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["date"] > pd.Timestamp(day(MIN_DAYS))) & rows["next"].notna()]


def assert_same_bits(first: pd.DataFrame, second: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        first.reset_index(drop=True), second.reset_index(drop=True), check_exact=True
    )
