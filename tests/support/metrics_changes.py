"""Defines changes of the raw tables between two runs as data, with hypothesis strategies.

A pool is a number; a day is counted backward from the day of the change (0: today, still partial;
negative: the future). A value follows from the row's id, so that no two rows are equal and a
failing example stays small. APY in percent, TVL in USD.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    """`count` rows of a pool, the first `back` days ago, each later one `every` days after the row
    before.

    They are inserted last day first if `backwards`. `slot` is the open transaction that inserts
    them, which is begun if necessary; None commits at once.
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
    """A row `seconds` after the pool's row number `which` (modulo the number of rows): an exact
    copy, or with other content.
    """

    pool: int
    which: int
    seconds: int
    content: str | None
    slot: int | None


@dataclass(frozen=True)
class Impossible:
    """A row of 2017, or more than a year in the future."""

    pool: int
    future: bool


@dataclass(frozen=True)
class Activity:
    """Sets `pools.is_active` of a pool; "absent" deletes its row there."""

    pool: int
    active: bool | str | None


@dataclass(frozen=True)
class Price:
    """Sets the close of a day to another value, or to an invalid one."""

    symbol: str
    back: int
    close: Any


@dataclass(frozen=True)
class Gas:
    """Sets the gas of a day to another value, to an invalid one, or to NULL."""

    back: int
    gwei: float | None


@dataclass(frozen=True)
class Days:
    """Days without data pass."""

    count: int


@dataclass(frozen=True)
class Transaction:
    """A transaction is begun without a row, commits, or rolls back.

    Nothing happens if the slot does not allow it.
    """

    slot: int
    word: str


@dataclass(frozen=True)
class Deleted:
    """Deletes the raw rows of `count` days of a pool, the first one `back` days ago.

    An incremental run cannot notice.
    """

    pool: int
    back: int
    count: int


@dataclass(frozen=True)
class Pruned:
    """Deletes raw rows of whole days that the last run knew: of one pool or of all (`pool` None),
    every `every`-th day that is at least `back` days ago.
    """

    pool: int | None
    back: int
    every: int


@dataclass(frozen=True)
class Fetched:
    """Deletes the days of a `Pruned` and inserts them again with new ids.

    `with_pruned` adds days that were pruned before.
    """

    pool: int | None
    back: int
    every: int
    with_pruned: bool


@dataclass(frozen=True)
class Limits:
    """Other settings, which require a full run."""

    max_fill_days: int
    max_apy_percent: float


Change: TypeAlias = (
    Snapshots
    | Again
    | Impossible
    | Activity
    | Price
    | Gas
    | Days
    | Transaction
    | Deleted
    | Pruned
    | Fetched
    | Limits
)

_pools, _slots = st.integers(0, POOLS - 1), st.sampled_from((None, None, None, None, *range(SLOTS)))
_recent, _late, _old, _ahead = (
    st.integers(0, 3),
    st.integers(4, 50),
    st.integers(51, 100),
    st.integers(-12, -1),
)
_backs = st.one_of(_recent, _recent, _late, _late, _late, _old, _ahead)
_seconds_of_day = st.sampled_from((0, 39_600, 46_800, 86_399))
_contents = st.sampled_from((*GOOD, *GOOD, *BAD))
_rows = st.builds(
    Snapshots,
    _pools,
    _backs,
    st.integers(1, 4),
    st.sampled_from((1, 1, 2, 8, 9)),
    _seconds_of_day,
    _contents,
    st.booleans(),
    _slots,
)
_again = st.builds(
    Again,
    _pools,
    st.integers(0, 99),
    st.sampled_from((0, 1, -1, 7200)),
    st.none() | _contents,
    _slots,
)
_closes = st.one_of(
    st.integers(1, 9999), st.sampled_from((0.5, "1234.5", None, "NaN", "?", -1.0, 1e12))
)
_gweis = st.one_of(st.integers(1, 99).map(float), st.sampled_from((None, -3.0, float("nan"))))
_others = st.one_of(
    st.builds(Activity, _pools, st.sampled_from((True, False, False, None, "absent"))),
    st.builds(Impossible, _pools, st.booleans()),
    st.builds(Price, st.sampled_from(SYMBOLS), _backs, _closes),
    st.builds(Gas, _backs, _gweis),
    st.builds(Days, st.one_of(st.integers(1, 3), st.integers(1, 3), st.integers(4, 40))),
    st.builds(
        Transaction,
        st.integers(0, SLOTS - 1),
        st.sampled_from(("begin", "commit", "commit", "roll back")),
    ),
)
_some_or_all = st.none() | _pools
_parts = (_some_or_all, st.sampled_from((0, 2, 20, 45)), st.sampled_from((1, 1, 2, 5)))
_losses = st.one_of(
    st.builds(Pruned, *_parts),
    st.builds(Pruned, *_parts),
    st.builds(Fetched, *_parts, st.booleans()),
)
_changes = st.one_of(st.none(), _rows, _again, _others)
_limits = st.builds(Limits, st.sampled_from((7, 2, 0)), st.sampled_from((1e6, 60.0)))


@st.composite
def changes(draw: st.DrawFn) -> list[Change]:
    """Changes since the last run: about one for each pool, some of them for all pools.

    Shrinks to no change.
    """
    losses = draw(st.sampled_from((0, 0, 1, 2)))
    drawn = [
        *(draw(_losses) for _ in range(losses)),
        *(draw(_changes) for _ in range(POOLS + 4)),
        draw(_limits) if draw(st.integers(0, 9)) == 9 else None,
    ]
    return [change for change in drawn if change is not None]


def deletions() -> st.SearchStrategy[list[Deleted]]:
    """Deletions of some days of some pools; some of them delete a whole history."""
    return st.lists(
        st.builds(Deleted, _pools, _backs, st.sampled_from((1, 2, 9, 40, 300))),
        min_size=1,
        max_size=5,
    )


@st.composite
def rows_meanwhile(draw: st.DrawFn) -> list[Snapshots]:
    """Rows that are committed during a run."""
    return [replace(draw(_rows), slot=None) for _ in range(draw(st.integers(0, 5)))]


@st.composite
def beginnings(draw: st.DrawFn) -> list[Snapshots]:
    """The first pools' weeks before the first run: some days are carried, others are too old for
    that.
    """
    snapshots = []
    for pool in range(FIRST_POOLS):
        for _ in range(draw(st.integers(0, 2))):
            snapshots.append(
                Snapshots(
                    pool,
                    draw(st.integers(1, 65)),
                    draw(st.integers(1, 40)),
                    draw(_steps),
                    draw(_seconds_of_day),
                    draw(_goods),
                    False,
                    None,
                )
            )
    return snapshots


_steps, _goods = st.sampled_from((1, 1, 1, 2, 3, 7, 8, 9)), st.sampled_from(GOOD)
