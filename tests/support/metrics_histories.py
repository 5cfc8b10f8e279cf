"""Generates raw histories for the metrics from a seed: many pools of every awkward kind, so that
one Spark job computes them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from typing import Any

from tests.support.metrics_oracle import RawRow, World

START = date(2024, 2, 20)

BAD_VALUES = [
    "Infinity",
    "-inf",
    "12%",
    "",
    "n/a",
    "0x10",
    "1e7",
    True,
    [1],
    {"a": 1},
    "5d",
    " 5",
    "1_000",
    "1,5",
    "\u0661",
    "5\n",
]
MISSING_VALUES = [None, "NaN", "nan"]
BAD_DOCUMENTS: list[Any] = [None, 5, "text", [], {}, {"apy": None, "tvlUsd": "NaN"}]


def world(seed: int, *, pools: int = 40, days: int = 80, max_fill_days: int = 7) -> World:
    """Generate `pools` pools over at most `days` days from START; `now` is noon of the day after
    the last complete one.
    """
    random = Random(seed)
    now = datetime.combine(START + timedelta(days=days), time(12), UTC)
    generated = World(now=now, max_fill_days=max_fill_days, max_tvl_usd=1e9, max_apy_percent=1e6)
    for index in range(pools):
        pool = f"{seed}-pool-{index:03d}"
        kind = KINDS[index % len(KINDS)]
        generated.rows += [
            RawRow(0, pool, moment, document) for moment, document in kind(random, days)
        ]
        if random.random() < 0.25:
            generated.inactive.add(pool)
    random.shuffle(generated.rows)
    generated.rows = [
        RawRow(number, row.pool_id, row.timestamp, row.document)
        for number, row in enumerate(generated.rows, start=1)
    ]
    _market(generated, random, days)
    return generated


def as_text(document: Any, key: str) -> str | None:
    """The text that PostgreSQL's `->>` gives for a JSON value that Python has parsed."""
    value = document.get(key) if isinstance(document, dict) else None
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _moment(random: Random, day: int) -> datetime:
    return datetime.combine(
        START + timedelta(days=day),
        time(random.randrange(24), random.randrange(60), random.choice([0, 0, 59])),
        UTC,
    )


def _number(random: Random, value: float) -> Any:
    return random.choice([value, value, f"{value:.8f}", f"{value:.6e}"])


def _walk(
    random: Random, days: int, gap: Callable[[], int], *, missing: float = 0.05, bad: float = 0.0
) -> list[tuple[datetime, Any]]:
    """A random walk of APY and TVL, observed every `gap()` days.

    Some values are missing, some are invalid, and some days have several snapshots.
    """
    rows: list[tuple[datetime, Any]] = []
    apy, tvl, day = (
        random.uniform(0, 50),
        10 ** random.uniform(3, 8),
        random.randrange(max(days // 3, 1)),
    )
    while day < days:
        for _ in range(random.choice([1, 1, 1, 2, 3])):
            apy, tvl = (
                apy * random.uniform(0.9, 1.1) + random.uniform(-0.1, 0.1),
                tvl * random.uniform(0.95, 1.05),
            )
            document: Any = {
                "apy": _number(random, apy),
                "tvlUsd": _number(random, tvl),
                "apyBase": apy,
            }
            for key in ("apy", "tvlUsd"):
                if random.random() < missing:
                    document[key] = random.choice(MISSING_VALUES)
                elif random.random() < bad:
                    document[key] = random.choice(BAD_VALUES)
            if random.random() < bad:
                document = random.choice(BAD_DOCUMENTS)
            rows.append((_moment(random, day), document))
        day += gap()
    return rows


def _steady(random: Random, days: int) -> list[tuple[datetime, Any]]:
    return _walk(random, days, lambda: 1)


def _gappy(random: Random, days: int) -> list[tuple[datetime, Any]]:
    return _walk(random, days, lambda: random.choice([1, 1, 2, 3, 7, 8, 9, 12, 35]))


def _dirty(random: Random, days: int) -> list[tuple[datetime, Any]]:
    return _walk(random, days, lambda: random.choice([1, 1, 2, 9]), missing=0.2, bad=0.2)


def _single_day(random: Random, days: int) -> list[tuple[datetime, Any]]:
    return _walk(random, days, lambda: days)[:1]


def _spiked(random: Random, days: int) -> list[tuple[datetime, Any]]:
    rows = _walk(random, days, lambda: 1)
    moment, _ = random.choice(rows)
    return [
        *rows,
        (moment, {"apy": 355_083.0, "tvlUsd": 1.0}),
        (moment + timedelta(seconds=1), {"apy": -1e6, "tvlUsd": 0}),
    ]


def _constant(random: Random, days: int) -> list[tuple[datetime, Any]]:
    return [(moment, {"apy": 0.1, "tvlUsd": 1e6}) for moment, _ in _walk(random, days, lambda: 1)]


def _sparse_values(random: Random, days: int) -> list[tuple[datetime, Any]]:
    return _walk(random, days, lambda: random.choice([1, 4]), missing=0.6)


def _impossible_days(random: Random, days: int) -> list[tuple[datetime, Any]]:
    rows = _walk(random, days, lambda: 2)
    odd = [
        datetime(1970, 1, 20, tzinfo=UTC),
        datetime(2017, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2199, 1, 1, tzinfo=UTC),
    ]
    partial = datetime.combine(START + timedelta(days=days), time(6), UTC)
    return [
        *rows,
        *((moment, {"apy": 1.0, "tvlUsd": -5.0}) for moment in odd),
        (partial, {"apy": 9.0, "tvlUsd": 9.0}),
    ]


def _hopeless(random: Random, days: int) -> list[tuple[datetime, Any]]:
    return [(_moment(random, day), {"apy": "Infinity", "tvlUsd": -1}) for day in range(3)]


KINDS = (
    _steady,
    _gappy,
    _dirty,
    _single_day,
    _spiked,
    _constant,
    _sparse_values,
    _impossible_days,
    _gappy,
    _hopeless,
)


def _market(generated: World, random: Random, days: int) -> None:
    for symbol, level in (("ETH", 3000.0), ("BTC", 60000.0)):
        for day in range(5, days):
            if random.random() < 0.8:
                moment = datetime.combine(
                    START + timedelta(days=day), time(random.choice([0, 23])), UTC
                )
                generated.prices[moment, symbol] = random.choice(
                    [level + day, f"{level + day / 7:.8f}", level, -1.0, "NaN", None, "?", 1e12]
                )
    for day in range(2, days):
        if random.random() < 0.7:
            generated.gas[START + timedelta(days=day)] = random.choice(
                [float(day), 0.0, None, -3.0, float("nan")]
            )
