"""Cross-section features: moves of all pools and of the pool's group, today and yesterday.

Reads rows with date, pool_group, apy_move_0 and tvl_move_0 (in scales); returns the rows with
CROSS_SECTION.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from forecasting.features.feature_names import SCOPES, STATISTICS

# Ticks of a scale. Sums of whole ticks do not depend on the order of Spark's rows, so a second run
# gives the same bits. The squares of a million moves of MOVE_LIMIT scales need a thirtieth of a
# 64-bit integer.
TICKS = 10_000


def add_cross_section(rows: DataFrame) -> DataFrame:
    """Adds the columns of CROSS_SECTION; pools without a group form one group.

    Returns:
        The rows of `rows` with CROSS_SECTION (float32, null where no pool has a move).
    """
    # a join matches no null
    rows = rows.withColumn("known_group", F.coalesce("pool_group", F.lit("")))
    # join the small frames first: each join of the wide rows costs seconds, mostly to compile it
    days = rows.select(*SCOPES["group"]).distinct()
    for scope, keys in SCOPES.items():
        today = _statistics(rows, scope, keys)
        yesterday = today.withColumn("date", F.date_add("date", 1)).withColumnsRenamed(
            {f"{scope}_{name}": f"{scope}_{name}_yesterday" for name in STATISTICS}
        )
        for day in (today, yesterday):
            days = days.join(F.broadcast(day), on=list(keys), how="left")
    return rows.join(F.broadcast(days), on=list(SCOPES["group"]), how="left").drop("known_group")


def _statistics(rows: DataFrame, scope: str, keys: Sequence[str]) -> DataFrame:
    move, ticks, tvl_ticks = F.col("apy_move_0"), _ticks("apy_move_0"), _ticks("tvl_move_0")
    count, total, squares = F.count(move), F.sum(ticks), F.sum(ticks * ticks)
    variance = (squares - total * (total / count)) / F.when(count > 1, count - 1)
    statistics = {
        "move_mean": total / count / TICKS,
        "move_median": F.percentile(move, 0.5),
        "move_dispersion": F.sqrt(F.when(variance < 0.0, 0.0).otherwise(variance)) / TICKS,
        "up_share": F.sum((move > 0).cast("int")) / count,
        "tvl_move_mean": F.sum(tvl_ticks) / F.count(tvl_ticks) / TICKS,
    }
    return rows.groupBy(*keys).agg(
        *(value.cast("float").alias(f"{scope}_{name}") for name, value in statistics.items())
    )


def _ticks(name: str) -> Column:
    return F.round(F.col(name).cast("double") * TICKS).cast("long")
