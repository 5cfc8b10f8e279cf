"""Cut the sample that the demo runs on from the real data: `python sample_data/make_sample.py
FOLDER` (SOURCE.md says what FOLDER holds).

In: pool history, pool descriptions, ETH and BTC daily prices, daily gas. Out, next to this file:
the same in Parquet for 72 pools and DAYS days up to LAST_DAY; units as `load` takes them (APY
percent, TVL and prices USD, gas gwei). The same input gives the same bytes. No value is changed,
only rows and columns are left out.
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

LAST_DAY = date(2025, 9, 29)
"""The last day on which the source has its Curve and Uniswap pools: it has 473 pools that day."""

DAYS = 330
MARKET_DAYS_BEFORE = 14

FAMILIAR_SYMBOLS = """
AAVE AERO ARB CAKE CBBTC CBETH CRV DAI ETH EURC EZETH FRAX GHO LBTC LINK PENDLE RETH RSETH STETH
SUSDE TBTC UNI USDBC USDC USDE USDS USDT USD₮0 WBTC WEETH WETH WSTETH
"""
FAMILIAR_TOKENS = frozenset(FAMILIAR_SYMBOLS.split())

LOWEST_APY, HIGHEST_APY = 0.01, 60.0
"""Percent, on the last day. A lower APY is printed as 0.00, a higher one is rarely a yield."""

LONG_DAYS = 100
PER_PROTOCOL_AND_CHAIN, YOUNG, NEW, GAPPY, SPIKED, ENDED = 16, 3, 1, 2, 2, 1
"""How many pools of each kind, in this order of choice; a pool is taken once."""


def make_sample(source: Path, target: Path) -> None:
    """Write the four files of `sample_data.SAMPLE_FILES` into `target`."""
    history = _history(source)
    chosen = choose_pools(history, _descriptions(source))
    _write(
        target / "pool_history.parquet",
        history[history.pool_id.isin(chosen)]
        .drop(columns="day")
        .sort_values(["pool_id", "timestamp"]),
    )
    _write(target / "pools.parquet", _pools(source, chosen))
    _write(target / "prices.parquet", _prices(source))
    _write(target / "gas.parquet", _gas(source))


def choose_pools(history: pd.DataFrame, pools: pd.DataFrame) -> list[str]:
    """Pool ids of the sample, by the days and values of the window; ties are broken by id.

    Args:
        history: rows of the window: pool_id, day, tvl_usd (USD), apy (percent).
        pools: rows with pool, protocol_slug, chain, symbol.
    """
    by_pool = history.sort_values("timestamp").groupby("pool_id")
    facts = pd.DataFrame(
        {
            "days": by_pool.day.nunique(),
            "first": by_pool.day.min(),
            "last": by_pool.day.max(),
            "tvl": by_pool.tvl_usd.last(),
            "apy": by_pool.apy.last(),
            "highest": by_pool.apy.max(),
        }
    )
    facts = facts.join(pools.set_index("pool")).sort_index()
    facts["gaps"] = (facts["last"] - facts["first"]).dt.days + 1 - facts.days
    alive = facts["last"] == pd.Timestamp(LAST_DAY)
    familiar = (
        alive
        & facts.symbol.str.split("-").map(FAMILIAR_TOKENS.issuperset)
        & facts.apy.between(LOWEST_APY, HIGHEST_APY)
    )
    long = facts.days >= LONG_DAYS
    largest = facts[familiar & long].sort_values("tvl", ascending=False, kind="stable")
    chosen = list(largest.groupby(["protocol_slug", "chain"]).head(PER_PROTOCOL_AND_CHAIN).index)

    def take(number: int, candidates: pd.Series[bool], by: str, *, smallest: bool = False) -> None:
        rest = facts[candidates & ~facts.index.isin(chosen)].sort_values(
            by, ascending=smallest, kind="stable"
        )
        chosen.extend(rest.index[:number])

    take(YOUNG, familiar & ~long, "tvl")
    take(NEW, alive, "days", smallest=True)
    take(GAPPY, alive & long, "gaps")
    take(SPIKED, alive, "highest")
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


def _descriptions(source: Path) -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(
        source / "defillama_pools.parquet", columns=["pool", "protocol_slug", "chain", "symbol"]
    ).to_pandas()
    return frame


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
        table.cast(microseconds),
        path,
        compression="zstd",
        compression_level=19,
        # a dictionary of nearly distinct numbers hides their repetitions from zstd
        use_dictionary=["pool_id"],
        store_schema=False,
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python sample_data/make_sample.py FOLDER_WITH_THE_REAL_DATA")
    make_sample(Path(sys.argv[1]), HERE)
