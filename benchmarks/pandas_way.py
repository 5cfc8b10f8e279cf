"""Metrics as common pandas code computes them, and corrections (`FIXES`) that turn them into the
product's one by one: a loop over pools, a daily reindex with unlimited forward fill, `rolling(7,
min_periods=1)`, prices shifted by a row. APY percent, TVL and prices USD, gas gwei, UTC days.
Writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sqlalchemy import Engine

from benchmarks.peer_rules import MAX_FILL
from database.schema.owner_tables import METRIC_COLUMNS

RAW = (
    "SELECT id, pool_id, timestamp, raw_json_data FROM raw_defillama_pool_history ORDER BY pool_id,"
    " timestamp"
)
PRICES = (
    "SELECT data_timestamp, symbol, raw_json_data FROM raw_coinmarketcap_ohlcv ORDER BY"
    " data_timestamp"
)
GAS = "SELECT date, actual_avg_gas_gwei::float8 AS gas_price_gwei FROM gas_fees_daily ORDER BY date"

WINDOW_DAYS = (7, 30)

FIXES = {
    "ties by id": (
        "rows of one pool and the same instant come in any order, the product takes the one"
        " inserted last"
    ),
    "last row": "`last()` takes a day's last value that is there, the product its last snapshot",
    "bounded carry": "`ffill()` fills for ever, the product at most max_fill_days days",
    "price of the day before": (
        "`shift(1)` takes the close of the row before, which is not the latest before the day where"
        " a day has no price"
    ),
    "nothing from the future": "`bfill()` fills the days before the first price or gas value",
    "each window on its own": (
        "pandas adds to and takes from one running sum, which drifts after a spike"
    ),
}
"""Deviations of the common code, in the order in which they are corrected."""

Floats = npt.NDArray[np.float64]
Fixes = Collection[str]


def read_rows(engine: Engine) -> pd.DataFrame:
    """Return id, pool_id, timestamp, date, apy, tvl. Anything but a finite number is NaN, because
    the table cannot store infinity.
    """
    rows = pd.read_sql(RAW, engine)
    for name, key in (("apy", "apy"), ("tvl", "tvlUsd")):
        values = rows["raw_json_data"].apply(
            lambda payload, key=key: payload.get(key) if isinstance(payload, dict) else None
        )
        rows[name] = (
            pd.to_numeric(values, errors="coerce").astype(float).replace([np.inf, -np.inf], np.nan)
        )
    rows["date"] = _day(rows["timestamp"])
    return rows.drop(columns="raw_json_data")


def _day(moments: pd.Series[Any]) -> pd.Series[Any]:
    return pd.to_datetime(moments, utc=True).dt.tz_localize(None).dt.normalize()


def read_market(
    engine: Engine, first: pd.Timestamp, last: pd.Timestamp, fixes: Fixes = ()
) -> pd.DataFrame:
    """Return eth_open, btc_open, gas_price_gwei of each day from `first` to `last`, the index."""
    days = pd.date_range(first, last, name="date")
    prices = pd.read_sql(PRICES, engine)
    prices["close"] = pd.to_numeric(
        prices["raw_json_data"].apply(lambda payload: payload["USD"]["close"]), errors="coerce"
    )
    prices["date"] = _day(prices["data_timestamp"])
    gas = pd.read_sql(GAS, engine, parse_dates=["date"]).set_index("date")
    columns = {
        f"{symbol.lower()}_open": _opens(prices[prices["symbol"] == symbol], last, fixes)
        for symbol in ("ETH", "BTC")
    }
    columns["gas_price_gwei"] = gas["gas_price_gwei"]
    filled = {name: _filled(values, days, fixes) for name, values in columns.items()}
    return pd.DataFrame(filled, index=days)


def _opens(prices: pd.DataFrame, last: pd.Timestamp, fixes: Fixes) -> pd.Series[Any]:
    """Return a day's opening price: the close of the row before."""
    closes = prices.groupby("date")["close"].last()
    if "price of the day before" in fixes:
        closes = closes.dropna()
        return closes.set_axis(closes.index + pd.Timedelta(days=1))
    if not closes.empty and closes.index.max() < last:
        closes = closes.reindex(closes.index.union(pd.DatetimeIndex([last])))
    return closes.shift(1)


def _filled(values: pd.Series[Any], days: pd.DatetimeIndex, fixes: Fixes) -> pd.Series[Any]:
    """Reindex to every day. A missing day takes the value before it, the first days the
    first value.
    """
    forward_filled = values.reindex(values.index.union(days)).ffill()
    return (
        forward_filled if "nothing from the future" in fixes else forward_filled.bfill()
    ).reindex(days)


def pool_days(
    rows: pd.DataFrame, newest: pd.Timestamp, market: pd.DataFrame, fixes: Fixes = ()
) -> pd.DataFrame:
    """Return one pool's days from its first row to `newest`, with METRIC_COLUMNS. Rows must be in
    order of time.
    """
    ordered = rows.sort_values(["timestamp", "id"]) if "ties by id" in fixes else rows
    by_date = ordered.groupby("date")[["apy", "tvl"]]
    daily = (
        by_date.tail(1).set_index(ordered["date"].loc[by_date.tail(1).index])
        if "last row" in fixes
        else by_date.last()
    )
    limit = MAX_FILL if "bounded carry" in fixes else None
    days = daily.reindex(pd.date_range(daily.index.min(), newest, name="date")).ffill(limit=limit)
    days = days.rename(columns={"apy": "actual_apy", "tvl": "actual_tvl"})
    apy = days["actual_apy"]
    for n in WINDOW_DAYS:
        if "each window on its own" in fixes:
            days[f"rolling_apy_{n}d"], days[f"stddev_apy_{n}d"] = windows(apy.to_numpy(), n)
        else:
            days[f"rolling_apy_{n}d"] = apy.rolling(n, min_periods=1).mean()
            days[f"stddev_apy_{n}d"] = apy.rolling(n, min_periods=1).std()
        days[f"stddev_apy_{n}d_delta"] = days[f"stddev_apy_{n}d"].diff()
    days["apy_delta_today_yesterday"] = apy.diff()
    return days.join(market)[list(METRIC_COLUMNS)]


def windows(values: Floats, days: int) -> tuple[Floats, Floats]:
    """Return mean and sample standard deviation of the window that ends with each day, from that
    window's values only; NaN if there are too few.
    """
    padded = np.lib.stride_tricks.sliding_window_view(
        np.concatenate([np.full(days - 1, np.nan), values]), days
    )
    present = ~np.isnan(padded)
    count = present.sum(axis=1)
    mean = np.divide(
        np.where(present, padded, 0).sum(axis=1),
        count,
        out=np.full(count.size, np.nan),
        where=count > 0,
    )
    squares = np.where(present, padded - mean[:, None], 0) ** 2
    variance = np.divide(
        squares.sum(axis=1), count - 1, out=np.full(count.size, np.nan), where=count > 1
    )
    return mean, np.sqrt(variance)
