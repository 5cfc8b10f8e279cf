"""The owner's pandas job by its known rules, as a table: what `compare` puts beside our metrics.

In: the raw tables of a database, read by pandas. Out: rows of a table like `pool_daily_metrics`.
The rules are those by which that job differs from ours:

- every pool has a row for each day from the first of all days to today, before its own first
  snapshot and after an inactive pool's last one too;
- a day with several snapshots of a pool stops the pool with an error of `reindex`;
- APY is carried for ever, TVL not at all;
- prices and gas are filled over the rows of all pools together, forward and then backward;
- today is computed as far as it has come.

APY percent, TVL and prices USD, gas gwei, UTC days.
"""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd
from psycopg2.extras import execute_values
from sqlalchemy import Engine

from benchmarks.pandas_way import GAS, PRICES, WINDOW_DAYS, read_rows
from database.schema.tables import METRIC_COLUMNS

log = logging.getLogger(__name__)

PAGE_ROWS = 5000

INACTIVE = "SELECT pool_id FROM pools WHERE is_active IS FALSE"

MARKET = ("eth_open", "btc_open", "gas_price_gwei")


def old_metrics(
    engine: Engine, *, today: pd.Timestamp, leave_out_inactive: bool = False
) -> pd.DataFrame:
    """pool_id, date and METRIC_COLUMNS.

    Args: today is the day (midnight, without a zone) on which the job runs; leave_out_inactive
    computes active pools alone.
    """
    rows = read_rows(engine)
    rows = rows[(rows["date"] >= "2018-01-01") & (rows["date"] <= today)]
    days = pd.date_range(rows["date"].min(), today, name="date")
    inactive = set(pd.read_sql(INACTIVE, engine)["pool_id"]) if leave_out_inactive else set()
    pools = []
    for pool, own in rows[~rows["pool_id"].isin(inactive)].groupby("pool_id"):
        try:
            daily = own.set_index("date")[["apy", "tvl"]].reindex(days)
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
    made = pd.DataFrame({"actual_apy": apy, "actual_tvl": daily["tvl"]})
    for number in WINDOW_DAYS:
        window = apy.rolling(number, min_periods=1)
        made[f"rolling_apy_{number}d"] = window.mean()
        made[f"stddev_apy_{number}d"] = window.std()
        made[f"stddev_apy_{number}d_delta"] = made[f"stddev_apy_{number}d"].diff()
    made["apy_delta_today_yesterday"] = apy.diff()
    return made.where(apy.notna() | daily["tvl"].notna(), None)


def _market(engine: Engine) -> pd.DataFrame:
    prices = pd.read_sql(PRICES, engine)
    prices["close"] = pd.to_numeric(
        prices["raw_json_data"].apply(lambda document: document["USD"]["close"]), errors="coerce"
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
    """Insert the rows into `table`, which has the columns of `old_metrics`."""
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
