"""Feature rows in Spark, by the functions of `feature_rows` and `cross_section`.

Reads the metrics of `metrics_query`; returns ROW_COLUMNS and the features (float32, null where
unknown). Pools are computed in tasks, a batch of pools at a time; so are days of the cross-section.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from forecasting.features import cross_section
from forecasting.features.feature_rows import SCHEMA, rows_of_pools, with_yesterday
from forecasting.features.labelled_features import FeatureSpec
from spark.arrow_groups import Batches, iter_groups


@contextmanager
def feature_rows(
    metrics: DataFrame, spec: FeatureSpec, market: pa.Table | None = None
) -> Iterator[DataFrame]:
    """Yields ROW_COLUMNS and the features; the frame is valid inside the block only.

    Args:
        metrics: rows of `metrics_query`.
        market: `market_changes`; adds the features of MARKET.
    """
    # one shuffle brings each pool's days together; window functions would evaluate a frame of 90
    # rows anew for each row and statistic, and SQL has no exponential mean
    pools = metrics.repartition("pool_id").sortWithinPartitions("pool_id", "date")
    # persisted because the cross-section is computed from the very rows that it is joined to
    rows = pools.mapInArrow(
        rows_of_pools(with_yesterday(spec)), from_arrow_schema(SCHEMA)
    ).persist()
    try:
        complete = _with_cross_section(rows).where(F.col("date") >= F.lit(spec.first_day))
        if market is not None:
            complete = complete.join(F.broadcast(_frame(rows, market)), on="date", how="left")
        yield complete
    finally:
        rows.unpersist()


def _with_cross_section(rows: DataFrame) -> DataFrame:
    by_day = rows.select(*cross_section.INPUTS).repartition("date").sortWithinPartitions("date")
    statistics = by_day.mapInArrow(_statistics_of_days, from_arrow_schema(cross_section.DAY_SCHEMA))
    # a row for each day and group
    days = pa.Table.from_pandas(
        statistics.toPandas(), cross_section.DAY_SCHEMA, preserve_index=False
    )
    small = F.broadcast(_frame(rows, cross_section.with_yesterday(days)))
    # a join matches no null
    keyed = rows.withColumn("known_group", F.coalesce("pool_group", F.lit("")))
    return keyed.join(small, on=["date", "known_group"], how="left").drop("known_group")


def _statistics_of_days(batches: Batches) -> Iterator[pa.RecordBatch]:
    for days in iter_groups(batches, "date"):
        yield from cross_section.day_statistics(days).to_batches()


def _frame(rows: DataFrame, table: pa.Table) -> DataFrame:
    """The table in the session of `rows`; NaN becomes null."""
    return rows.sparkSession.createDataFrame(table.to_pandas(), from_arrow_schema(table.schema))
