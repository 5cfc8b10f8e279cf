"""Settings of metrics and data quality."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings

from common.settings.numbers import Share


class QualitySettings(BaseSettings):
    """Daily metrics: gaps, limits of single rows, and checks that block a run."""

    max_fill_days: Annotated[int, Field(ge=0, le=60)] = Field(
        7, description="maximum number of missing days that an APY or TVL is carried forward over"
    )
    include_today: bool = Field(
        False,
        description=(
            "also compute the current, partial day, again in each run until it is over; forecasts"
            " and checks ignore it"
        ),
    )
    # The upper limits are a tenth of what the columns of pool_daily_metrics can store:
    # numeric(20, 4) for APY, numeric(20, 2) for TVL, numeric(20, 8) for prices.
    max_apy_percent: Annotated[float, Field(gt=0, le=1e15)] = Field(
        1_000_000.0, description="an APY of larger magnitude is quarantined; percent"
    )
    max_tvl_usd: Annotated[float, Field(gt=0, le=1e17)] = Field(
        1e12, description="a larger TVL is quarantined; USD"
    )
    max_price_usd: Annotated[float, Field(gt=0, le=1e11)] = Field(
        1e9, description="a higher price is quarantined; USD"
    )
    max_spike_factor: Annotated[float, Field(gt=1)] = Field(
        10.0,
        description=(
            "an APY or TVL that changes by more than this factor and returns within"
            " SPIKE_WINDOW_HOURS is a spike"
        ),
    )
    spike_window_hours: Annotated[float, Field(gt=0, le=24)] = Field(
        5.0, description="maximum duration of a spike; hours"
    )
    max_missing_pools_share: Share = Field(
        0.5,
        description="share of a day's pools that may be absent on the next; more blocks the run",
    )
    warn_missing_pools_share: Share = Field(
        0.1,
        description="share of a day's pools that may be absent on the next without a warning",
    )
    min_pools_ratio: Share = Field(
        0.5,
        description="pools observed on a day, relative to the day before; less blocks the run",
    )
    max_null_share: Share = Field(
        0.5,
        description=(
            "share of null values in a column of the new days' observed rows; more blocks the run"
        ),
    )
    max_removed_days_share: Share = Field(
        0.05,
        description="share of the pool-days of a run that it may remove; more blocks the run",
    )
    check_severities: str = Field(
        "",
        description=(
            "overrides of check severities: `NAME=fail`, `warn` or `off`, separated by commas;"
            " docs/quality.md"
        ),
    )
