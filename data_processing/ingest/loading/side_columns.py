"""Checks the columns of a file that are not loaded but say what the loaded ones mean: currency,
unit, time zone, the chain of gas, and the project and chain of a pool.

A file whose prices are in EUR, whose times are of New York, or whose pool ids are names of tokens
would be read as something else. Reads the whole file, if it has such columns; stores nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from common.errors import InputError
from data_processing.files import cells
from data_processing.files.file_tables import FileTable
from data_processing.files.instants import UNIX
from data_processing.ingest.loading.file_kinds import NAMES, FileColumns, Kind, plain_name
from data_processing.ingest.loading.symbols import DOLLARS

MAX_QUOTED_CHARACTERS = 40


@dataclass(frozen=True)
class _Meaning:
    """What columns of some names say.

    Attributes:
        names: their names, as `plain_name` writes them.
        allowed: pattern of the values that the tables have, in upper case.
        needed: what is needed, for the error.
    """

    names: frozenset[str]
    allowed: str
    needed: str


IN_DOLLARS = _Meaning(
    frozenset({"currency", "tvlcurrency", "pricecurrency", "quotecurrency", "vscurrency"}),
    rf"{DOLLARS}|(US)?\$|US DOLLARS?",
    "values in USD are",
)
QUOTED_IN_DOLLARS = _Meaning(
    IN_DOLLARS.names | {"quote", "quoteasset", "quotesymbol", "countercurrency"},
    IN_DOLLARS.allowed,
    IN_DOLLARS.needed,
)
OF_UNIT: Mapping[str, _Meaning] = {
    unit: _Meaning(frozenset({"unit", "units", "gasunit"}), unit.upper(), f"gas in {unit} is")
    for unit in ("gwei", "wei")
}
ON_ETHEREUM = _Meaning(
    frozenset({"chain", "chainname", "chainid", "blockchain", "network"}),
    "ETHEREUM([ _-]MAINNET)?|ETH|MAINNET|1",
    "gas of Ethereum is",
)
IN_UTC = _Meaning(
    frozenset({"timezone", "tz", "tzname", "utcoffset", "gmtoffset", "tzoffset"}),
    r"(ETC/)?(UTC|GMT|UCT|ZULU|Z)|(UTC|GMT)?[+-]?0{1,2}(:?00)?(\.0)?",
    "times in UTC are",
)

WITH_ZONE = rf"^{UNIX}$|(Z|UTC|GMT|[+-][0-9]{{2}}(:?[0-9]{{2}})?)$"
"""Points in time as text that need no other column: unix time, and times with a zone."""

WITH_TIME = ":|^[0-9]{8}[Tt ]?[0-9]{4,6}"
"""A day alone may end with a sign and two digits: 2025-03-01."""


def require_known_units(table: FileTable, columns: FileColumns) -> None:
    """Require that columns for currency, unit, chain and time zone say what the tables have.

    Args:
        table: the file.
        columns: its columns.

    Raises:
        InputError: such a column has another value.
    """
    meanings = [QUOTED_IN_DOLLARS if columns.kind == "prices" else IN_DOLLARS]
    if columns.kind == "gas":
        meanings = [OF_UNIT["gwei" if "gwei" in columns.names else "wei"], ON_ETHEREUM]
    if "timestamp" in columns.names and columns.kind != "pools":
        meanings.append(IN_UTC)
    # a loaded column, such as the chain of a pool, says nothing about the others
    in_use = set(columns.names.values())
    for meaning in meanings:
        names = [
            name
            for name in table.columns
            if plain_name(name) in meaning.names
            and name not in in_use
            and _is_readable(table, name)
        ]
        for name in names:
            _require(table, columns, name, meaning)


def _require(table: FileTable, columns: FileColumns, name: str, meaning: _Meaning) -> None:
    place = f"column {name} of {table.path}"
    for texts, times in _text_batches(table, name, columns.names.get("timestamp", name)):
        differs = pc.invert(
            pc.match_substring_regex(pc.utf8_upper(texts), f"^({meaning.allowed})$")
        )
        # a time with a zone of its own does not depend on the column
        if meaning is IN_UTC:
            differs = pc.and_(differs, _without_zone(times))
        row = pc.index(pc.fill_null(differs, fill_value=False), value=True).as_py()
        if row >= 0:
            written = texts[row].as_py()[:MAX_QUOTED_CHARACTERS]
            raise InputError(
                f"{place} has {written!r}, and {meaning.needed} needed: convert the file, or"
                " remove the column if it means something else"
            )


def _without_zone(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return which points in time are text, or timestamps, without a zone."""
    kind = times.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return pa.chunked_array([pa.array([getattr(kind, "tz", None) is None] * len(times))])
    # a number is unix time, which is in UTC
    if not cells.holds_text(kind):
        return pa.chunked_array([pa.array([False] * len(times))])
    texts = cells.to_texts("", times)
    has_zone = pc.match_substring_regex(texts, WITH_ZONE)
    is_unix = pc.match_substring_regex(texts, f"^{UNIX}$")
    has_time = pc.match_substring_regex(texts, WITH_TIME)
    return pc.invert(pc.or_(is_unix, pc.and_(has_zone, has_time)))


def _text_batches(
    table: FileTable, name: str, timestamp: str
) -> Iterator[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    """Yield the cells of a column as text, and the points in time of the same rows."""
    time = table.columns.index(timestamp)
    for batch in table.batches():
        yield _texts(table, batch.table, name), batch.table.column(time)


def require_pool_ids(table: FileTable, columns: FileColumns) -> None:
    """Require that a pool id is not that of pools of two projects or chains.

    Exports of pages have the name of a pool's tokens in the column `Pool`: `USDC` is in hundreds
    of pools.

    Args:
        table: the file.
        columns: its columns.

    Raises:
        InputError: rows of one day have the same pool id and different projects or chains.
    """
    if columns.kind not in {"history", "pools"}:
        return
    described = _described(table, columns.kind)
    pool, time = columns.names["pool_id"], columns.names.get("timestamp")
    # within a batch: the rows of a day or of a pool are near each other, and memory stays bounded
    for batch in table.batches() if described else ():
        rows = {"pool": _texts(table, batch.table, pool)}
        if time:
            column = batch.table.column(table.columns.index(time))
            moments = cells.to_timestamps(f"column {time} of {table.path}", column)
            rows["day"] = pc.floor_temporal(moments, unit="day")
        owner = pc.binary_join_element_wise(
            *(pc.utf8_lower(_texts(table, batch.table, name)) for name in described),
            " on ",
            null_handling="emit_null",
        )
        owners = pa.table({**rows, "owner": owner}).group_by(list(rows))
        counts = owners.aggregate([("owner", "count_distinct"), ("owner", "min"), ("owner", "max")])
        several = counts.filter(
            pc.and_(pc.greater(counts["owner_count_distinct"], 1), pc.is_valid(counts["pool"]))
        )
        if len(several):
            pool_id, first, second = (
                several[name][0].as_py()[:MAX_QUOTED_CHARACTERS]
                for name in ("pool", "owner_min", "owner_max")
            )
            raise InputError(
                f"column {pool} of {table.path} does not identify a pool: {pool_id!r} is a pool"
                f" of {first!r} and one of {second!r}. Give each pool an id, such as DefiLlama's"
            )


def _described(table: FileTable, kind: Kind) -> Sequence[str]:
    names = {*NAMES["pools"]["protocol"], *NAMES["pools"]["chain"], "protocolslug"}
    return [
        name for name in table.columns if plain_name(name) in names and _is_readable(table, name)
    ]


def _is_readable(table: FileTable, name: str) -> bool:
    """Return whether a column has texts or whole numbers; bytes may be anything."""
    kind = table.types[table.columns.index(name)]
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_integer(kind)
    )


def _texts(table: FileTable, rows: pa.Table, name: str) -> pa.ChunkedArray:
    return cells.to_texts(f"column {name} of {table.path}", rows.column(table.columns.index(name)))
