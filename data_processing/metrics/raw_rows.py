"""Raw rows in Spark: texts become numbers, and each row gets its reason or warning.

Reads the columns that `data_processing.raw.history.rows_to_read` selects; APY is in percent, TVL in
USD. No row is dropped but a stored day that fails the checks.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from data_processing.checks.row_checks import (
    RowCheck,
    missing_is_null,
    reason,
    spark_number,
    warning,
)


def parse_raw_rows(rows: DataFrame, checks: Sequence[RowCheck]) -> DataFrame:
    """Text to numbers: (id, pool_id, timestamp, snapshot, apy text, tvl text, not_in_pools,
    dropped, replaced) -> (id, pool_id, timestamp, snapshot, apy, tvl, reason, warning), row for
    row, but for stored days that must not be used by now: they are no raw rows.

    apy is percent, tvl USD, both double and NULL where missing; reason is NULL for a row that may
    be used, warning names what is only reported.
    """
    parsed = (
        rows.withColumns({name: F.expr(missing_is_null(name)) for name in ("apy", "tvl")})
        .withColumns({f"{name}_value": F.expr(spark_number(name)) for name in ("apy", "tvl")})
        .select(
            F.col("id").cast("bigint").alias("id"),
            "pool_id",
            "timestamp",
            F.col("snapshot").cast("bigint").alias("snapshot"),
            F.col("apy_value").alias("apy"),
            F.col("tvl_value").alias("tvl"),
            F.expr(reason(checks)).alias("reason"),
            F.expr(warning(checks)).alias("warning"),
        )
    )
    return parsed.where("id IS NOT NULL OR reason IS NULL")
