"""Market features: changes of ETH, BTC and gas prices, used if MARKET_FEATURES is set.

Reads one row a day of eth, btc (USD) and gas (gwei); returns a row a day with MARKET, log ratios
over 1 and 7 days. Imports no Spark.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forecasting.features.feature_names import MARKET, MARKET_SERIES, MARKET_SPANS

PRICES_SCHEMA = pa.schema(
    [("date", pa.date32()), *((name, pa.float64()) for name in MARKET_SERIES)]
)
MARKET_SCHEMA = pa.schema([("date", pa.date32()), *((name, pa.float32()) for name in MARKET)])


def market_changes(prices: pa.Table) -> pa.Table:
    """Computes MARKET of each day with a price.

    Args:
        prices: PRICES_SCHEMA, a row a day.

    Returns:
        MARKET_SCHEMA, float32, NaN where a day of the span has no price.
    """
    prices = prices.sort_by("date")
    day = prices["date"].cast(pa.int32()).to_numpy()
    changes = {}
    for series in MARKET_SERIES:
        price = prices[series].to_numpy().astype(np.float64)
        price = np.where(price > 0.0, price, np.nan)
        for span in MARKET_SPANS:
            before = pc.index_in(pa.array(day - span), pa.array(day))
            # the last position, no such day, is NaN
            position = before.fill_null(day.size).to_numpy()
            change = np.log(price / np.append(price, np.nan)[position])
            changes[f"{series}_change_{span}"] = change.astype(np.float32)
    return pa.table([prices["date"], *(changes[name] for name in MARKET)], schema=MARKET_SCHEMA)


def add_market(rows: pa.Table, market: pa.Table) -> pa.Table:
    """Adds the columns of MARKET, null on a day without prices.

    Args:
        rows: rows with `date`.
        market: MARKET_SCHEMA.
    """
    position = pc.index_in(rows["date"], market["date"].combine_chunks())
    position = position.fill_null(market.num_rows).to_numpy()
    for name in MARKET:
        values = np.append(market[name].to_numpy(), np.float32(np.nan))
        rows = rows.append_column(name, pa.array(values[position], from_pandas=True))
    return rows
