"""Feature rows: one row for each pool and as-of day, with features, labels and baselines.

Reads Arrow rows of `metrics_query`, sorted by pool and day; returns ROW_COLUMNS and the features
(float32, null where unknown). Both executors compute with these functions: Spark on partitions of
pools, a run in process on all of them. Imports no Spark.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forecasting.features.cross_section import add_cross_section
from forecasting.features.feature_names import FLAGS, LABELS, NUMBERS
from forecasting.features.labelled_features import FeatureSpec, labelled_features
from forecasting.features.market_features import add_market
from forecasting.features.pool_features import POOL_FEATURES
from forecasting.features.pool_history import PoolHistory, pool_history
from spark.arrow_groups import Batches, iter_groups

SCHEMA = pa.schema(
    [
        ("pool_id", pa.string()),
        ("date", pa.date32()),
        ("pool_group", pa.string()),
        *((name, pa.bool_()) for name in FLAGS),
        *((name, pa.float64()) for name in NUMBERS),
        *((name, pa.float32()) for name in (*LABELS, *POOL_FEATURES)),
    ]
)
"""Columns of a pool's rows, without those of other pools and prices."""


def complete_rows(batches: Batches, spec: FeatureSpec, market: pa.Table | None) -> pa.Table:
    """Computes all feature rows at once.

    Args:
        batches: rows of all pools, sorted by pool and day.
        spec: as-of days and how their rows are computed.
        market: `market_changes`; None without the features of MARKET.

    Returns:
        SCHEMA, CROSS_SECTION and, with prices, MARKET; in the order of the batches.
    """
    rows = pa.Table.from_batches(rows_of_pools(with_yesterday(spec))(batches), SCHEMA)
    first = pa.scalar(spec.first_day, pa.date32())
    # the day before the first only served the cross-section of yesterday
    complete = add_cross_section(rows).filter(pc.greater_equal(rows["date"], first))
    return add_market(complete, market) if market is not None else complete


def with_yesterday(spec: FeatureSpec) -> FeatureSpec:
    """Returns the spec from one day earlier on.

    The first day's rows need a yesterday too: a model's view of a day must not depend on which
    other days are requested.
    """
    return replace(spec, first_day=spec.first_day - dt.timedelta(days=1))


def rows_of_pools(spec: FeatureSpec) -> Callable[[Batches], Iterator[pa.RecordBatch]]:
    """Returns a function of rows sorted by pool and day, which yields batches of SCHEMA."""

    def compute(batches: Batches) -> Iterator[pa.RecordBatch]:
        # whole pools: a window must not end where a batch does
        for pools in iter_groups(batches, "pool_id"):
            yield from _rows(pool_history(pools, spec.as_of), spec)

    return compute


def _rows(history: PoolHistory, spec: FeatureSpec) -> Iterator[pa.RecordBatch]:
    columns = labelled_features(history, spec)
    first = (spec.first_day - dt.date(1970, 1, 1)).days
    # histories are dense: a day without both values is no row
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
