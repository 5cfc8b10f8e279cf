"""The generated source of a soak: raw rows of pools by night, with what is known about them.

APY percent, TVL USD, UTC days. The same seed gives the same rows. A pool's APY returns to its mean,
its TVL is a random walk.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
from sqlalchemy import Engine, text

REPORTED, LATE = 0.97, 0.7
"""Share of pools with a row on the same night; share of the others whose row comes late."""

LATE_NIGHTS = (1, 8)
CORRECTED, CORRECTED_DAYS = 0.01, 20
"""Corrections a night, relative to the pools, and the days that they reach back."""

BROKEN = 0.01
"""Broken rows of a usual night, relative to the pools."""

FLOOD = 12
"""Broken rows of each pool in a night of a broken source."""

BROKEN_VALUES: Sequence[dict[str, object]] = (
    {"apy": 5.0, "tvlUsd": -1.0},
    {"apy": "n/a", "tvlUsd": 1e6},
    {"apy": "Infinity", "tvlUsd": 1e6},
    {"apy": 5e9, "tvlUsd": 1e6},
    {"apy": 5.0, "tvlUsd": 1e15},
)
"""Each is quarantined: negative, no number, infinite, beyond MAX_APY_PERCENT and MAX_TVL_USD."""

KINDS = ("new", "late", "corrected", "broken")


@dataclass(frozen=True)
class RawRow:
    """One row of `raw_defillama_pool_history`; `kind` is one of KINDS."""

    pool: int
    at: datetime
    values: Mapping[str, object]
    kind: str


@dataclass
class Source:
    """Pools and their rows.

    Attributes:
        pools: number of pools.
        first: first day of the history.
        days: days of the history before the first night.
        nights: nights after it.
        seed: of everything that is drawn here.
        inserted: rows that were returned so far, by kind.
    """

    pools: int
    first: date
    days: int
    nights: int
    seed: int
    inserted: Counter[str] = field(default_factory=Counter)
    _waiting: dict[int, list[RawRow]] = field(default_factory=dict)
    _newest: date | None = None

    def __post_init__(self) -> None:
        draw = np.random.default_rng(self.seed)
        shape = (self.pools, self.days + self.nights)
        level = draw.uniform(2, 30, (self.pools, 1))
        spread = draw.uniform(0.1, 2, (self.pools, 1))
        self._apy = np.maximum(level + spread * draw.standard_normal(shape), 0.0)
        walk = np.cumsum(0.02 * draw.standard_normal(shape), axis=1)
        self._tvl = np.exp(draw.uniform(13, 17, (self.pools, 1)) + walk)

    @property
    def newest_day(self) -> date | None:
        """The newest day that has a good row."""
        return self._newest

    def day(self, number: int) -> date:
        """Return the day of a night; a negative number is in the history."""
        return self.first + timedelta(days=self.days + number)

    def history(self) -> list[RawRow]:
        """Return the rows before the first night: one a pool and day."""
        rows = [
            self._row(pool, number - self.days, "new")
            for number in range(self.days)
            for pool in range(self.pools)
        ]
        return self._counted(rows)

    def rows_of_night(self, night: int, *, silent: bool, flooded: bool) -> list[RawRow]:
        """Return the rows that arrive in a night.

        Args:
            night: number of the night; its data end on `day(night)`.
            silent: the source has no row of this day yet; they come a night later.
            flooded: FLOOD broken rows of each pool.
        """
        draw = np.random.default_rng([self.seed, night])
        rows = self._waiting.pop(night, [])
        for pool in range(self.pools):
            row = self._row(pool, night, "new")
            if silent:
                self._later(night + 1, row)
            elif draw.random() < REPORTED:
                rows.append(row)
            elif draw.random() < LATE:
                after = int(draw.integers(*LATE_NIGHTS))
                self._later(night + after, self._row(pool, night, "late"))
        rows += self._corrections(draw, night, newest=night - 1 if silent else night)
        broken = self.pools * FLOOD if flooded else max(1, round(self.pools * BROKEN))
        for number in range(broken):
            at = self._at(night - silent, 23 * 3600 + number * 0.05)
            values = BROKEN_VALUES[int(draw.integers(len(BROKEN_VALUES)))]
            rows.append(RawRow(int(draw.integers(self.pools)), at, values, "broken"))
        return self._counted(rows)

    def _corrections(self, draw: np.random.Generator, night: int, newest: int) -> Iterator[RawRow]:
        """Yield later snapshots of earlier days, with other values."""
        for number in range(max(1, round(self.pools * CORRECTED))):
            day = newest - int(draw.integers(CORRECTED_DAYS))
            pool = int(draw.integers(self.pools))
            # after all earlier snapshots of the day
            at = self._at(day, 20 * 3600 + night * 60 + number % 60)
            apy = round(float(self._apy[pool, day + self.days]) * float(draw.uniform(0.8, 1.2)), 5)
            tvl = round(float(self._tvl[pool, day + self.days]), 2)
            yield RawRow(pool, at, {"apy": apy, "tvlUsd": tvl}, "corrected")

    def _row(self, pool: int, night: int, kind: str) -> RawRow:
        column = night + self.days
        values = {
            "apy": round(float(self._apy[pool, column]), 5),
            "tvlUsd": round(float(self._tvl[pool, column]), 2),
        }
        return RawRow(pool, self._at(night, 6 * 3600 + pool % 3600), values, kind)

    def _at(self, night: int, seconds: float) -> datetime:
        return datetime.combine(self.day(night), time(), UTC) + timedelta(seconds=seconds)

    def _later(self, night: int, row: RawRow) -> None:
        self._waiting.setdefault(night, []).append(row)

    def _counted(self, rows: list[RawRow]) -> list[RawRow]:
        self.inserted.update(row.kind for row in rows)
        good = [row.at.date() for row in rows if row.kind != "broken"]
        self._newest = max([*good, *([self._newest] if self._newest else [])], default=None)
        return rows


def pool_id(number: int) -> str:
    """Return the id of a pool."""
    return f"00000000-0000-4000-8000-{number:012d}"


def insert(engine: Engine, rows: Iterable[RawRow]) -> None:
    """Insert rows by COPY, in one transaction; the server's clock dates them."""
    buffer = io.StringIO()
    for row in rows:
        # JSON has neither tabs nor newlines; its backslashes are COPY's
        content = json.dumps(row.values).replace("\\", "\\\\")
        buffer.write(f"{pool_id(row.pool)}\t{row.at.isoformat()}\t{content}\n")
    buffer.seek(0)
    connection = engine.raw_connection()
    try:
        connection.cursor().copy_expert(
            "COPY raw_defillama_pool_history (pool_id, timestamp, raw_json_data) FROM STDIN", buffer
        )
        connection.commit()
    finally:
        connection.close()


POOLS = text("""
    INSERT INTO pools (pool_id, name, is_active)
    SELECT '00000000-0000-4000-8000-' || lpad(n::text, 12, '0'), 'pool ' || n, true
    FROM generate_series(0, :last) AS n
""")

PRICES = text("""
    INSERT INTO raw_coinmarketcap_ohlcv (data_timestamp, symbol, raw_json_data)
    SELECT day, symbol, jsonb_build_object(
        'USD', jsonb_build_object('close', level + 10 * extract(doy FROM day))
    )
    FROM generate_series(CAST(:first AS timestamptz), CAST(:last AS timestamptz), interval '1 day')
        AS day
    CROSS JOIN (VALUES ('ETH', 3000), ('BTC', 60000)) AS symbols (symbol, level)
""")

GAS = text("""
    INSERT INTO gas_fees_daily (date, actual_avg_gas_gwei)
    SELECT day::date, 5 + extract(day FROM day)
    FROM generate_series(CAST(:first AS timestamptz), CAST(:last AS timestamptz), interval '1 day')
        AS day
""")


def insert_pools(engine: Engine, pools: int) -> None:
    """Insert the rows of `pools`."""
    with engine.begin() as connection:
        connection.execute(POOLS, {"last": pools - 1})


def insert_market(engine: Engine, first: date, last: date) -> None:
    """Insert prices and gas of the days `[first, last]`."""
    bounds = {"first": f"{first}T00:00:00Z", "last": f"{last}T00:00:00Z"}
    with engine.begin() as connection:
        connection.execute(PRICES, bounds)
        connection.execute(GAS, bounds)
