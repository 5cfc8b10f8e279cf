"""Parses raw rows in Spark: texts become numbers, and each row gets its reason or warning.

Reads the columns of `data_processing.raw.history.select_rows_to_read`. APY in percent, TVL in USD.
Drops no raw row; a stored day that fails the checks is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from data_processing.checks.row_checks import (
    RowCheck,
    nan_to_null,
    reason_sql,
    spark_number,
    warning_sql,
)


def parse_raw_rows(rows: DataFrame, checks: Sequence[RowCheck]) -> DataFrame:
    """Convert texts to numbers and validate each row.

    Args:
        rows: id, pool_id, timestamp, snapshot, apy and tvl as text, not_in_pools, dropped,
            replaced.
        checks: row checks with severities.

    Returns:
        id, pool_id, timestamp, snapshot, apy (percent) and tvl (USD) as double, NULL if missing;
        reason, NULL for a row that may be used; warning, NULL or the check that is only reported.
    """
    parsed = (
        rows.withColumns({name: F.expr(nan_to_null(name)) for name in ("apy", "tvl")})
        .withColumns({f"{name}_value": F.expr(spark_number(name)) for name in ("apy", "tvl")})
        .select(
            F.col("id").cast("bigint").alias("id"),
            "pool_id",
            "timestamp",
            F.col("snapshot").cast("bigint").alias("snapshot"),
            F.col("apy_value").alias("apy"),
            F.col("tvl_value").alias("tvl"),
            F.expr(reason_sql(checks)).alias("reason"),
            F.expr(warning_sql(checks)).alias("warning"),
        )
    )
    # a row without an id is a stored day and no raw row: nothing has to be quarantined
    return parsed.where("id IS NOT NULL OR reason IS NULL")


def row_count_columns(checks: Sequence[RowCheck]) -> list[Column]:
    """Return aggregates over parsed rows: `read`, `accepted`, and one for each check.

    A `fail` check counts the rows that it rejects, a `warn` check the rows that pass with its
    warning. Rows without an id were not read from raw history and do not count.

    Args:
        checks: row checks with severities.
    """
    conditions = {
        check.name: (
            F.col("reason") == check.name
            if check.severity == "fail"
            else F.col("reason").isNull() & F.col("warning").eqNullSafe(check.name)
        )
        for check in checks
    }
    return [
        F.count("id").alias("read"),
        F.count_if(F.col("id").isNotNull() & F.col("reason").isNull()).alias("accepted"),
        *(F.count_if(condition).alias(name) for name, condition in conditions.items()),
    ]
