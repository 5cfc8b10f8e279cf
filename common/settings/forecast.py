"""Settings of forecasts."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings

from common.horizons import NEXT_DAY
from common.settings.horizons import Horizons
from common.settings.numbers import Share

Engine = Literal["synapseml", "lightgbm"]


class ForecastSettings(BaseSettings):
    """Forecasts: engine, training window, intervals, and limits of drift."""

    engine: Engine = Field(
        "synapseml",
        validation_alias=AliasChoices("ENGINE", "FORECAST_ENGINE"),
        description="LightGBM implementation; FORECAST_ENGINE is an alias",
    )
    train_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        365, description="length of the training window, 0: the whole history; days"
    )
    market_features: bool = Field(
        False, description="add changes of ETH, BTC and gas prices as features"
    )
    transfer_panel: Literal["auto", "off"] = Field(
        "auto",
        description=(
            "auto: models of fewer than 30 pools also learn from the public pools that come with"
            " the product, at a small weight; off: from own rows only"
        ),
    )
    horizons: Horizons = Field(
        (NEXT_DAY,),
        description=(
            "days from the as-of day to the target days, each with its own models, separated by"
            " commas; 1 to 30, and 1 must be among them"
        ),
    )
    backtest_days: Annotated[int, Field(ge=5, le=365)] = Field(
        60, description="number of target days that `backtest` scores; days"
    )
    refit_days: Annotated[int, Field(ge=1, le=90)] = Field(
        7, description="interval between model fits, in the daily job and in `backtest`; days"
    )
    interval_level: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.8, description="nominal coverage of the forecast interval"
    )
    min_history_days: Annotated[int, Field(ge=2, le=365)] = Field(
        4, description="a pool with fewer observed days gets the cold-start fallback; days"
    )
    max_feature_psi: Annotated[float, Field(gt=0)] = Field(
        0.25,
        description=(
            "drift of a feature (population stability index) beyond that of the worst training"
            " day; more is a warning"
        ),
    )
    max_new_pools_share: Share = Field(
        0.2, description="share of pools that are absent from the training data; more is a warning"
    )
    max_fallback_share: Share = Field(
        0.8, description="share of APY forecasts made by a fallback; more is a warning"
    )
    model_seed: int = Field(20240501, description="random seed of the models")
    model_threads: Annotated[int, Field(ge=1, le=256)] = Field(
        default_factory=lambda: os.cpu_count() or 1, description="number of LightGBM threads"
    )
