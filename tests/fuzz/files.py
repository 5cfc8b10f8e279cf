"""A file case: a good file is made, changed and loaded, and the stored rows are compared with the
file.

Unchanged rows of the file are stored with their values, or reported. The counts of the load account
for every row, and a refused file leaves nothing behind.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection

from config_spark import Settings
from data_processing.ingest.loading.load_files import load_files
from tests.fuzz import mutations
from tests.fuzz.cases import require_sentence
from tests.fuzz.tables import Model, Row, Unreadable, cells, delimited, model, records, style

STORED = {
    "history": "SELECT pool_id, timestamp, raw_json_data FROM raw_defillama_pool_history",
    "prices": "SELECT symbol, data_timestamp, raw_json_data -> 'USD' FROM raw_coinmarketcap_ohlcv",
    "gas": "SELECT date, actual_avg_gas_gwei FROM gas_fees_daily",
    "pools": (
        "SELECT pool_id, chain, protocol, symbol, tvl, apy, poolmeta, underlying_token_addresses"
        " FROM pools"
    ),
}
KEYS = {"tvl_usd": "tvlUsd", "apy_base": "apyBase", "apy_reward": "apyReward"}

TABLES = {kind: f"({statement}) AS s" for kind, statement in STORED.items()} | {
    "quarantine": "yieldspark.quarantine"
}
COUNT = " UNION ALL ".join(f"SELECT '{kind}', count(*) FROM {of}" for kind, of in TABLES.items())
EMPTY = (
    "TRUNCATE raw_defillama_pool_history, raw_coinmarketcap_ohlcv, gas_fees_daily, pools,"
    " yieldspark.quarantine CASCADE"
)

LATER_ROW = ("another_row_of_that_day", "another_row_of_that_pool")
"""Why a good row is refused where a later one of its day or pool says something else."""


@dataclass(frozen=True)
class FuzzedFile:
    """A file and the allowed outcomes of its load.

    `unchanged` are rows of the model that the file has unchanged, `rows` is the number of its rows
    (None: unknown), `may_refuse` whether the whole file may be refused.
    """

    description: str
    path: Path
    unchanged: Sequence[Row]
    rows: int | None
    may_refuse: bool
    table: Model | None = None


def fuzzed_file(rng: random.Random, folder: Path, seeds: Sequence[Path]) -> FuzzedFile:
    make: Callable[[random.Random, Path], FuzzedFile] = rng.choices(
        (_delimited_file, _parquet_file, partial(_changed_seed, seeds)), (5, 4, 1)
    )[0]
    return make(rng, folder)


def _delimited_file(rng: random.Random, folder: Path) -> FuzzedFile:
    table, text_style = model(rng), style(rng)
    good = cells(table, text_style)
    rows = [list(row) for row in good]
    description, may_refuse = "good text", False
    if rng.random() < 0.6:
        mutate = rng.choice(mutations.CELL_MUTATIONS)
        description, may_refuse = mutate.__name__, mutate(rng, rows)
    content = delimited(rows, text_style)
    chance = rng.random()
    if chance < 0.25:
        description, content, may_refuse = (
            "changed_bytes",
            mutations.changed_bytes(rng, content),
            True,
        )
    elif chance < 0.3:
        wrap = mutations.wrapped(rng, content, mutations.text_of(text_style, rows))
        description, content, may_refuse = "wrapped", wrap, True
    path = folder / f"{table.file_name}.{rng.choice(('csv', 'csv', 'txt', 'tsv'))}"
    path.write_bytes(content)
    body = _body(content, tuple(good[0]), text_style.delimiter, text_style.above)
    if body is None:
        return FuzzedFile(description, path, [], None, True, table)
    by_cells = {tuple(row): values for row, values in zip(good[1:], table.rows, strict=True)}
    unchanged = [by_cells[row] for row in dict.fromkeys(body) if row in by_cells]
    return FuzzedFile(description, path, unchanged, len(body), may_refuse, table)


def _body(
    content: bytes, header: tuple[str, ...], delimiter: str, above: tuple[str, ...]
) -> list[tuple[str, ...]] | None:
    """Return the records below an unchanged header, None without one."""
    try:
        file_records = records(content, delimiter)
    except (Unreadable, UnicodeDecodeError):
        return None
    lines = len(above)
    if len(file_records) <= lines or file_records[lines] != header:
        return None
    is_above = [row == (line,) for row, line in zip(file_records, above, strict=False)]
    return file_records[lines + 1 :] if all(is_above) else None


def _parquet_file(rng: random.Random, folder: Path) -> FuzzedFile:
    table = model(rng)
    columns = {
        header: mutations.arrow_column(rng, table, name) for name, header in table.headers.items()
    }
    description, may_refuse, unchanged = "good Parquet", False, list(table.rows)
    chance = rng.random()
    if chance < 0.4:
        description, at = "hostile_arrow_cell", rng.randrange(len(table.rows))
        name = rng.choice(list(columns))
        columns[name], may_refuse = mutations.hostile_arrow_cell(rng, columns[name], at)
        unchanged = [row for number, row in enumerate(table.rows) if number != at]
    elif chance < 0.55:
        description, may_refuse, unchanged = "other column", True, []
        name = rng.choice([*columns, "more"])
        columns[name] = mutations.other_column(rng, len(table.rows))
        if rng.random() < 0.3:
            columns.pop(rng.choice(list(columns)))
    whole = pa.table(columns)
    try:
        content = mutations.parquet_bytes(rng, whole)
    except (pa.ArrowException, OSError):  # this version of the format lacks the type
        out = BytesIO()
        pq.write_table(whole, out)
        content = out.getvalue()
    if chance > 0.75:
        description, may_refuse, unchanged = "changed_bytes of Parquet", True, []
        content = mutations.changed_bytes(rng, content)
    path = folder / f"{table.file_name}.parquet"
    path.write_bytes(content)
    return FuzzedFile(description, path, unchanged, _parquet_rows(content), may_refuse, table)


def _changed_seed(seeds: Sequence[Path], rng: random.Random, folder: Path) -> FuzzedFile:
    """Change bytes of a reported file or of the sample data."""
    seed = rng.choice(seeds)
    content = mutations.changed_bytes(rng, seed.read_bytes())
    path = folder / seed.name
    path.write_bytes(content)
    rows = _parquet_rows(content) if content.startswith(b"PAR1") else None
    return FuzzedFile(f"changed {seed.name}", path, [], rows, True)


def _parquet_rows(content: bytes) -> int | None:
    try:
        return int(pq.read_metadata(BytesIO(content)).num_rows)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return None


# Loads


def load_and_compare(
    settings: Settings, connection: Connection, file: FuzzedFile, rng: random.Random
) -> str:
    """Load the file into the empty tables; returns the outcome.

    The connection commits each statement.

    Raises: AssertionError if a row is lost, changed or stored without being counted, or if the
    error is not one of the product.
    """
    kind = file.table.kind if file.table and rng.random() < 0.5 else None
    try:
        summary = load_files(settings, [file.path], kind=kind, progress=lambda _: None)
    except Exception as error:
        sentence = require_sentence(error)
        assert file.may_refuse, sentence
        assert counts(connection) == {}, "a refused file has left rows"
        return "refused"
    (entry,) = summary["files"]
    _require_account(connection, entry, file)
    if file.table and entry["kind"] == file.table.kind:
        _require_values(connection, file.table, file.unchanged)
    if rng.random() < 0.05:
        _require_idempotent(settings, connection, file, kind, entry)
    return "loaded"


def counts(connection: Connection) -> Counter[str]:
    """Return the number of rows of each table that has rows."""
    return +Counter({row[0]: row[1] for row in connection.exec_driver_sql(COUNT)})


def empty(connection: Connection) -> None:
    """Delete the rows of a case."""
    if counts(connection):
        connection.exec_driver_sql(EMPTY)


def _require_account(connection: Connection, entry: dict[str, Any], file: FuzzedFile) -> None:
    parts = ("inserted", "updated", "already_there", "outdated", "refused")
    row_counts = {name: entry[f"rows_{name}"] for name in parts}
    assert min(row_counts.values()) >= 0, row_counts
    assert entry["rows_read"] == sum(row_counts.values()), entry
    assert file.rows in (None, entry["rows_read"]), (file.rows, entry)
    stored = counts(connection)
    assert stored["quarantine"] == row_counts["refused"], (stored, entry)
    assert stored[entry["kind"]] == row_counts["inserted"], (stored, entry)
    assert row_counts["updated"] == 0, entry


def _require_values(connection: Connection, table: Model, unchanged: Sequence[Row]) -> None:
    stored = _stored(connection, table)
    refused = {
        (row.reason, row.pool_id, row.timestamp)
        for row in connection.exec_driver_sql(
            "SELECT reason, pool_id, timestamp FROM yieldspark.quarantine"
        )
    }
    for row in unchanged:
        expected = _expected(table, row)
        is_replaced = any(
            (reason, row.get("pool_id"), row.get("timestamp")) in refused for reason in LATER_ROW
        )
        assert expected in stored or is_replaced, (
            expected,
            stored[:3],
            sorted(map(str, refused))[:3],
        )


def _stored(connection: Connection, table: Model) -> list[Any]:
    rows = connection.exec_driver_sql(STORED[table.kind]).all()
    if table.kind in {"history", "prices"}:
        return [(key, moment, _decimals(document)) for key, moment, document in rows]
    if table.kind == "gas":
        return [tuple(row) for row in rows]
    stored = []
    for row in rows:
        stored.append({name: row._mapping[name] for name in table.headers})
    return stored


def _decimals(document: Any) -> Any:
    """Return a JSON document with its numbers as decimals, which can be compared."""
    return {
        key: Decimal(str(value)) if isinstance(value, int | float) else value
        for key, value in document.items()
    }


def _expected(table: Model, row: Row) -> Any:
    values = {name: value for name, value in row.items() if table.role(name) == "number"}
    if table.kind == "history":
        document = {KEYS.get(name, name): value for name, value in values.items()}
        return row["pool_id"], row["timestamp"], document
    if table.kind == "prices":
        return "ETH", row["timestamp"], values
    if table.kind == "gas":
        return row["timestamp"].date(), values["gwei"]
    return {name: _trimmed(value) for name, value in row.items()}


def _trimmed(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _require_idempotent(
    settings: Settings,
    connection: Connection,
    file: FuzzedFile,
    kind: str | None,
    first: dict[str, Any],
) -> None:
    before = counts(connection)
    (again,) = load_files(settings, [file.path], kind=kind, progress=lambda _: None)["files"]
    assert (again["rows_inserted"], again["rows_updated"]) == (0, 0), again
    assert again["rows_refused"] == first["rows_refused"], (first, again)
    assert counts(connection) == before
