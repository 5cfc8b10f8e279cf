"""Defines a history in which the pandas job and YieldSpark differ by every known rule, with pools
whose windows reach over the differences.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import product
from random import Random

from tests.support.metrics_oracle import RawRow, World

DAYS = 60
"""Complete days before today, which is partial."""


def _pool(
    random: Random, start: date, pool: str, days: list[int], **missing: set[int]
) -> list[RawRow]:
    rows = []
    for day in days:
        moment = datetime.combine(
            start + timedelta(days=day), time(random.randrange(11) if day < DAYS else 0), UTC
        )
        document: dict[str, float | None]
        document = {"apy": round(random.uniform(0, 30), 5), "tvlUsd": random.randrange(10**6)}
        document |= {key: None for key, without in missing.items() if day in without}
        rows.append(RawRow(0, pool, moment, document))
    return rows


def history(today: date) -> World:
    """A world whose last day, `today`, has rows of its first hour only; the run is at noon or
    later.
    """
    random, start = Random(7), today - timedelta(days=DAYS)
    every = list(range(DAYS + 1))
    gone = [day for day in every if not 20 <= day < 35]
    rows = [
        *_pool(random, start, "a-steady", every),
        *_pool(random, start, "b-late", every[12:]),
        *_pool(random, start, "c-gap-of-15-days", gone),
        *_pool(random, start, "d-gaps", [day for day in every if day % 5]),
        *_pool(random, start, "e-apy-missing", every, apy=set(range(10, 13)) | set(range(40, 50))),
        *_pool(random, start, "f-tvl-missing", every, tvlUsd=set(range(30, 33))),
        *_pool(random, start, "g-inactive", every[:40]),
        *_pool(random, start, "h-several-a-day", sorted([*every, 30, 30])),
        *_pool(random, start, "i-new", every[-3:]),
        *_pool(random, start, "j-quarantined", [day for day in every if day != 26]),
    ]
    bad = [row for row in rows if row.pool_id == "j-quarantined"][25]
    rows[rows.index(bad)] = RawRow(0, bad.pool_id, bad.timestamp, {"apy": 5.0, "tvlUsd": -1})
    days_with_prices = [day for day in range(6, DAYS) if day not in (25, 26)]
    levels = (("ETH", 3000.0), ("BTC", 60000.0))
    prices = {}
    for (symbol, level), day in product(levels, days_with_prices):
        moment = datetime.combine(start + timedelta(days=day), time(23), UTC)
        prices[moment, symbol] = level + day
    gas: dict[date, float | None] = {
        start + timedelta(days=day): 10.25 + day for day in range(4, DAYS) if day != 33
    }
    return World(
        rows,
        prices,
        gas,
        inactive={"g-inactive"},
        now=datetime.combine(today, time(12), UTC),
    )
