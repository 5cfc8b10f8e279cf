"""Cut the sample that the demo runs on from the real data: `python sample_data/make_sample.py
FOLDER` (SOURCE.md says what FOLDER holds).

In: pool history, pool descriptions, ETH and BTC daily prices, daily gas. Out, beside this file: the
same in Parquet for 72 pools and DAYS days up to LAST_DAY; units as `load` takes them (APY percent,
TVL and prices USD, gas gwei). The same input gives the same bytes. No value is changed, only rows
and columns are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent

LAST_DAY = date(2025, 10, 5)
"""The pull is of 2025-10-06, so that day is an intraday value and left out."""

DAYS = 330
MARKET_DAYS_BEFORE = 14

LARGE_CALM, VOLATILE, REWARDED, SHORT, GAPPY, DIRTY, ENDED = 26, 12, 12, 6, 8, 4, 4
"""How many pools of each behaviour, in this order of choice; a pool is taken once."""


def make_sample(source: Path, target: Path) -> None:
    """Write the four files of `sample_data.SAMPLE_FILES` into `target`."""
    history = _history(source)
    chosen = choose_pools(history)
    _write(
        target / "pool_history.parquet",
        history[history.pool_id.isin(chosen)]
        .drop(columns="day")
        .sort_values(["pool_id", "timestamp"]),
    )
    _write(target / "pools.parquet", _pools(source, chosen))
    _write(target / "prices.parquet", _prices(source))
    _write(target / "gas.parquet", _gas(source))


def choose_pools(history: pd.DataFrame) -> list[str]:
    """Pool ids of the sample, from their whole behaviour in the window: by size, spread, rewards,
    life and gaps, ties broken by id.
    """
    by_pool = history.groupby("pool_id")
    facts = pd.DataFrame(
        {
            "days": by_pool.day.nunique(),
            "last": by_pool.day.max(),
            "span": (by_pool.day.max() - by_pool.day.min()).dt.days + 1,
            "tvl": by_pool.tvl_usd.median(),
            "apy": by_pool.apy.median(),
            "deviation": by_pool.apy.std(),
            "highest": by_pool.apy.max(),
            "rewarded": by_pool.apy_reward.apply(lambda values: (values > 0).mean()),
        }
    ).sort_index()
    facts["relative"] = facts.deviation / (facts.apy + 1)
    facts["gaps"] = facts["span"] - facts.days
    long_lived = facts.days >= 60
    alive = facts["last"] == pd.Timestamp(LAST_DAY)
    chosen: list[str] = []

    def take(number: int, candidates: pd.Series[bool], by: str, *, smallest: bool = False) -> None:
        rest = facts[candidates & ~facts.index.isin(chosen)].sort_values(
            by, ascending=smallest, kind="stable"
        )
        chosen.extend(rest.index[:number])

    take(LARGE_CALM, long_lived & alive & (facts.apy < 40) & (facts.relative < 1), "tvl")
    take(VOLATILE, long_lived & alive & (facts.tvl > 100_000) & (facts.highest < 5_000), "relative")
    take(REWARDED, long_lived & alive & (facts.rewarded > 0.9), "tvl")
    take(SHORT, alive, "days", smallest=True)
    take(GAPPY, long_lived & alive, "gaps")
    take(DIRTY, facts.highest > 0, "highest")
    take(ENDED, ~alive, "days")
    return chosen


def _history(source: Path) -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(source / "defillama_pool_history.parquet").to_pandas()
    frame["timestamp"] = pd.to_datetime(frame.timestamp, utc=True, format="ISO8601")
    frame["day"] = frame.timestamp.dt.floor("D").dt.tz_localize(None)
    return frame[
        (frame.day <= pd.Timestamp(LAST_DAY))
        & (frame.day > pd.Timestamp(LAST_DAY - timedelta(days=DAYS)))
    ]


def _pools(source: Path, chosen: Iterable[str]) -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(source / "defillama_pools.parquet").to_pandas()
    frame["timestamp"] = pd.to_datetime(frame.timestamp, utc=True, format="ISO8601")
    columns = [
        "pool",
        "protocol_slug",
        "chain",
        "symbol",
        "underlying_tokens",
        "timestamp",
        "tvl_usd",
        "apy",
    ]
    return frame.loc[frame.pool.isin(list(chosen)), columns].sort_values("pool")


def _prices(source: Path) -> pd.DataFrame:
    frames = [
        pd.read_csv(source / f"{symbol}USDT_1d.csv").assign(symbol=symbol)
        for symbol in ("BTC", "ETH")
    ]
    frame = pd.concat(frames, ignore_index=True)
    frame["timestamp"] = pd.to_datetime(frame.timestamp, utc=True)
    return frame.loc[
        _market_days(frame.timestamp),
        ["timestamp", "symbol", "open", "high", "low", "close", "volume"],
    ]


def _gas(source: Path) -> pd.DataFrame:
    frame = pd.read_csv(source / "AvgGasPrice.csv")
    frame["timestamp"] = pd.to_datetime(frame.UnixTimeStamp, unit="s", utc=True)
    frame["gas_gwei"] = frame["Value (Wei)"] / 1e9
    return frame.loc[_market_days(frame.timestamp), ["timestamp", "gas_gwei"]]


def _market_days(days: pd.Series[pd.Timestamp]) -> pd.Series[bool]:
    first = LAST_DAY - timedelta(days=DAYS + MARKET_DAYS_BEFORE)
    return (days > _midnight(first)) & (days <= _midnight(LAST_DAY))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _write(path: Path, frame: pd.DataFrame) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    microseconds = pa.schema(
        [
            (
                field.with_type(pa.timestamp("us", tz="UTC"))
                if pa.types.is_timestamp(field.type)
                else field
            )
            for field in table.schema
        ]
    )
    pq.write_table(
        table.cast(microseconds), path, compression="zstd", compression_level=19, store_schema=False
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python sample_data/make_sample.py FOLDER_WITH_THE_REAL_DATA")
    make_sample(Path(sys.argv[1]), HERE)
