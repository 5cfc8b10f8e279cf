"""Detects from its column names which kind of data a file has, and which of its columns is which.

Names are compared without case, blanks and ASCII punctuation: `tvl_usd`, `tvlUsd` and `TVL USD` are
equal, `TVL €` is another column. A unit is never guessed: gas needs a column that says wei or gwei.
Reads no rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from common.errors import InputError
from data_processing.files.file_tables import format_names

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
        # DefiLlama calls it project
        "protocol": ("protocol", "project"),
        "symbol": ("symbol",),
        "tvl": ("tvlusd", "tvl"),
        "apy": ("apy",),
        "poolmeta": ("poolmeta",),
        "underlying_token_addresses": ("underlyingtokenaddresses",),
    },
}
"""Names that a column may have, as `plain_name` writes them, in the order of preference."""

OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "protocol": ("protocolslug",),
    # DefiLlama's name of the addresses; in the owner's `pools`, which has both, it has symbols
    "underlying_token_addresses": ("underlyingtokens",),
}
"""Names that a column of `pools` may have if the file has none of `NAMES`."""

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
"""Columns of numbers; the others have texts and points in time."""

PERCENT = frozenset({"apy", "apy_base", "apy_reward"})
DOLLARS = frozenset({"tvl_usd", "tvl", "open", "high", "low", "close"})


@dataclass(frozen=True)
class FileColumns:
    """Columns of a file.

    Attributes:
        kind: kind of the file.
        names: the file's own column for each name of `NAMES[kind]` that it has.
        candidates: all columns that may be it, for those of `names` that have several.
    """

    kind: Kind
    names: Mapping[str, str]
    candidates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def map_columns(path: Path, names: Sequence[str], kind: Kind) -> FileColumns:
    """Map the columns of a kind to those of a file.

    Args:
        path: the file, for messages.
        names: its column names.
        kind: its kind.

    Raises:
        InputError: a needed column is missing, or two columns have the same name.
    """
    columns, candidates = {}, {}
    for column, possible in NAMES[kind].items():
        own = _own_names(path, column, possible, names)
        if not own and kind == "pools":
            own = _own_names(path, column, OTHER_NAMES.get(column, ()), names)
        if own:
            columns[column] = own[0]
        if len(own) > 1:
            candidates[column] = own
    missing = [name for name in NEEDED[kind] if name not in columns]
    if missing:
        raise InputError(
            f"{path} has no column {' and no column '.join(missing)}: a {kind} file needs"
            f" {', '.join(NEEDED[kind])}; it has {format_names(names)}. Rename its columns, or give"
            " another --kind"
        )
    if kind == "gas" and not {"gwei", "wei"} & set(columns):
        raise InputError(
            f"{path} does not say whether its gas is gwei or wei: it has {format_names(names)}."
            " Name the column value_gwei or value_wei"
        )
    return FileColumns(kind, columns, candidates)


def parse_kind(text: str) -> Kind:
    """Parse the option `--kind`.

    Args:
        text: text of the option.

    Raises:
        InputError: the text is no kind.
    """
    for kind in get_args(Kind):
        if text == kind:
            return kind  # type: ignore[no-any-return]
    raise InputError(f"kind {text!r} is unknown; allowed are {', '.join(get_args(Kind))}")


def fitting_kinds(names: Sequence[str]) -> list[Kind]:
    """Return the kinds that a file with these columns may have.

    A file with history and names of its pools also fits pools; its rows decide.

    Args:
        names: column names of the file.
    """
    plain = {plain_name(name) for name in names}

    def has(kind: Kind, *columns: str) -> bool:
        others = OTHER_NAMES if kind == "pools" else {}
        return all(plain & {*NAMES[kind][name], *others.get(name, ())} for name in columns)

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
    if fitting:
        return fitting
    # a gas file without a unit: `map_columns` names what is missing
    names_gas = has("gas", "timestamp") and any("gas" in name for name in plain)
    return ["gas"] if names_gas else []


def describes_only(names: Sequence[str]) -> bool:
    """Return whether columns describe pools as no history does: by tokens or pool meta."""
    plain = {plain_name(name) for name in names}
    tokens = "underlying_token_addresses"
    return bool(
        plain & {*NAMES["pools"]["poolmeta"], *NAMES["pools"][tokens], *OTHER_NAMES[tokens]}
    )


def unknown_kind(path: Path, names: Sequence[str]) -> InputError:
    """Return the error for a file that fits no kind.

    Args:
        path: the file.
        names: its column names.
    """
    if sum(bool(VALUE.fullmatch(name)) for name in names) * 2 > len(names):
        return InputError(
            f"{path} begins with values ({format_names(names)}); a header line with the column"
            " names is needed above them"
        )
    if RAW_DOCUMENT in {plain_name(name) for name in names}:
        return InputError(
            f"{path} has JSON in a column: export what is in it as columns, for example SELECT"
            " pool_id, timestamp, raw_json_data ->> 'tvlUsd' AS tvl_usd, raw_json_data ->> 'apy' AS"
            " apy, or SELECT data_timestamp, symbol, raw_json_data #>> '{USD,close}' AS close"
        )
    if len(names) < 2:
        columns = f"only the column {format_names(names)!r}" if names else "no column"
        return InputError(
            f"can't tell what {path} holds: it has {columns}; if that is a line above its header,"
            " remove it; if it is an error message of a site, fetch the file again"
        )
    return InputError(
        f"can't tell what {path} holds from its columns {format_names(names)}; give --kind"
        f" {', --kind '.join(get_args(Kind))}"
    )


RAW_DOCUMENT = "rawjsondata"
"""Column of the raw tables, which an export of them has."""

IGNORED_IN_NAMES = re.compile(r"\u00ef\u00bb\u00bf|[^\w\u0080-\U0010ffff]|[\s_\ufeff\u200b]")
"""A byte-order mark that was read as Latin-1 comes first."""

VALUE = re.compile(r"[+-]?[0-9][0-9.,:+/ TZe-]*")


def _own_names(
    path: Path, column: str, possible: Sequence[str], names: Sequence[str]
) -> tuple[str, ...]:
    """Return the file's names for one column, in the order of the possible ones."""
    own: list[str] = []
    for spelling in possible:
        spelled = [name for name in names if plain_name(name) == spelling]
        if len(spelled) > 1:
            raise InputError(
                f"{path} has {len(spelled)} columns that may be {column}:"
                f" {format_names(spelled)}. Keep one of them"
            )
        own += spelled
    return tuple(own)


def plain_name(name: str) -> str:
    """Return a column name in lower case, without blanks, ASCII punctuation and byte-order marks.

    Other signs stay, because they change what a column means: `TVL €`, `Δ APY`.
    """
    return IGNORED_IN_NAMES.sub("", name.lower())
