"""What can happen to the raw tables between two runs, as data: hypothesis strategies of changes, nothing done yet.

A pool is a number, a day is counted backward from the day on which the change happens (0: today, still partial; negative: the future). A value
follows from the row's id, so that no two rows have the same and a failing example stays small. APY in percent, TVL in USD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from hypothesis import strategies as st

FIRST_POOLS = 12
LATER_POOLS = 2
POOLS = FIRST_POOLS + LATER_POOLS
SLOTS = 3
SYMBOLS = ("ETH", "BTC")

GOOD = ("both", "both", "both", "both", "apy missing", "tvl missing", "apy NaN")
BAD: dict[str, Any] = {
    "apy_and_tvl_missing": {"apy": None, "tvlUsd": "NaN"},
    "no object": [1, 2],
    "apy_infinite": {"apy": "-Infinity", "tvlUsd": 1.0},
    "apy_not_a_number": {"apy": "oops", "tvlUsd": 1.0},
    "tvl_infinite": {"apy": 1.0, "tvlUsd": "inf"},
    "tvl_not_a_number": {"apy": 1.0, "tvlUsd": "1,5"},
    "apy_beyond_limit": {"apy": -1e9, "tvlUsd": 1.0},
    "tvl_negative": {"apy": 1.0, "tvlUsd": -0.01},
    "tvl_beyond_limit": {"apy": 1.0, "tvlUsd": 1e13},
}


def document(content: str, number: int) -> Any:
    """The JSON of row `number`."""
    if content in BAD:
        return BAD[content]
    apy, tvl = number * 7919 % 9973 / 100 - 5, number * 104_729 % 1_000_003 + 0.25
    return {
        "both": {"apy": apy, "tvlUsd": f"{tvl:.3f}" if number % 3 else tvl},
        "apy missing": {"apy": None, "tvlUsd": tvl},
        "tvl missing": {"apy": f"{apy:.6e}"},
        "apy NaN": {"apy": "NaN", "tvlUsd": tvl},
    }[content]


@dataclass(frozen=True)
class Snapshots:
    """`count` rows of a pool, the first `back` days ago and each later one `every` days after the one before; inserted last day first if `backwards`.

    `slot`: inserted by that open transaction, which is begun for it if need be; None: committed at once.
    """

    pool: int
    back: int
    count: int
    every: int
    second: int
    content: str
    backwards: bool
    slot: int | None


@dataclass(frozen=True)
class Again:
    """Another row beside the pool's `which`-th (modulo their number), `seconds` after it: an exact copy, or another content."""

    pool: int
    which: int
    seconds: int
    content: str | None
    slot: int | None


@dataclass(frozen=True)
class Impossible:
    """A row of 2017 or of more than a year ahead."""

    pool: int
    future: bool


@dataclass(frozen=True)
class Activity:
    """What `pools.is_active` says of a pool; "absent": it has no row there."""

    pool: int
    active: bool | str | None


@dataclass(frozen=True)
class Price:
    """The close of a day set, to another value, or to one that is bad."""

    symbol: str
    back: int
    close: Any


@dataclass(frozen=True)
class Gas:
    """A day's gas set, to another value, to a bad one, or taken away (NULL)."""

    back: int
    gwei: float | None


@dataclass(frozen=True)
class Days:
    """Time goes on without data."""

    count: int


@dataclass(frozen=True)
class Transaction:
    """A transaction is begun without a row yet, commits, or rolls back; on a slot where that is not possible nothing happens."""

    slot: int
    word: str


@dataclass(frozen=True)
class Limits:
    """Other settings: the next run is a full one."""

    max_fill_days: int
    max_apy_percent: float


Change: TypeAlias = Snapshots | Again | Impossible | Activity | Price | Gas | Days | Transaction | Limits

_contents = st.sampled_from((*GOOD, *GOOD, *BAD))
_slots = st.sampled_from((None, None, None, None, *range(SLOTS)))
_recent, _late, _old, _ahead = st.integers(0, 3), st.integers(4, 50), st.integers(51, 100), st.integers(-12, -1)
_backs = st.one_of(_recent, _recent, _late, _late, _late, _old, _ahead)
_seconds_of_day = st.sampled_from((0, 39_600, 46_800, 86_399))
_limits = st.builds(Limits, st.sampled_from((7, 2, 0)), st.sampled_from((1e6, 60.0)))
_prices = st.builds(
    Price, st.sampled_from(SYMBOLS), _backs, st.one_of(st.integers(1, 9999), st.sampled_from((0.5, "1234.5", None, "NaN", "?", -1.0, 1e12)))
)
_gas = st.builds(Gas, _backs, st.one_of(st.integers(1, 99).map(float), st.sampled_from((None, -3.0, float("nan")))))
_time = st.builds(Days, st.one_of(st.integers(1, 3), st.integers(1, 3), st.integers(4, 40)))
_transactions = st.builds(Transaction, st.integers(0, SLOTS - 1), st.sampled_from(("begin", "commit", "commit", "roll back")))
_shared = st.one_of(st.none(), _prices, _gas, _time, _transactions, _transactions)


def _of_pool(pool: int) -> st.SearchStrategy[Change | None]:
    one = st.just(pool)
    rows = st.builds(Snapshots, one, _backs, st.integers(1, 4), st.sampled_from((1, 1, 2, 8, 9)), _seconds_of_day, _contents, st.booleans(), _slots)
    again = st.builds(Again, one, st.integers(0, 99), st.sampled_from((0, 1, -1, 7200)), st.none() | _contents, _slots)
    active = st.builds(Activity, one, st.sampled_from((True, False, False, None, "absent")))
    return st.one_of(st.none(), st.none(), rows, rows, rows, again, again, active, st.builds(Impossible, one, st.booleans()))


def _compact(changes: tuple[Change | None, ...]) -> list[Change]:
    return [change for change in changes if change is not None]


changes: st.SearchStrategy[list[Change]] = st.tuples(
    _shared, _shared, *(_of_pool(pool) for pool in range(POOLS)), _shared, _shared, st.one_of(*[st.none()] * 9, _limits)
).map(_compact)
"""What happened since the last run: at most one change for each pool, and what all of them share."""

rows_meanwhile: st.SearchStrategy[list[Snapshots]] = st.lists(
    st.builds(
        Snapshots, st.integers(0, POOLS - 1), _backs, st.integers(1, 2), st.just(1), _seconds_of_day, st.sampled_from(GOOD), st.booleans(), st.none()
    ),
    max_size=5,
)
"""Rows that are committed while a run is under way."""


def _begin(pool: int) -> st.SearchStrategy[list[Snapshots]]:
    """A pool's first weeks: a row every so many days, so that some are carried and some too old for it."""
    every, second = st.sampled_from((1, 1, 1, 2, 3, 7, 8, 9)), _seconds_of_day
    return st.lists(
        st.builds(Snapshots, st.just(pool), st.integers(1, 65), st.integers(1, 40), every, second, st.sampled_from(GOOD), st.just(False), st.none()),
        max_size=2,
    )


beginnings: st.SearchStrategy[list[Snapshots]] = st.tuples(*(_begin(pool) for pool in range(FIRST_POOLS))).map(
    lambda pools: [rows for of_pool in pools for rows in of_pool]
)
"""The first pools' histories before the first run."""
