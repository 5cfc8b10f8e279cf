"""Generated raw history, written to PostgreSQL by COPY, some days at a time. Includes missing days,
pauses, several rows a day, missing values, NaN and infinity as text, negative TVL, and spikes. APY
percent, TVL USD, UTC. The same arguments give the same rows.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl
from sqlalchemy import Engine, text

ROWS_OF_A_DAY = [0.029, 0.96, 0.011]
"""Shares of a pool's days with no row, one and two: 2,000 pools and 365 days make 715
thousand rows.
"""

PAUSED_SHARE, PAUSE_DAYS = 0.05, (8, 41)
"""Share of pools with one pause that is longer than the carry limit, and its length in days,
half-open.
"""

CHUNK_ROWS = 250_000
"""Rows of one COPY, about 50 MB of text."""

LATE_DAYS, LATE_SHARE = 60, 0.01
"""Late corrections: one in a hundred pool-days of the newest 60 days gets a later snapshot."""

BAD_APY = {"null": 0.01, '"NaN"': 0.001, '"Infinity"': 0.0003, '"n/a"': 0.0002}
BAD_TVL = {"null": 0.005, "-1": 0.0003}
SPIKES = 0.0005

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Say = Callable[[str], None]


@dataclass(frozen=True)
class History:
    """`days` complete days of `pools` pools, and one more day, yesterday, that arrives later."""

    pools: int
    days: int
    today: date
    seed: int = 1

    @classmethod
    def until_today(cls, pools: int, days: int) -> History:
        return cls(pools, days, datetime.now(UTC).date())

    @property
    def first_day(self) -> date:
        return self.today - timedelta(days=self.days + 1)

    @cached_property
    def _levels(self) -> tuple[Floats, Floats]:
        random = np.random.default_rng(self.seed)
        return np.exp(random.normal(1.5, 1.2, self.pools)), np.exp(random.normal(13, 2, self.pools))

    @cached_property
    def _pauses(self) -> tuple[Integers, Integers]:
        """Return first day and day after the last of each pool's pause; equal for a pool
        without one.
        """
        random = np.random.default_rng([self.seed, self.pools, self.days])
        first = random.integers(0, self.days, self.pools)
        return first, first + np.where(
            random.random(self.pools) < PAUSED_SHARE, random.integers(*PAUSE_DAYS, self.pools), 0
        )

    def rows_of_day(self, number: int) -> pl.DataFrame:
        """Return pool_id, timestamp (text) and raw_json_data (text) of a day, in order of time as
        ingested.
        """
        random = np.random.default_rng([self.seed, number])
        paused_from, paused_until = self._pauses
        reports = (number < paused_from) | (number >= paused_until)
        pool = np.repeat(
            np.arange(self.pools), random.choice(3, size=self.pools, p=ROWS_OF_A_DAY) * reports
        )
        apy_levels, tvl_levels = self._levels
        apy = (
            apy_levels[pool]
            * np.exp(random.normal(0, 0.2, pool.size))
            * np.where(random.random(pool.size) < SPIKES, 10_000, 1)
        )
        tvl = tvl_levels[pool] * np.exp(random.normal(0, 0.05, pool.size))
        texts = _texts(apy, tvl).with_columns(
            _dirty("apy", random.random(pool.size), BAD_APY),
            _dirty("tvl", random.random(pool.size), BAD_TVL),
        )
        return self._rows(
            pool, np.full(pool.size, number), random.integers(0, 86_400, pool.size), texts
        )

    def chunks(self) -> Iterator[pl.DataFrame]:
        """Return all days but the later one, whole days at a time."""
        waiting: list[pl.DataFrame] = []
        for number in range(self.days):
            waiting.append(self.rows_of_day(number))
            if sum(rows.height for rows in waiting) >= CHUNK_ROWS:
                yield pl.concat(waiting)
                waiting = []
        if waiting:
            yield pl.concat(waiting)

    def new_day(self) -> pl.DataFrame:
        return self.rows_of_day(self.days)

    def corrections(self) -> pl.DataFrame:
        """Return a later snapshot with other values for one in a hundred pool-days of the newest
        `LATE_DAYS`.
        """
        random = np.random.default_rng([self.seed, self.days, LATE_DAYS])
        late = min(LATE_DAYS, self.days)
        back, pool = np.nonzero(random.random((late, self.pools)) < LATE_SHARE)
        apy_levels, tvl_levels = self._levels
        texts = _texts(
            apy_levels[pool] * np.exp(random.normal(0, 0.2, pool.size)), tvl_levels[pool]
        )
        return self._rows(pool, self.days - late + back, np.full(pool.size, 86_400), texts)

    def _rows(
        self, pool: Integers, day: Integers, second: Integers, texts: pl.DataFrame
    ) -> pl.DataFrame:
        """Format rows. Second 86,400 is the last millisecond of the day, after all other
        snapshots.
        """
        moment = pl.lit(self.first_day).cast(pl.Datetime("ms")) + pl.duration(
            days="day", milliseconds=(pl.col("second") * 1000).clip(0, 86_399_999)
        )
        frame = texts.with_columns(
            pool=pl.Series(pool), day=pl.Series(day), second=pl.Series(second)
        ).sort("day", "second", "pool")
        prefix, between, apy_base, suffix = (
            pl.lit(fragment)
            for fragment in (
                '{"apy": ',
                ', "tvlUsd": ',
                ', "apyBase": ',
                ', "apyReward": null, "il7d": null}',
            )
        )
        return frame.select(
            pl.format(
                "00000000-0000-4000-8000-{}", pl.col("pool").cast(pl.String).str.zfill(12)
            ).alias("pool_id"),
            moment.dt.strftime("%Y-%m-%d %H:%M:%S%.3f+00").alias("timestamp"),
            pl.concat_str(prefix, "apy", between, "tvl", apy_base, "apy", suffix).alias(
                "raw_json_data"
            ),
        )


def _texts(apy: Floats, tvl: Floats) -> pl.DataFrame:
    return pl.DataFrame({"apy": apy, "tvl": tvl}).select(
        pl.col("apy").round(5).cast(pl.String), pl.col("tvl").cast(pl.Int64).cast(pl.String)
    )


def _dirty(column: str, drawn: Floats, shares: dict[str, float]) -> pl.Expr:
    """Replace a share of the column's values; `drawn` is uniform in [0, 1)."""
    uniform = pl.lit(pl.Series(drawn))
    bounds = np.cumsum(list(shares.values()))
    result = pl.col(column)
    for bound, bad in reversed(list(zip(bounds, shares, strict=True))):
        result = pl.when(uniform < bound).then(pl.lit(bad)).otherwise(result)
    return result.alias(column)


def load(engine: Engine, history: History, say: Say) -> int:
    """Write pools, prices, gas and raw rows into an empty database.

    Returns:
        Number of raw rows.
    """
    _add_pools(engine, history)
    _add_market(engine, history)
    # built afterwards, as in a restore: at 28 million rows their upkeep takes most of the time
    definitions = drop_secondary_indexes(engine)
    rows = 0
    for chunk in history.chunks():
        copy_rows(engine, chunk)
        rows += chunk.height
        say(f"{rows:,} raw rows of {history.pools:,} pools loaded")
    _execute(engine, *definitions)
    return rows


def drop_secondary_indexes(engine: Engine) -> list[str]:
    """Drop the raw table's indexes that are no constraints; return the statements that
    create them.
    """
    query = """
    SELECT format('%I.%I', schemaname, indexname) AS name, indexdef
    FROM pg_indexes
    WHERE tablename = 'raw_defillama_pool_history'
        AND indexname NOT IN (SELECT conname FROM pg_constraint)
    """
    with engine.connect() as connection:
        indexes = {row.name: row.indexdef for row in connection.execute(text(query))}
    _execute(engine, *(f"DROP INDEX {name}" for name in indexes))
    return list(indexes.values())


def _execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def copy_rows(engine: Engine, rows: pl.DataFrame) -> None:
    """Append rows by COPY in one transaction."""
    buffer = io.BytesIO()
    rows.write_csv(buffer, include_header=False)
    buffer.seek(0)
    connection = engine.raw_connection()
    try:
        connection.cursor().copy_expert(
            "COPY raw_defillama_pool_history (pool_id, timestamp, raw_json_data) FROM STDIN (FORMAT"
            " csv)",
            buffer,
        )
        connection.commit()
    finally:
        connection.close()


def _add_pools(engine: Engine, history: History) -> None:
    number = "'00000000-0000-4000-8000-' || lpad(n::text, 12, '0')"
    with engine.begin() as connection:
        connection.execute(
            text(f"""
                INSERT INTO pools (pool_id, name, is_active)
                SELECT {number}, 'pool ' || n, true
                FROM generate_series(0, :last) AS n
            """),
            {"last": history.pools - 1},
        )


PRICES = """
    INSERT INTO raw_coinmarketcap_ohlcv
    SELECT d, symbol,
        jsonb_build_object(
            'USD', jsonb_build_object('close', level + 10 * extract(doy FROM d))
        )
    FROM generate_series(
        CAST(:first AS timestamptz), CAST(:last AS timestamptz), interval '1 day'
    ) AS d
    CROSS JOIN (VALUES ('ETH', 3000), ('BTC', 60000)) AS s (symbol, level)
"""

GAS = """
    INSERT INTO gas_fees_daily
    SELECT d::date, 5 + extract(day FROM d)
    FROM generate_series(
        CAST(:first AS timestamptz), CAST(:last AS timestamptz), interval '1 day'
    ) AS d
"""


def _add_market(engine: Engine, history: History) -> None:
    """Write a close of ETH and BTC and a gas price for each day."""

    bounds = {
        "first": f"{history.first_day - timedelta(days=30)}T23:59:59Z",
        "last": f"{history.today}T00:00:00Z",
    }
    with engine.begin() as connection:
        connection.execute(text(PRICES), bounds)
        connection.execute(text(GAS), bounds)
