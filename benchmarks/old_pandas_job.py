"""The owner's pandas job by its known rules, which `compare` puts next to the product's metrics.
APY percent, TVL and prices USD, gas gwei, UTC days. Its rules differ from the product's:

- every pool has a row for each day from the first of all days to today, also before its first
snapshot and after an inactive pool's last one;
- a day with several snapshots stops the pool with an error of `reindex`;
- APY is carried without limit, TVL not at all;
- prices and gas are filled over the rows of all pools together, forward and then backward;
- today is computed as far as it has data.
"""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd
from psycopg2.extras import execute_values
from sqlalchemy import Engine

from benchmarks.pandas_way import GAS, PRICES, WINDOW_DAYS, read_rows
from database.schema.owner_tables import METRIC_COLUMNS

log = logging.getLogger(__name__)

PAGE_ROWS = 5000

INACTIVE = "SELECT pool_id FROM pools WHERE is_active IS FALSE"

MARKET = ("eth_open", "btc_open", "gas_price_gwei")


def old_metrics(
    engine: Engine, *, today: pd.Timestamp, leave_out_inactive: bool = False
) -> pd.DataFrame:
    """Compute the metrics.

    Args:
        engine: Database with the raw tables.
        today: Day of the run (midnight, without a zone).
        leave_out_inactive: Compute active pools only.

    Returns:
        pool_id, date and METRIC_COLUMNS.
    """
    rows = read_rows(engine)
    rows = rows[(rows["date"] >= "2018-01-01") & (rows["date"] <= today)]
    days = pd.date_range(rows["date"].min(), today, name="date")
    inactive = set(pd.read_sql(INACTIVE, engine)["pool_id"]) if leave_out_inactive else set()
    pools = []
    for pool, pool_rows in rows[~rows["pool_id"].isin(inactive)].groupby("pool_id"):
        try:
            daily = pool_rows.set_index("date")[["apy", "tvl"]].reindex(days)
        except ValueError as error:
            log.warning("pool %s: %s", pool, error)
            continue
        pools.append(_pool(daily).assign(pool_id=pool))
    table = pd.concat(pools).reset_index()
    table = table.merge(_market(engine), on="date", how="left")
    table[list(MARKET)] = table[list(MARKET)].ffill().bfill()
    return table[["pool_id", "date", *METRIC_COLUMNS]]


def _pool(daily: pd.DataFrame) -> pd.DataFrame:
    apy = daily["apy"].ffill()
    metrics = pd.DataFrame({"actual_apy": apy, "actual_tvl": daily["tvl"]})
    for number in WINDOW_DAYS:
        window = apy.rolling(number, min_periods=1)
        metrics[f"rolling_apy_{number}d"] = window.mean()
        metrics[f"stddev_apy_{number}d"] = window.std()
        metrics[f"stddev_apy_{number}d_delta"] = metrics[f"stddev_apy_{number}d"].diff()
    metrics["apy_delta_today_yesterday"] = apy.diff()
    return metrics.where(apy.notna() | daily["tvl"].notna(), None)


def _market(engine: Engine) -> pd.DataFrame:
    prices = pd.read_sql(PRICES, engine)
    prices["close"] = pd.to_numeric(
        prices["raw_json_data"].apply(lambda payload: payload["USD"]["close"]), errors="coerce"
    )
    prices["date"] = _day(prices["data_timestamp"])
    gas = pd.read_sql(GAS, engine, parse_dates=["date"]).set_index("date")["gas_price_gwei"]
    opens = {
        f"{symbol.lower()}_open": prices[prices["symbol"] == symbol]
        .groupby("date")["close"]
        .last()
        .shift(1)
        for symbol in ("ETH", "BTC")
    }
    return pd.DataFrame(opens | {"gas_price_gwei": gas}).rename_axis("date").reset_index()


def _day(moments: pd.Series[pd.Timestamp]) -> pd.Series[pd.Timestamp]:
    return pd.to_datetime(moments, utc=True).dt.tz_localize(None).dt.normalize()


def write_old_metrics(engine: Engine, table: str, rows: pd.DataFrame) -> None:
    """Insert the rows into a table with the columns of `old_metrics`."""
    names = ["pool_id", "date", *METRIC_COLUMNS]
    frame = rows[names].astype(object)
    values = frame.where(frame.notna(), None).values.tolist()
    connection: Any = engine.raw_connection()
    try:
        with connection.cursor() as cursor:
            statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES %s"
            execute_values(cursor, statement, values, page_size=PAGE_ROWS)
        connection.commit()
    finally:
        connection.close()
