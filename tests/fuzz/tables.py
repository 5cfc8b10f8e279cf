"""Good files of every kind with the values that a load must store, written as programs write them,
and a plain reader of them.

In: a random generator. Out: a `Model` (typed rows), and its bytes as delimited text or an Arrow
table. APY percent, TVL and prices USD, gas gwei, instants UTC.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from data_processing.ingest.loading.file_kinds import Kind

Role = Literal["instant", "number", "text", "tokens"]
Row = dict[str, Any]

HEADERS: dict[Kind, dict[str, tuple[str, ...]]] = {
    "history": {
        "timestamp": ("timestamp", "date", "time", "Timestamp"),
        "pool_id": ("pool", "pool_id", "Pool ID"),
        "tvl_usd": ("tvlUsd", "tvl_usd", "TVL (USD)", "tvl"),
        "apy": ("apy", "APY", "APY (%)"),
        "apy_base": ("apyBase", "apy_base"),
        "apy_reward": ("apyReward", "apy_reward"),
    },
    "prices": {
        "timestamp": ("date", "Date", "timestamp", "open_time", "time"),
        "symbol": ("symbol", "Symbol"),
        "open": ("open", "Open"),
        "close": ("close", "Close", "Close*"),
        "volume": ("volume", "Volume"),
    },
    "gas": {
        "timestamp": ("Date(UTC)", "day", "UnixTimeStamp", "date"),
        "gwei": ("value_gwei", "gas_gwei", "Value (Gwei)"),
    },
    "pools": {
        "pool_id": ("pool", "pool_id"),
        "chain": ("chain",),
        "protocol": ("project", "protocol"),
        "symbol": ("symbol",),
        "tvl": ("tvlUsd", "tvl"),
        "apy": ("apy",),
        "poolmeta": ("poolMeta",),
        "underlying_token_addresses": ("underlyingTokens",),
    },
}
OPTIONAL = {"apy_base", "apy_reward", "open", "volume", "poolmeta", "symbol"}
DIGITS = {"tvl_usd": 2, "tvl": 2, "open": 2, "close": 2, "volume": 1, "gwei": 4}
"""After the decimal sign; 4 of an APY. Never three: such a cell can be read in two ways."""

FIRST_DAY = dt.datetime(2025, 3, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Model:
    """Typed rows. `headers` maps our name of a column to the file's, in the order of the file."""

    kind: Kind
    headers: dict[str, str]
    rows: list[Row]

    def role(self, name: str) -> Role:
        if name == "timestamp":
            return "instant"
        if name == "underlying_token_addresses":
            return "tokens"
        return "number" if name in DIGITS or name.startswith("apy") else "text"

    @property
    def file_name(self) -> str:
        return "ETHUSDT_1d" if self.kind == "prices" else self.kind


def model(rng: random.Random) -> Model:
    kind: Kind = rng.choice(("history", "history", "prices", "gas", "pools"))
    possible = HEADERS[kind]
    names = [name for name in possible if name not in OPTIONAL or rng.random() < 0.6]
    rng.shuffle(names)
    headers = {name: rng.choice(possible[name]) for name in names}
    rows = {"history": _history, "prices": _days, "gas": _days, "pools": _pools}[kind](rng)
    values = []
    for row in rows:
        values.append({name: _value(rng, name, row) for name in names})
    return Model(kind, headers, values)


def _history(rng: random.Random) -> list[Row]:
    pools = [str(UUID(int=rng.getrandbits(128))) for _ in range(rng.randint(2, 3))]
    hour = rng.choice((0, 23))
    rows: list[Row] = []
    for pool in pools:
        for day in range(rng.randint(5, 9)):
            moment = FIRST_DAY + dt.timedelta(days=day, hours=hour, minutes=hour)
            rows.append({"pool_id": pool, "timestamp": moment})
    return rows


def _days(rng: random.Random) -> list[Row]:
    days = range(rng.randint(12, 25))
    return [{"timestamp": FIRST_DAY + dt.timedelta(days=day), "symbol": "ETH"} for day in days]


def _pools(rng: random.Random) -> list[Row]:
    return [{"pool_id": str(UUID(int=rng.getrandbits(128)))} for _ in range(rng.randint(8, 14))]


def _value(rng: random.Random, name: str, row: Row) -> Any:
    if name in row:
        return row[name]
    if name == "underlying_token_addresses":
        return [f"0x{rng.getrandbits(64):x}" for _ in range(rng.randint(1, 3))]
    if name in {"chain", "protocol", "symbol", "poolmeta"}:
        return rng.choice(("Ethereum", "aave-v3", "USDC", 'a "b"; c, d', "Ä|\tß", "30 days", None))
    if name in {"apy_base", "apy_reward"} and rng.random() < 0.3:
        return None
    digits = DIGITS.get(name, 4)
    value = Decimal(rng.randint(1, 10 ** rng.randint(digits + 1, 9))).scaleb(-digits)
    return -value if name.startswith("apy") and rng.random() < 0.1 else value


# Delimited text


@dataclass(frozen=True)
class Style:
    """The way in which a program writes delimited text."""

    delimiter: str
    decimal: str
    groups: str
    instants: str
    line_end: str
    quotes: Literal["few", "all"]
    byte_order_mark: bool
    above: tuple[str, ...]
    units: bool

    def number(self, name: str, value: Decimal) -> str:
        whole, point, fraction = f"{value:f}".partition(".")
        if self.groups:
            whole = f"{int(whole):,}".replace(",", self.groups) if int(whole) else whole
        text_of_number = whole + (self.decimal + fraction if point else "")
        if not self.units:
            return text_of_number
        percent = name.startswith("apy")
        return (
            f"{text_of_number} %"
            if percent
            else f"${text_of_number}"
            if name.startswith("tvl")
            else text_of_number
        )

    def instant(self, moment: dt.datetime) -> str:
        if self.instants == "unix":
            return str(int(moment.timestamp()))
        if self.instants == "milliseconds":
            return str(int(moment.timestamp()) * 1000)
        if self.instants == "offset":
            return moment.astimezone(dt.timezone(dt.timedelta(hours=2))).isoformat()
        return moment.strftime(self.instants)

    def cell(self, table: Model, name: str, value: Any) -> str:
        if value is None:
            return ""
        role = table.role(name)
        if role == "instant":
            return self.instant(value)
        if role == "tokens":
            return str(value)
        return self.number(name, value) if role == "number" else str(value)


def style(rng: random.Random) -> Style:
    decimal = rng.choice((".", ".", ","))
    return Style(
        delimiter=rng.choice(",;\t|"),
        decimal=decimal,
        groups=rng.choice(("", "", "." if decimal == "," else ",", "\u202f", "'")),
        instants=rng.choice(
            (
                "%Y-%m-%dT%H:%M:%SZ",
                "%Y-%m-%d %H:%M:%S",
                "%Y/%m/%d %H:%M",
                "%Y%m%dT%H%M%SZ",
                "%Y-%m-%d %H:%M:%S.000 UTC",
                "unix",
                "milliseconds",
                "offset",
            )
        ),
        line_end=rng.choice(("\n", "\n", "\r\n", "\r")),
        quotes=rng.choice(("few", "all")),
        byte_order_mark=rng.random() < 0.2,
        above=rng.choice(((), (), ("# exported",), ("https://www.CryptoDataDownload.com",))),
        units=rng.random() < 0.2,
    )


def cells(table: Model, text_style: Style) -> list[list[str]]:
    """Return the header and the rows as text."""
    rows = [list(table.headers.values())]
    for row in table.rows:
        rows.append([text_style.cell(table, name, row[name]) for name in table.headers])
    return rows


def delimited(rows: Sequence[Sequence[str]], text_style: Style) -> bytes:
    out = io.StringIO()
    writer = csv.writer(
        out,
        delimiter=text_style.delimiter,
        lineterminator=text_style.line_end,
        quoting=csv.QUOTE_ALL if text_style.quotes == "all" else csv.QUOTE_MINIMAL,
    )
    writer.writerows(rows)
    above = "".join(line + text_style.line_end for line in text_style.above)
    mark = "\ufeff" if text_style.byte_order_mark else ""
    return (mark + above + out.getvalue()).encode("utf-8", "surrogatepass")


class Unreadable(Exception):
    """The text is not CSV."""


def records(content: bytes, delimiter: str) -> list[tuple[str, ...]]:
    """Return the records of RFC 4180 text, without records that have no value. Lines end with CR,
    LF or both.

    Raises: Unreadable, UnicodeDecodeError.
    """
    text = content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    rows: list[tuple[str, ...]] = []
    row: list[str] = []
    position = 0
    while position <= len(text):
        cell, position = _cell(text, position, delimiter)
        row.append(cell)
        if position < len(text) and text[position] == delimiter:
            position += 1
            continue
        if any(row):
            rows.append(tuple(row))
        row = []
        position += 1
    return rows


def _cell(text: str, position: int, delimiter: str) -> tuple[str, int]:
    """Return the cell that begins at the position, and its end."""
    ends = delimiter + "\n\r"
    begin = position
    if position >= len(text) or text[position] != '"':
        while position < len(text) and text[position] not in ends:
            position += 1
        return text[begin:position], position
    value = ""
    position += 1
    while True:
        quote = text.find('"', position)
        if quote < 0:
            raise Unreadable("a quote is left open")
        value += text[position:quote]
        position = quote + 1
        if text[position : position + 1] != '"':
            break
        value, position = f'{value}"', position + 1
    if position < len(text) and text[position] not in ends:
        raise Unreadable("something follows a closing quote")
    return value, position
