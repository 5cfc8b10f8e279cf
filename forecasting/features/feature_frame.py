"""Feature rows of all pools: one row a pool and as-of day, with features, labels and baselines,
made in Spark's tasks and used for training and prediction alike.

In: the metrics of `metrics_query`. Out: `ROW_COLUMNS` and FEATURES (float32, null where unknown);
APY in percent, TVL in USD, labels in scales or in asinh space. One shuffle brings each pool's days
together; numpy works on a batch of pools at a time. Why not window functions: SQL has no
exponential mean, and evaluates a frame of 90 rows anew for each row and statistic.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from forecasting.features.cross_section import CROSS_SECTION, add_cross_section
from forecasting.features.market_features import MARKET, add_market
from forecasting.features.pool_features import (
    BASELINES,
    LEVELS,
    POOL_FEATURES,
    SCALES,
    pool_features,
)
from forecasting.features.pool_history import Observed, PoolHistory, pool_history
from forecasting.features.rolling_windows import Days, lag
from forecasting.features.targets import LABEL_LIMIT, asinh_level
from spark.arrow_groups import Batches, whole_groups

_METRICS = """
SELECT m.pool_id, m.date, m.actual_apy::float8 AS apy, m.actual_tvl::float8 AS tvl,
    m.pool_group::text AS pool_group, a.apy_staleness_days, a.tvl_staleness_days
FROM {metrics} m
LEFT JOIN yieldspark.value_staleness a ON a.pool_id = m.pool_id AND a.date = m.date
WHERE m.date BETWEEN DATE '{first_day}' AND DATE '{as_of}'
    AND (m.actual_apy IS NOT NULL OR m.actual_tvl IS NOT NULL)
"""

LABELS = ("apy_label", "apy_asinh_label", "tvl_label")
NUMBERS = ("apy", "tvl", "apy_next", "tvl_next", *SCALES, *LEVELS, *BASELINES)
FLAGS = ("apy_observed", "tvl_observed")
ROW_COLUMNS = ("pool_id", "date", "pool_group", *FLAGS, *NUMBERS, *LABELS)
FEATURES = (*POOL_FEATURES, *CROSS_SECTION)

SCHEMA = T.StructType(
    [
        T.StructField("pool_id", T.StringType()),
        T.StructField("date", T.DateType()),
        T.StructField("pool_group", T.StringType()),
        *(T.StructField(name, T.BooleanType()) for name in FLAGS),
        *(T.StructField(name, T.DoubleType()) for name in NUMBERS),
        *(T.StructField(name, T.FloatType()) for name in (*LABELS, *POOL_FEATURES)),
    ]
)


@dataclass(frozen=True)
class FeatureSpec:
    """Which rows: as-of days of [first_day, as_of].

    `horizon` days lie between a row and its label; `level` is the coverage of the naive interval. A
    pool that has been observed on fewer than `min_history_days` days by then has no scale, and so
    neither labels nor a forecast.
    """

    first_day: dt.date
    as_of: dt.date
    horizon: int
    level: float
    min_history_days: int


def metrics_query(metrics: str, first_day: dt.date, as_of: dt.date) -> str:
    """SQL for the rows of `[first_day, as_of]` of the table `metrics` (its quoted name); rows that
    hold nothing but a forecast (the day after an as-of day) stay out.
    """
    return _METRICS.format(
        metrics=metrics, first_day=first_day.isoformat(), as_of=as_of.isoformat()
    )


def feature_names(*, market: bool) -> tuple[str, ...]:
    return (*FEATURES, *MARKET) if market else FEATURES


@contextmanager
def feature_rows(
    metrics: DataFrame, spec: FeatureSpec, market: DataFrame | None = None
) -> Iterator[DataFrame]:
    """ROW_COLUMNS and the features, those of MARKET among them where a market is given. Use the
    frame inside the block.

    The rows are kept that long: the cross-section is made of the very rows it is joined to.
    """
    pools = metrics.repartition("pool_id").sortWithinPartitions("pool_id", "date")
    # the first day's rows have a yesterday too: what a model sees of a day must not depend on which
    # other days are asked for
    with_yesterday = replace(spec, first_day=spec.first_day - dt.timedelta(days=1))
    rows = pools.mapInArrow(rows_of_pools(with_yesterday), SCHEMA).persist()
    try:
        found = add_cross_section(rows).where(F.col("date") >= F.lit(spec.first_day))
        yield add_market(found, market) if market is not None else found
    finally:
        rows.unpersist()


def rows_of_pools(spec: FeatureSpec) -> Callable[[Batches], Batches]:
    """For `mapInArrow` over rows sorted by pool and day: batches of SCHEMA."""

    def compute(batches: Batches) -> Iterator[pa.RecordBatch]:
        for pools in whole_groups(batches, "pool_id"):
            yield from _rows(pool_history(pools, spec.as_of), spec)

    return compute


def _rows(history: PoolHistory, spec: FeatureSpec) -> Iterator[pa.RecordBatch]:
    columns = _columns(history, spec)
    first = (spec.first_day - dt.date(1970, 1, 1)).days
    is_known = ~(np.isnan(history.apy) & np.isnan(history.tvl))
    pool, day = np.nonzero(is_known & (history.days >= first)[None, :])
    if not pool.size:
        return
    arrays = [
        pa.array(history.pool_ids[pool], pa.string()),
        pa.array(history.days[day].astype(np.int32)).cast(pa.date32()),
        pa.array(history.groups[pool, day], pa.string()),
        *(pa.array(columns[name][pool, day]) for name in FLAGS),
        *(pa.array(columns[name][pool, day], pa.float64(), from_pandas=True) for name in NUMBERS),
        *(
            pa.array(columns[name][pool, day].astype(np.float32), pa.float32(), from_pandas=True)
            for name in (*LABELS, *POOL_FEATURES)
        ),
    ]
    yield pa.RecordBatch.from_arrays(arrays, names=SCHEMA.names)


def _columns(history: PoolHistory, spec: FeatureSpec) -> dict[str, Days | Observed]:
    features = pool_features(history, spec.level)
    is_new = np.cumsum(history.apy_observed | history.tvl_observed, axis=1) < spec.min_history_days
    features |= {name: np.where(is_new, np.nan, features[name]) for name in SCALES}
    apy_next = _next(history.apy, history.apy_observed, spec.horizon)
    tvl_next = _next(history.tvl, history.tvl_observed, spec.horizon)
    labels = {
        "apy_label": (apy_next - history.apy) / features["apy_scale"],
        # known on the rows of the other label: they are fitted together
        "apy_asinh_label": np.where(
            np.isnan(features["apy_scale"]),
            np.nan,
            asinh_level(apy_next) - asinh_level(history.apy),
        ),
        "tvl_label": (np.log1p(tvl_next) - np.log1p(history.tvl)) / features["tvl_scale"],
    }
    return {
        **{name: getattr(history, name) for name in ("apy", "tvl", *FLAGS)},
        **{"apy_next": apy_next, "tvl_next": tvl_next},
        **features,
        **{name: np.clip(values, -LABEL_LIMIT, LABEL_LIMIT) for name, values in labels.items()},
    }


def _next(values: Days, observed: Observed, horizon: int) -> Days:
    """The value of D + horizon where both days are observed."""
    known = np.where(observed, values, np.nan)
    return np.where(observed, lag(known, -horizon), np.nan)
