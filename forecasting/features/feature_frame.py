"""Feature rows in Spark: one row for each pool and as-of day, with features, labels and baselines.

Reads the metrics of `metrics_query`; returns ROW_COLUMNS and the features (float32, null where
unknown). The computation itself is numpy, in `labelled_features`, on a batch of pools at a time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from forecasting.features.cross_section import add_cross_section
from forecasting.features.feature_names import FLAGS, LABELS, NUMBERS
from forecasting.features.labelled_features import FeatureSpec, labelled_features
from forecasting.features.market_features import add_market
from forecasting.features.pool_features import POOL_FEATURES
from forecasting.features.pool_history import PoolHistory, pool_history
from spark.arrow_groups import Batches, iter_groups

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


@contextmanager
def feature_rows(
    metrics: DataFrame, spec: FeatureSpec, market: DataFrame | None = None
) -> Iterator[DataFrame]:
    """Yields ROW_COLUMNS and the features; the frame is valid inside the block only.

    Args:
        metrics: rows of `metrics_query`.
        market: daily prices of `market_query`; adds the features of MARKET.
    """
    # one shuffle brings each pool's days together; window functions would evaluate a frame of 90
    # rows anew for each row and statistic, and SQL has no exponential mean
    pools = metrics.repartition("pool_id").sortWithinPartitions("pool_id", "date")
    # the first day's rows need a yesterday too: a model's view of a day must not depend on which
    # other days are requested
    with_yesterday = replace(spec, first_day=spec.first_day - dt.timedelta(days=1))
    # persisted because the cross-section is computed from the very rows that it is joined to
    rows = pools.mapInArrow(rows_of_pools(with_yesterday), SCHEMA).persist()
    try:
        complete = add_cross_section(rows).where(F.col("date") >= F.lit(spec.first_day))
        yield add_market(complete, market) if market is not None else complete
    finally:
        rows.unpersist()


def rows_of_pools(spec: FeatureSpec) -> Callable[[Batches], Batches]:
    """Returns the function for `mapInArrow`: rows sorted by pool and day to batches of SCHEMA."""

    def compute(batches: Batches) -> Iterator[pa.RecordBatch]:
        for pools in iter_groups(batches, "pool_id"):
            yield from _rows(pool_history(pools, spec.as_of), spec)

    return compute


def _rows(history: PoolHistory, spec: FeatureSpec) -> Iterator[pa.RecordBatch]:
    columns = labelled_features(history, spec)
    first = (spec.first_day - dt.date(1970, 1, 1)).days
    has_value = ~(np.isnan(history.apy) & np.isnan(history.tvl))
    pool, day = np.nonzero(has_value & (history.days >= first)[None, :])
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
