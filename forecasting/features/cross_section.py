"""What the other pools did: a day's moves over all pools and over the pool's group, today and the
day before.

In: rows of `pool_features` (date, pool_group, apy_move_0 and tvl_move_0 in scales). Out: the rows
with CROSS_SECTION. Sums are of whole ticks, so they do not depend on the order in which Spark meets
the rows: a second run gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

SCOPES = {"all": ("date",), "group": ("date", "known_group")}
STATISTICS = ("move_mean", "move_median", "move_dispersion", "up_share", "tvl_move_mean")
CROSS_SECTION = tuple(
    f"{scope}_{name}{day}" for scope in SCOPES for name in STATISTICS for day in ("", "_yesterday")
)

TICKS = 10_000
"""Ticks of a scale; the squares of a million moves of MOVE_LIMIT scales sum up to a thirtieth of a
64-bit integer.
"""


def add_cross_section(rows: DataFrame) -> DataFrame:
    """A pool without a group is in the group of those without one."""
    # a join finds no partner for null
    rows = rows.withColumn("known_group", F.coalesce("pool_group", F.lit("")))
    # the small frames find each other first: each join of the wide rows costs seconds, most of them
    # to compile it
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
    known, total, squares = F.count(move), F.sum(ticks), F.sum(ticks * ticks)
    variance = (squares - total * (total / known)) / F.when(known > 1, known - 1)
    statistics = {
        "move_mean": total / known / TICKS,
        "move_median": F.percentile(move, 0.5),
        "move_dispersion": F.sqrt(F.when(variance < 0.0, 0.0).otherwise(variance)) / TICKS,
        "up_share": F.sum((move > 0).cast("int")) / known,
        "tvl_move_mean": F.sum(tvl_ticks) / F.count(tvl_ticks) / TICKS,
    }
    return rows.groupBy(*keys).agg(
        *(value.cast("float").alias(f"{scope}_{name}") for name, value in statistics.items())
    )


def _ticks(name: str) -> Column:
    return F.round(F.col(name).cast("double") * TICKS).cast("long")
