"""Pools of every kind for feature tests, and their rows as a Spark task computes them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from forecasting.features.feature_rows import SCHEMA, rows_of_pools
from forecasting.features.labelled_features import FeatureSpec
from forecasting.features.source_queries import LOOK_BACK_DAYS
from tests.support.feature_oracle import PoolOracle
from tests.support.forecast_panels import END, metric_rows, panel_rows, pool_rows

Values = Sequence[float | None]
LONG_AGO = END - dt.timedelta(days=3000)


def spec(
    *,
    first_day: dt.date = LONG_AGO,
    as_of: dt.date = END,
    horizon: int = 1,
    level: float = 0.8,
    min_history_days: int = 1,
) -> FeatureSpec:
    return FeatureSpec(first_day, as_of, horizon, level, min_history_days)


def task_rows(rows: pd.DataFrame, features: FeatureSpec | None = None) -> pd.DataFrame:
    """Returns a task's rows, sorted by pool and day, in batches of arbitrary size."""
    batches = list(
        rows_of_pools(features or spec())(metric_rows(rows).to_batches(max_chunksize=57))
    )
    return (
        pa.Table.from_batches(batches).to_pandas()
        if batches
        else pd.DataFrame(columns=SCHEMA.names)
    )


def oracle_of(rows: pd.DataFrame) -> PoolOracle:
    """Return the oracle of one pool's metrics; days may be missing."""
    days = pd.date_range(rows["date"].min(), END)
    dense = rows.set_index(pd.to_datetime(rows["date"])).reindex(days)
    apy, tvl = (_values(dense[name]) for name in ("actual_apy", "actual_tvl"))
    apy_observed, tvl_observed = (
        (dense[f"{name}_staleness_days"] == 0).tolist() for name in ("apy", "tvl")
    )
    return PoolOracle(apy, tvl, apy_observed, tvl_observed, rows["date"].min())


def irregular(days: int, *, seed: int) -> pd.DataFrame:
    """Returns pools with missing values, gaps longer than a carry, and calm periods."""
    random = np.random.default_rng(seed)
    apy, tvl = (
        3 + np.cumsum(random.standard_normal(days)),
        np.exp(12 + np.cumsum(0.05 * random.standard_normal(days))),
    )
    apy[days // 5 : days // 3] = apy[days // 5]
    observed_apy, observed_tvl = (_with_missing_values(values, random) for values in (apy, tvl))
    observed_apy[days // 2 : days // 2 + 12] = [None] * 12
    return pool_rows("a", observed_apy, observed_tvl)


def _values(column: Iterable[Any]) -> list[float | None]:
    return [None if pd.isna(value) else float(value) for value in column]


def _with_missing_values(
    values: Iterable[float], random: np.random.Generator
) -> list[float | None]:
    """Replace a tenth of the values by None."""
    return [None if random.random() < 0.1 else float(value) for value in values]


def storm_then_calm() -> pd.DataFrame:
    """A pool that is volatile until the look-back of the last day begins."""
    random = np.random.default_rng(4)
    wild, calm = (
        5 + 50 * random.standard_normal(300) ** 2,
        5 + 0.01 * random.standard_normal(LOOK_BACK_DAYS + 1),
    )
    tvl = np.exp(12 + np.cumsum(0.05 * random.standard_normal(len(wild) + len(calm))))
    return pool_rows("a", [*wild, *calm], list(tvl))


POOLS: dict[str, Callable[[], pd.DataFrame]] = {
    "regular": lambda: panel_rows(1, 130),
    "gap of three days": lambda: panel_rows(5, 110).query("pool_id == 'p04'"),
    "irregular": lambda: irregular(150, seed=1),
    "irregular again": lambda: irregular(90, seed=2),
    "young": lambda: panel_rows(1, 22),
    "days without a row": lambda: panel_rows(1, 80).drop(index=[3, *range(40, 49), 79]),
    "wild": lambda: pool_rows(
        "a",
        [5.0] * 40 + [355_083.0, 0.0, 12.0] + [6.0, 6.5] * 20,
        [1e6] * 40 + [0.0] * 3 + [1e12] * 40,
    ),
    "zero": lambda: pool_rows("a", [0.0] * 40, [0.0] * 40),
    "without TVL": lambda: pool_rows("a", [1.0, 2.0, 4.0, 3.0] * 10, [None] * 40),
    "without APY": lambda: pool_rows("a", [None] * 30, [1e6, 2e6, 3e6] * 10),
    "every second day": lambda: pool_rows(
        "a", [1.0, None, 2.0, None, 4.0, None, 3.0, None] * 10, [1e6, None] * 40
    ),
    "every fifth day, then each": lambda: pool_rows(
        "a", [1.0, None, None, None, None, 9.0, *[None] * 4] * 4 + [3.0, 4.0, 6.0] * 8, [1e6] * 64
    ),
    "APY long ago": lambda: pool_rows("a", [3.0, 4.0] * 5 + [None] * 110, [1e6, 2e6, 3e6] * 40),
}

DIRT: dict[str, tuple[Values, Values]] = {
    "zero APY": ([0.0] * 100, [1e6] * 100),
    "355,083 %": ([5.0] * 60 + [355_083.0] + [5.0] * 38 + [355_083.0], [1e6] * 100),
    "355,083 % from the first day": ([355_083.0] * 99 + [1.0], [1e6] * 100),
    "APY and TVL to and fro": ([0.0, 355_083.0] * 50, [1e12, 0.0] * 50),
    "negative APY": ([-50.0, -99.0, 3.0, 0.0] * 25, [1e6] * 100),
    "zero TVL": ([3.0, 4.0] * 50, [0.0] * 100),
    "TVL of nothing and of all": ([3.0, 4.0] * 50, [1e-300, 1e12, 0.01, 0.0] * 25),
    "TVL missing": ([3.0, 4.0] * 50, [None] * 100),
    "TVL missing at times": ([3.0, 4.0] * 50, [None, None, None, 1e6] * 25),
    "APY missing": ([None] * 100, [1e6, 2e6] * 50),
    "one day": ([3.0], [1e6]),
    "two days": ([3.0, 355_083.0], [1e6, 0.0]),
    "every second day": ([3.0, None] * 50, [1e6, None] * 50),
}

PASTS: dict[str, Callable[[], pd.DataFrame]] = {
    "regular": lambda: panel_rows(1, 420),
    "irregular": lambda: irregular(420, seed=5),
    "355,083 % until the look-back": lambda: pool_rows(
        "a", [355_083.0] * 300 + [5.0, 5.1, 5.3] * 40 + [5.0], [1e6] * 421
    ),
    "storm, then calm": storm_then_calm,
    "APY before the look-back alone": lambda: pool_rows(
        "a", [3.0, 4.0] * 100 + [None] * (LOOK_BACK_DAYS + 20), [1e6] * (220 + LOOK_BACK_DAYS)
    ),
}
