"""What a file holds, told from its column names; which of its columns is which.

In: the names a file has. Out: its kind and a map from the name used here to the file's own. Names
are compared without case, blanks and signs, so that `tvl_usd`, `tvlUsd` and `TVL USD` are one. A
unit is never guessed: gas needs a column that says wei or gwei. No row is read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from product_errors import InputError

Kind = Literal["history", "prices", "gas", "pools"]

NAMES: Mapping[Kind, Mapping[str, tuple[str, ...]]] = {
    "history": {
        "timestamp": ("timestamp", "date", "time", "datetime"),
        "pool_id": ("poolid", "pool"),
        "tvl_usd": ("tvlusd", "tvl"),
        "apy": ("apy",),
        "apy_base": ("apybase",),
        "apy_reward": ("apyreward",),
    },
    "prices": {
        "timestamp": ("timestamp", "date", "time", "datetime", "opentime", "datatimestamp"),
        "symbol": ("symbol",),
        "open": ("open",),
        "high": ("high",),
        "low": ("low",),
        "close": ("close",),
        "volume": ("volume",),
    },
    "gas": {
        "timestamp": ("unixtimestamp", "timestamp", "date", "dateutc", "day"),
        "gwei": (
            "gwei",
            "valuegwei",
            "gasgwei",
            "avggasgwei",
            "avggaspricegwei",
            "gaspricegwei",
            "actualavggasgwei",
        ),
        "wei": ("wei", "valuewei", "gaswei", "avggaswei", "avggaspricewei", "gaspricewei"),
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

QUOTE_CURRENCIES = "USDT|USDC|BUSD|USD"
KNOWN_SYMBOLS = {"btc": "BTC", "bitcoin": "BTC", "eth": "ETH", "ethereum": "ETH"}


@dataclass(frozen=True)
class FileColumns:
    """`found` maps a name of `NAMES[kind]` to the file's own column."""

    kind: Kind
    found: Mapping[str, str]


def columns_of(path: Path, names: Sequence[str], kind: str | None) -> FileColumns:
    """Which column is which in a file with these `names`; `kind` None: told from them.

    Raises: InputError where the kind is unknown or can't be told, or a needed column is missing; it
    names what was found and what is needed.
    """
    chosen = _known(kind) if kind else _guessed(path, names)
    plain = {_plain(name): name for name in reversed(names)}
    found = {
        ours: next(plain[name] for name in possible if name in plain)
        for ours, possible in NAMES[chosen].items()
        if set(possible) & set(plain)
    }
    missing = [name for name in NEEDED[chosen] if name not in found]
    if missing:
        raise InputError(
            f"{path} has no column {' and no column '.join(missing)}: a {chosen} file needs"
            f" {', '.join(NEEDED[chosen])}; it has {', '.join(names)}. Rename its columns, or give"
            " another --kind"
        )
    if chosen == "gas" and not {"gwei", "wei"} & set(found):
        raise InputError(
            f"{path} does not say whether its gas is gwei or wei: it has {', '.join(names)}. Name"
            " the column value_gwei or value_wei"
        )
    return FileColumns(chosen, found)


def symbol_of(path: Path) -> str:
    """The symbol a price file's name speaks of: BTCUSDT_1d.csv is BTC, eth-daily.csv is ETH.

    Raises: InputError where the name names none, or two.
    """
    pair = re.match(
        rf"([A-Z0-9]{{2,10}}?)[-_]?(?:{QUOTE_CURRENCIES})(?![A-Z0-9])", path.stem.upper()
    )
    if pair:
        return pair[1]
    named = {
        KNOWN_SYMBOLS[word]
        for word in re.split(r"[^a-z]+", path.stem.lower())
        if word in KNOWN_SYMBOLS
    }
    if len(named) == 1:
        return named.pop()
    raise InputError(
        f"{path} has no column symbol, and its name does not tell one symbol; say whose prices they"
        " are, e.g. --symbol ETH"
    )


def _known(kind: str) -> Kind:
    for known in get_args(Kind):
        if kind == known:
            return known  # type: ignore[no-any-return]
    raise InputError(f"kind {kind!r} is unknown; allowed are {', '.join(get_args(Kind))}")


def _guessed(path: Path, names: Sequence[str]) -> Kind:
    plain = {_plain(name) for name in names}

    def has(kind: Kind, *ours: str) -> bool:
        return all(plain & set(NAMES[kind][name]) for name in ours)

    if has("pools", "pool_id") and (has("pools", "protocol") or has("pools", "chain")):
        return "pools"
    if has("history", "pool_id") and (has("history", "apy") or has("history", "tvl_usd")):
        return "history"
    if has("prices", "timestamp", "close"):
        return "prices"
    if has("gas", "timestamp") and any("wei" in name or "gas" in name for name in plain):
        return "gas"
    raise InputError(
        f"can't tell what {path} holds from its columns {', '.join(names)}; give --kind"
        f" {', --kind '.join(get_args(Kind))}"
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
