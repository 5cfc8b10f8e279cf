"""What a file may hold, told from its column names; which of its columns is which.

In: the names a file has. Out: the kinds that fit, and a map from the name used here to the file's
own. Names are compared without case, blanks and signs, so that `tvl_usd`, `tvlUsd` and `TVL USD`
are one. A unit is never guessed: gas needs a column that says wei or gwei. No row is read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from common.errors import InputError
from data_processing.files.file_tables import listed

Kind = Literal["history", "prices", "gas", "pools"]

GAS_PRICES = (
    *("gas", "avggas", "avggasprice", "gasprice", "averagegas", "averagegasprice", "mediangas"),
    *("mediangasprice", "actualavggas"),
)

NAMES: Mapping[Kind, Mapping[str, tuple[str, ...]]] = {
    "history": {
        "timestamp": ("timestamp", "datetime", "date", "time"),
        "pool_id": ("poolid", "pool"),
        "tvl_usd": ("tvlusd", "tvl"),
        "apy": ("apy",),
        "apy_base": ("apybase",),
        "apy_reward": ("apyreward",),
    },
    "prices": {
        "timestamp": ("timestamp", "datetime", "date", "time", "opentime", "datatimestamp"),
        "symbol": ("symbol",),
        "open": ("open",),
        "high": ("high",),
        "low": ("low",),
        "close": ("close",),
        "volume": ("volume",),
    },
    "gas": {
        "timestamp": (
            *("unixtimestamp", "timestamp", "datetime", "date", "dateutc", "time", "day"),
            "blockdate",
        ),
        "gwei": ("gwei", "valuegwei", *(f"{name}gwei" for name in GAS_PRICES)),
        "wei": ("wei", "valuewei", *(f"{name}wei" for name in GAS_PRICES)),
    },
    "pools": {
        "pool_id": ("poolid", "pool"),
        "timestamp": ("timestamp", "lastupdated"),
        "name": ("name",),
        "chain": ("chain",),
        "protocol": ("protocol", "project", "protocolslug"),
        "symbol": ("symbol",),
        "tvl": ("tvlusd", "tvl"),
        "apy": ("apy",),
        "poolmeta": ("poolmeta",),
        "underlying_token_addresses": ("underlyingtokens", "underlyingtokenaddresses"),
    },
}
"""Names a column may have, as `_plain` writes them; where a file has several, the first listed
counts.
"""

NEEDED: Mapping[Kind, tuple[str, ...]] = {
    "history": ("timestamp", "pool_id", "tvl_usd", "apy"),
    "prices": ("timestamp", "close"),
    "gas": ("timestamp",),
    "pools": ("pool_id",),
}

NUMBERS: Mapping[Kind, tuple[str, ...]] = {
    "history": ("tvl_usd", "apy", "apy_base", "apy_reward"),
    "prices": ("open", "high", "low", "close", "volume"),
    "gas": ("gwei", "wei"),
    "pools": ("tvl", "apy"),
}
"""The columns that hold numbers; the others hold texts and points in time."""

PERCENT = frozenset({"apy", "apy_base", "apy_reward"})
DOLLARS = frozenset({"tvl_usd", "tvl", "open", "high", "low", "close"})


@dataclass(frozen=True)
class FileColumns:
    """`found` maps a name of `NAMES[kind]` to the file's own column."""

    kind: Kind
    found: Mapping[str, str]


def columns_of(path: Path, names: Sequence[str], kind: Kind) -> FileColumns:
    """Which column is which in a file of that kind.

    Raises: InputError where a needed column is missing, or two could be it; it names what was found
    and what is needed.
    """
    found = {
        ours: _only_one(path, ours, possible, names)
        for ours, possible in NAMES[kind].items()
        if _of_them(possible, names)
    }
    missing = [name for name in NEEDED[kind] if name not in found]
    if missing:
        raise InputError(
            f"{path} has no column {' and no column '.join(missing)}: a {kind} file needs"
            f" {', '.join(NEEDED[kind])}; it has {listed(names)}. Rename its columns, or give"
            " another --kind"
        )
    if kind == "gas" and not {"gwei", "wei"} & set(found):
        raise InputError(
            f"{path} does not say whether its gas is gwei or wei: it has {listed(names)}. Name"
            " the column value_gwei or value_wei"
        )
    return FileColumns(kind, found)


def known_kind(kind: str) -> Kind:
    """Raises: InputError for a kind that is none."""
    for known in get_args(Kind):
        if kind == known:
            return known  # type: ignore[no-any-return]
    raise InputError(f"kind {kind!r} is unknown; allowed are {', '.join(get_args(Kind))}")


def fitting_kinds(names: Sequence[str]) -> list[Kind]:
    """What a file with these columns may hold. A file with history and names of its pools also fits
    pools: its rows tell which it is.
    """
    plain = {_plain(name) for name in names}

    def has(kind: Kind, *ours: str) -> bool:
        return all(plain & set(NAMES[kind][name]) for name in ours)

    has_pools = has("pools", "pool_id") and (
        has("pools", "protocol") or has("pools", "chain") or describes_only(names)
    )
    fits: dict[Kind, bool] = {
        "history": has("history", "pool_id")
        and (has("history", "apy") or has("history", "tvl_usd"))
        and (has("history", "timestamp") or not has_pools),
        "pools": has_pools,
        "prices": has("prices", "timestamp", "close"),
        "gas": has("gas", "timestamp") and (has("gas", "gwei") or has("gas", "wei")),
    }
    fitting = [kind for kind, does_fit in fits.items() if does_fit]
    speaks_of_gas = has("gas", "timestamp") and any("gas" in name for name in plain)
    return fitting or (["gas"] if speaks_of_gas else [])


def describes_only(names: Sequence[str]) -> bool:
    """Whether the columns say of a pool what no history has: its tokens, its pool's meta."""
    plain = {_plain(name) for name in names}
    of_pools = NAMES["pools"]
    return bool(plain & {*of_pools["poolmeta"], *of_pools["underlying_token_addresses"]})


def unknown_kind(path: Path, names: Sequence[str]) -> InputError:
    """The error for a file that fits no kind."""
    if sum(bool(VALUE.fullmatch(name)) for name in names) * 2 > len(names):
        return InputError(
            f"{path} begins with values ({listed(names)}); a header line with the column names is"
            " needed above them"
        )
    return InputError(
        f"can't tell what {path} holds from its columns {listed(names)}; give --kind"
        f" {', --kind '.join(get_args(Kind))}"
    )


VALUE = re.compile(r"[+-]?[0-9][0-9.,:+/ TZe-]*")


def _of_them(possible: Sequence[str], names: Sequence[str]) -> list[str]:
    """The file's names for one column: those of the first listed way to write it."""
    for wanted in possible:
        if found := [name for name in names if _plain(name) == wanted]:
            return found
    return []


def _only_one(path: Path, ours: str, possible: Sequence[str], names: Sequence[str]) -> str:
    found = _of_them(possible, names)
    if len(found) > 1:
        raise InputError(
            f"{path} has {len(found)} columns that may be {ours}: {listed(found)}. Keep one of them"
        )
    return found[0]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
