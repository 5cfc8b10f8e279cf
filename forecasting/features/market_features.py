"""Market features: changes of ETH, BTC and gas prices, used if MARKET_FEATURES is set.

Reads feature rows with `date` and one row a day of eth, btc (USD) and gas (gwei); returns the rows
with MARKET, log ratios over 1 and 7 days.
"""

from __future__ import annotations

from itertools import product

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from forecasting.features.feature_names import MARKET_SERIES, MARKET_SPANS


def add_market(rows: DataFrame, market: DataFrame) -> DataFrame:
    """Adds the columns of MARKET (float32), null where a day of the span has no price."""
    days = market.select(
        F.unix_date("date").alias("day"),
        "date",
        *(F.col(name).cast("double").alias(name) for name in MARKET_SERIES),
    )
    joined = days
    for span in MARKET_SPANS:
        before = days.select(
            (F.col("day") + span).alias("day"),
            *(F.col(name).alias(f"{name}_{span}") for name in MARKET_SERIES),
        )
        joined = joined.join(F.broadcast(before), on="day", how="left")
    changes = [
        F.log(F.col(name) / F.col(f"{name}_{span}")).cast("float").alias(f"{name}_change_{span}")
        for name, span in product(MARKET_SERIES, MARKET_SPANS)
    ]
    return rows.join(F.broadcast(joined.select("date", *changes)), on="date", how="left")
