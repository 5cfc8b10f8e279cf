"""Raw history for the benchmark, generated straight into PostgreSQL by COPY.

Realistic dirt: days without a row, several rows a day, missing values, NaN and infinity as text, negative TVL, spikes. APY percent, TVL USD, UTC.
"""

from __future__ import annotations

import io
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
from sqlalchemy import Engine, text

ROWS_OF_A_DAY = [0.03, 0.96, 0.01]
"""Share of a pool's days with no row, one and two: 2,000 pools and 365 days make 715 thousand rows."""


def raw_rows(pools: int, first_day: date, days: int, seed: int) -> pl.DataFrame:
    """pool_id, timestamp (text), raw_json_data (text), in order of time as an ingest would append them."""
    random = np.random.default_rng(seed)
    count = random.choice([0, 1, 2], size=(days, pools), p=ROWS_OF_A_DAY)
    day, pool = np.nonzero(count)
    repeats = count[day, pool]
    day, pool = np.repeat(day, repeats), np.repeat(pool, repeats)
    rows = day.size
    level = np.exp(random.normal(1.5, 1.2, pools))[pool] * np.exp(random.normal(0, 0.2, rows))
    apy = np.where(random.random(rows) < 0.0005, level * 10_000, level)
    tvl = np.exp(random.normal(13, 2, pools))[pool] * np.exp(random.normal(0, 0.05, rows))
    apy_text = _dirty(np.char.mod("%.5f", apy), random, {"null": 0.01, '"NaN"': 0.001, '"Infinity"': 0.0003, '"n/a"': 0.0002})
    tvl_text = _dirty(np.char.mod("%.0f", tvl), random, {"null": 0.005, "-1": 0.0003})
    frame = pl.DataFrame({"pool": pool, "day": day, "second": random.integers(0, 86_400, rows), "apy": apy_text, "tvl": tvl_text})
    return frame.sort("day", "second").select(
        pl.format("00000000-0000-4000-8000-{}", pl.col("pool").cast(pl.String).str.zfill(12)).alias("pool_id"),
        (pl.lit(first_day).cast(pl.Datetime) + pl.duration(days="day", seconds="second")).dt.strftime("%Y-%m-%d %H:%M:%S+00").alias("timestamp"),
        pl.format(
            '{"apy": {}, "tvlUsd": {}, "apyBase": {}, "apyReward": null, "il7d": null}'.replace('{"', '{}"').replace("null}", "null{}"), *_braced()
        ).alias("raw_json_data"),
    )


def _braced() -> list[pl.Expr]:
    """`pl.format` has no way to write a brace: they go in as values."""
    return [pl.lit("{"), pl.col("apy"), pl.col("tvl"), pl.col("apy"), pl.lit("}")]


Texts = npt.NDArray[np.str_]


def _dirty(values: Texts, random: np.random.Generator, shares: dict[str, float]) -> Texts:
    drawn = random.choice(np.array(["", *shares]), size=values.size, p=[1 - sum(shares.values()), *shares.values()])
    return np.where(drawn == "", values, drawn)


def copy_rows(engine: Engine, rows: pl.DataFrame) -> None:
    """Append by COPY."""
    buffer = io.BytesIO()
    rows.write_csv(buffer, include_header=False)
    buffer.seek(0)
    connection = engine.raw_connection()
    try:
        connection.cursor().copy_expert("COPY raw_defillama_pool_history (pool_id, timestamp, raw_json_data) FROM STDIN (FORMAT csv)", buffer)
        connection.commit()
    finally:
        connection.close()


def add_market(engine: Engine, first_day: date, days: int) -> None:
    """A close of ETH and BTC and a gas price for each day."""
    closes = "jsonb_build_object('USD', jsonb_build_object('close', level + 10 * extract(doy FROM d)))"
    series = "generate_series(CAST(:first AS timestamptz), CAST(:last AS timestamptz), interval '1 day') AS d"
    bounds = {"first": f"{first_day - timedelta(days=30)}T23:59:59Z", "last": f"{first_day + timedelta(days=days)}T00:00:00Z"}
    symbols = "(VALUES ('ETH', 3000), ('BTC', 60000)) AS s (symbol, level)"
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO raw_coinmarketcap_ohlcv SELECT d, symbol, {closes} FROM {series} CROSS JOIN {symbols}"), bounds)
        connection.execute(text(f"INSERT INTO gas_fees_daily SELECT d::date, 5 + extract(day FROM d) FROM {series}"), bounds)


def vacuum(engine: Engine) -> None:
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
